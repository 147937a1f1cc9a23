"""`celltree xenserver`: a simulated XenServer pool alone, and the command to its control socket."""

import argparse
import json

from cells.cli.command import Command
from cells.errors import BadInput
from xenapi_host.simulator import control_client
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


class XenServerControl(Command):
    """Let something go wrong in a simulated pool (docs/simulator.md): faults, full repositories, crashes. The answer is
    printed as JSON."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        control_client.add_words(parser)

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        try:
            answer = control_client.ask(parsed_args.socket, control_client.request_of(parsed_args))
        except (control_client.Unreachable, OSError) as error:
            raise BadInput(str(error)) from error
        if not answer.pop("ok"):
            raise BadInput(str(answer["error"]))
        self.say(json.dumps(answer, indent=2))
