"""`celltree demo`: the main job on embedded parts, shown as it happens, every step of it checked.

One process: a SQLite file per cell, memory brokers, simulated XenServer pools reached over HTTP through the real
XenAPI SDK. Exit status 0 only if everything that is shown was also verified.
"""

import argparse
import json
import signal
import tempfile
import threading
from pathlib import Path

from cliff.command import Command
from rich.console import Console

from cells.cli.demo_tour import Tour
from cells.cli.demo_tree import open_tree
from cells.cli.exports import export_lines
from cells.errors import BadInput


class Demo(Command):
    """Run the main job on embedded parts: the tree, a build, a snapshot, a resize, a delete."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("--json", type=Path, metavar="FILE", help="also write the facts shown to this file")
        parser.add_argument(
            "--serve", action="store_true", help="afterwards keep the API of east up until interrupted, for clients"
        )
        parser.add_argument(
            "--port", type=int, default=8774, help="where the API of east listens with --serve (default 8774)"
        )
        parser.add_argument("--data", type=Path, metavar="DIR", help="keep databases, disks and images here")
        return parser

    def take_action(self, arguments: argparse.Namespace) -> int:
        console = Console(highlight=False)
        with tempfile.TemporaryDirectory(prefix="celltree-demo-") as temporary:
            folder = arguments.data or Path(temporary)
            if (folder / "east").exists():
                raise BadInput(f"--data {folder} holds an earlier demo; name another folder, or remove it first")
            tree = open_tree(folder, arguments.port if arguments.serve else 0)
            try:
                tour = Tour(tree, console, folder)
                good = tour.run()
                if arguments.json:
                    arguments.json.write_text(json.dumps(tour.facts, indent=2) + "\n", encoding="utf-8")
                if arguments.serve:
                    _serve(console, tree.endpoint)
            finally:
                tree.close()
        return 0 if good else 1


def _serve(console: Console, endpoint: str) -> None:
    console.print("\nThe API of [bold]east[/] stays up; Ctrl-C ends it. For openstackclient, in another shell:\n")
    for line in export_lines(endpoint, "none"):
        console.print(f"    {line}", soft_wrap=True)
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    stop.wait()
    for number, handler in before.items():
        signal.signal(number, handler)
