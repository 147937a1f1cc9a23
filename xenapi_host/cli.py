"""`celltree xenserver`: a simulated XenServer pool alone, and the command to its control socket."""

import argparse
import json

from cells.cli.command import Command
from cells.errors import BadInput
from xenapi_host.simulator import control_client
from xenapi_host.simulator.__main__ import add_options, run


class XenServer(Command):
    """Run a simulated XenServer pool that speaks XenAPI over HTTP, until SIGTERM."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        add_options(parser)

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        return run(parsed_args)


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
