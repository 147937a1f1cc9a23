"""`celltree lab ...`: the production shape on this machine, and breaking it on purpose."""

import argparse
import collections
from pathlib import Path

from cells import topology_file
from cells.cli.command import Command, Lister, Rows
from cells.cli.exports import export_lines
from cells.errors import BadInput
from cells.lab.compose import compose_text
from cells.lab.lab import Lab
from cells.lab.plan import HTTP_BASIC, NONE, USER, VHOSTS, make_plan
from cells.names import cell_name
from cells.topology_file import CellPlan, PoolPlan
from cells.tree_folder import trees_folder

NAME = "lab"


def add_lab(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", default=NAME, metavar="NAME", help="the lab's name, or its folder (default: lab)")


def folder_of(arguments: argparse.Namespace) -> Path:
    """Where the lab meant is kept."""
    word: str = arguments.name
    return Path(word) if "/" in word else trees_folder() / cell_name(word)


def lab_of(arguments: argparse.Namespace) -> Lab:
    return Lab(folder_of(arguments))


class LabUp(Command):
    """Start a lab: RabbitMQ, MariaDB, simulated XenServers and a daemon per cell. Again: start what does not run."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("topology", nargs="?", type=Path, help="a topology file (default: two API cells, 3 leaves)")
        add_lab(parser)
        parser.add_argument(
            "--brokers", default=VHOSTS, help="vhosts: one RabbitMQ; nodes: one per cell; N: so many, shared in turn"
        )
        parser.add_argument(
            "--tls",
            action="store_true",
            help="RabbitMQ, MariaDB and hosts with TLS only; cells log in with certificates",
        )
        parser.add_argument("--databases", type=int, default=1, help="MariaDB servers, shared in turn (default: 1)")
        parser.add_argument("--daemons", type=int, default=1, help="daemons of each cell (default: 1)")
        parser.add_argument("--auth", choices=(NONE, HTTP_BASIC), default=NONE, help="how REST asks who is there")
        parser.add_argument(
            "--port", type=int, default=0, help="REST of the first API cell; the next ones follow (default: free ones)"
        )

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        folder = folder_of(parsed_args)
        given = topology_file.read(parsed_args.topology) if parsed_args.topology else None
        if (folder / "lab.json").exists():
            lab = Lab(folder)
            if given is not None and given != lab.topology:
                raise BadInput(
                    f"{folder} holds a lab of another topology; take another --name, or end that one for good: "
                    f"celltree lab down --remove --name {parsed_args.name}"
                )
        else:
            plan = make_plan(
                given or topology_file.default(),
                folder.absolute(),
                brokers=parsed_args.brokers,
                databases=parsed_args.databases,
                daemons=parsed_args.daemons,
                auth=parsed_args.auth,
                port=parsed_args.port,
                tls=parsed_args.tls,
            )
            lab = Lab.create(folder, plan)
        lab.up(self.say)
        for api in lab.topology.api_cells:
            self.say(f"\n# the API cell {api.name}")
            password = lab.plan.password("rest", USER)
            for line in export_lines(lab.plan.endpoint(api.name), lab.plan.auth, USER, password):
                self.say(f"{line}")


class LabAdd(Command):
    """Add a cell to a running lab: its schema, broker and pool are made, and it joins its parents."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("cell")
        parser.add_argument("--parent", action="append", default=[], metavar="P", help="may be repeated")
        parser.add_argument("--hosts", type=int, default=0, help="simulated hosts in a pool of its own (default: none)")
        add_lab(parser)

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        pools = (PoolPlan(hosts=parsed_args.hosts),) if parsed_args.hosts else ()
        plan = CellPlan(name=cell_name(parsed_args.cell), parents=tuple(parsed_args.parent), pools=pools)
        lab_of(parsed_args).add(plan, self.say)


class LabRemove(Command):
    """Take a cell out of a lab, once it was detached from its parents."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("cell")
        add_lab(parser)

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        lab_of(parsed_args).remove(parsed_args.cell)
        self.say(f"{parsed_args.cell} is removed")


class LabCompose(Command):
    """Print a topology as a docker-compose file."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("topology", nargs="?", type=Path, help="a topology file (default: two API cells, 3 leaves)")

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        topology = topology_file.read(parsed_args.topology) if parsed_args.topology else topology_file.default()
        self.app.stdout.write(compose_text(topology))


class LabStatus(Lister):
    """List the parts of a lab and whether they run."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        add_lab(parser)

    def take_action(self, parsed_args: argparse.Namespace) -> Rows:
        parts = lab_of(parsed_args).status()
        rows = [(part.what, part.kind, "running" if part.pid else "down", part.pid or "", part.at) for part in parts]
        return ("Part", "Kind", "State", "Pid", "At"), rows


class LabLogs(Command):
    """Print the end of a cell's log, or of a simulated pool's (xenserver:POOL)."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("part", metavar="CELL")
        parser.add_argument("--lines", type=int, default=50)
        add_lab(parser)

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        log = lab_of(parsed_args).log(parsed_args.part)
        try:
            with log.open(encoding="utf-8", errors="replace") as file:
                self.app.stdout.writelines(collections.deque(file, maxlen=max(1, parsed_args.lines)))
        except OSError as error:
            raise BadInput(f"{log} cannot be read: {error.strerror}; was {parsed_args.part} ever started?") from None


class _OnePart(Command):
    """Kill and start."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("part", metavar="CELL[/DAEMON]|broker[:CELL]|database[:CELL]|xenserver:POOL")
        add_lab(parser)


class LabKill(_OnePart):
    """Kill a part with SIGKILL, as if the power had failed."""

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        lab_of(parsed_args).kill(parsed_args.part)
        self.say(f"{parsed_args.part} is killed")


class LabStart(_OnePart):
    """Start a part again."""

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        lab_of(parsed_args).start(parsed_args.part)
        self.say(f"{parsed_args.part} runs")


class LabDown(Command):
    """End every process of a lab. Its data stays for the next `lab up`, unless --remove."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        add_lab(parser)
        parser.add_argument("--remove", action="store_true", help="forget the lab with all its data")

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        folder = folder_of(parsed_args)
        if not (folder / "lab.json").exists():
            self.say(f"there is no lab in {folder}")
            return
        Lab(folder).down(remove=parsed_args.remove, say=self.say)
