"""The `celltree` command: finds commands by entry point (group celltree.commands), so that roles and hands bring their
own and nothing here imports them. What goes wrong on purpose is one line with its remedy, and exit status 1; a bad
command line is 2.
"""

import logging
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points, version

from cliff.app import App
from cliff.command import Command
from cliff.commandmanager import CommandManager

from cells.errors import CelltreeError
from cells.masking import MaskingFormatter

COMMANDS = "celltree.commands"


class Commands(CommandManager):
    """Commands by the name of their entry point. Each is imported when it is asked for: cliff's own way imports them
    all, which would make every daemon as large as all commands together."""

    def load_commands(self, namespace: str) -> None:
        self.group_list.append(namespace)
        self.commands.update({entry.name.replace("_", " "): entry for entry in entry_points(group=namespace)})


class Celltree(App):
    """The application around every command."""

    NAME = "celltree"
    LOG = logging.getLogger("celltree.cli")

    def __init__(self) -> None:
        super().__init__(
            description="Hierarchical compute cells for XenServer and XCP-ng fleets.",
            version=version("celltree"),
            command_manager=Commands(COMMANDS),
            deferred_help=True,
        )

    def configure_logging(self) -> None:
        """Errors and warnings to stderr; -v shows more. (cliff would show every library's INFO.)"""
        level = {0: logging.ERROR, 1: logging.WARNING, 2: logging.INFO}.get(self.options.verbose_level, logging.DEBUG)
        console = logging.StreamHandler(self.stderr)
        console.setFormatter(MaskingFormatter("celltree: %(message)s"))
        root = logging.getLogger()
        root.handlers[:] = [console]
        root.setLevel(level)
        logging.getLogger("celltree").setLevel(level)

    def clean_up(self, cmd: Command, result: int, err: BaseException | None) -> None:
        """An error that nobody raised on purpose is a bug of ours: say so, with its type."""
        if isinstance(err, Exception) and not isinstance(err, CelltreeError | OSError):
            self.LOG.error("that was an unexpected %s; --debug shows where it came from", type(err).__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return Celltree().run(words or ["help"])
