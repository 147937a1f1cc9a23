"""`celltree xenserver`: a simulated XenServer pool alone."""

import argparse

from cells.cli.command import Command
from xenapi_host.simulator.__main__ import main


class XenServer(Command):
    """Run a simulated XenServer pool that speaks XenAPI over HTTP, until SIGTERM."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        # No word is an option here: every one, --help too, is for the simulator's own parser.
        parser = argparse.ArgumentParser(prog=prog_name, add_help=False, prefix_chars="\0")
        parser.add_argument("words", nargs="*")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        return main(parsed_args.words)
