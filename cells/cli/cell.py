"""`celltree tree init`, `celltree cell ...`, `celltree db upgrade`, `celltree run`: making a tree, changing it while it
runs, and running one cell of it."""

import argparse
import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cells import certifying, codec, daemon
from cells.cli.command import (
    Command,
    Lister,
    Rows,
    ShowOne,
    add_cell,
    add_tree,
    ago,
    clock_time,
    config_of,
    tree_of,
)
from cells.config import CellConfig, identity
from cells.errors import BadInput, CelltreeError
from cells.house import system_clock
from cells.identity import fingerprint
from cells.ids import Ids
from cells.model import CellRecord, CellState
from cells.names import id_text
from cells.registering import STATE, NewCell, PoolAccess, Registrar, open_store
from cells.rows import DaemonRow, EdgeRow, RosterRow, SettingRow
from cells.store import schema
from cells.topology_file import API, COMPUTE
from cells.tree_folder import TreeFolder, trees_folder


def registrar_of(arguments: argparse.Namespace) -> Registrar:
    return Registrar(
        tree_of(arguments), clock=system_clock, new_id=Ids(system_clock, os.urandom), random_bytes=os.urandom
    )


class TreeInit(Command):
    """Make a tree folder with a new root key."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("folder", metavar="DIR", help="a folder, or a name under ~/.local/share/celltree")

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        word: str = parsed_args.folder
        folder = TreeFolder.create(Path(word) if os.sep in word else trees_folder() / word, os.urandom)
        self.say(
            f"{folder.path}: a new tree. Keep {folder.path / 'root.key'} offline, and safe: it certifies every cell."
        )


class DbUpgrade(Command):
    """Bring a cell's database to the schema that this version wants."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        add_cell(parser)

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        config = config_of(parsed_args)
        self.say(f"{config.cell}: at {schema.upgrade(config.database, config.role)}")


class Run(Command):
    """Run one daemon of one cell until SIGTERM; jobs under way then reach their end. celltree -vv run: its log tells
    everything, also what the libraries do."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        add_cell(parser)
        parser.add_argument("--daemon", metavar="NAME", help="this daemon's own name among several of the cell")
        parser.add_argument("--listen", metavar="HOST:PORT", help="where this daemon serves REST, if not as configured")
        parser.add_argument(
            "--drain-seconds", type=float, default=daemon.DRAIN_SECONDS, help="how long jobs may take to end at SIGTERM"
        )

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        config = config_of(parsed_args)
        if parsed_args.daemon:
            config = dataclasses.replace(config, daemon=parsed_args.daemon)
        if parsed_args.listen is not None:
            config = dataclasses.replace(config, listen=parsed_args.listen)
        daemon.set_up_logging(logging.DEBUG if self.app.options.verbose_level > 2 else logging.INFO)
        return daemon.run(config, drain_seconds=parsed_args.drain_seconds, reread=lambda: config_of(parsed_args))


class CellRegister(Command):
    """Certify a new cell, bring its database up and join it to its parents, while they run."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        add_tree(parser)
        parser.add_argument("name")
        parser.add_argument("--role", choices=(API, COMPUTE), required=True)
        parser.add_argument(
            "--database", required=True, metavar="URL", help="the cell's own, an empty schema; @FILE: as the file says"
        )
        parser.add_argument(
            "--broker", required=True, metavar="URL", help="the cell's own, a user with all rights; @FILE likewise"
        )
        parser.add_argument(
            "--parent", action="append", default=[], metavar="P", help="a registered cell above; may be repeated"
        )
        parser.add_argument(
            "--up",
            action="append",
            default=[],
            metavar="P=URL",
            help="how the cell writes to P's inbox, if not as P; P=@FILE likewise",
        )
        parser.add_argument(
            "--down", action="append", default=[], metavar="P=URL", help="how P writes to its inbox, if not as it"
        )
        parser.add_argument(
            "--pool",
            action="append",
            default=[],
            metavar="NAME=URL,user=U,password-file=F",
            help="a XenServer pool of a leaf; further words: fingerprint=SHA256",
        )
        parser.add_argument("--listen", default="", metavar="HOST:PORT", help="where an API cell serves REST")
        parser.add_argument(
            "--image-url", default="", metavar="URL", help="how leaves reach an API cell's images, if not at --listen"
        )
        parser.add_argument(
            "--posting", action="store_true", help="an API cell also takes requests over its broker (oslo.messaging)"
        )
        parser.add_argument("--tick", type=float, help="seconds between hellos (default 10)")
        parser.add_argument(
            "--tls",
            default="",
            metavar="authorities=F,certificate=F,key=F",
            help="PEM files for amqps: who signs brokers, and the cell's own certificate",
        )

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        settings: dict[str, Any] = {}
        if parsed_args.listen:
            settings["listen"] = parsed_args.listen
        if parsed_args.posting:
            settings["posting"] = True
        if parsed_args.tick:
            settings["tick"] = parsed_args.tick
        if parsed_args.tls:
            settings["amqp"] = {"tls": _tls_files(parsed_args.tls)}
        registrar = registrar_of(parsed_args)
        if parsed_args.role == API:
            images = registrar.folder.path / "images" / parsed_args.name
            secret = registrar.folder.image_secret(parsed_args.name)
            front = {"images": str(images.absolute()), "secret_file": str(secret)}
            if parsed_args.image_url:
                front["image_url"] = parsed_args.image_url
            settings["settings"] = {"front": front}
        config = registrar.register(
            NewCell(
                name=parsed_args.name,
                role=parsed_args.role,
                database=_url(parsed_args.database, "--database"),
                broker=_url(parsed_args.broker, "--broker"),
                parents=tuple(parsed_args.parent),
                up=_pairs(parsed_args.up, "--up"),
                down=_pairs(parsed_args.down, "--down"),
                pools=tuple(pool_access(word) for word in parsed_args.pool),
                settings=settings,
            )
        )
        if config.role == API:
            registrar.folder.make_image_secret(config.cell, os.urandom)
        file = registrar.folder.config_file(config.cell)
        self.say(f"{config.cell} is registered; start it: celltree run --config {file}")


def pool_access(word: str) -> PoolAccess:
    """A pool as the command line gives it: NAME=URL,user=..,password-file=..,fingerprint=.."""
    name, _, rest = word.partition("=")
    url, *more = rest.split(",")
    if not name or not url:
        raise BadInput(f"--pool {word!r}: write NAME=URL,user=root,password-file=FILE")
    words = {}
    for pair in more:
        key, equals, value = pair.partition("=")
        if key not in ("user", "password-file", "fingerprint") or not equals:
            raise BadInput(f"--pool {name}: {pair!r} is not known; there are user=, password-file=, fingerprint=")
        words[key] = value
    password = ""
    if "password-file" in words:
        try:
            password = Path(words["password-file"]).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise BadInput(
                f"--pool {name}: password-file {words['password-file']} cannot be read: {error.strerror}"
            ) from None
    return PoolAccess(
        name=name, url=url, user=words.get("user", "root"), password=password, fingerprint=words.get("fingerprint", "")
    )


def _pairs(words: list[str], option: str) -> dict[str, str]:
    pairs = {}
    for word in words:
        name, equals, url = word.partition("=")
        if not equals or not url:
            raise BadInput(f"{option} {word!r}: write PARENT=URL")
        pairs[name] = _url(url, option)
    return pairs


def _url(word: str, option: str) -> str:
    """A URL, or with @FILE the first line of a file: a command line is seen by all who may list processes."""
    if not word.startswith("@"):
        return word
    try:
        return Path(word[1:]).read_text(encoding="utf-8").splitlines()[0].strip()
    except (OSError, IndexError):
        raise BadInput(f"{option} {word}: the file cannot be read or is empty; put the URL into it") from None


def _tls_files(words: str) -> dict[str, str]:
    files = dict(pair.partition("=")[::2] for pair in words.split(","))
    unknown = sorted(set(files) - {"authorities", "certificate", "key"})
    if unknown or not all(files.values()):
        raise BadInput(f"--tls {words!r}: write authorities=FILE,certificate=FILE,key=FILE")
    return {name: str(Path(path).absolute()) for name, path in files.items()}


class CellAttach(Command):
    """Give a cell one more parent, while both run."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        add_tree(parser)
        parser.add_argument("child")
        parser.add_argument("--parent", required=True, metavar="P")
        parser.add_argument("--up", default="", metavar="URL", help="how the child writes to P's inbox, if not as P")
        parser.add_argument("--down", default="", metavar="URL", help="how P writes to the child's inbox, if not as it")

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        child, parent = parsed_args.child, parsed_args.parent
        up, down = _url(parsed_args.up, "--up"), _url(parsed_args.down, "--down")
        registrar_of(parsed_args).attach(child, parent, up=up, down=down)
        self.say(f"{child} is under {parent} now")


class CellDetach(Command):
    """Take a cell from under one of its parents, unless a cell with servers would be cut off."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        add_tree(parser)
        parser.add_argument("child")
        parser.add_argument("--parent", required=True, metavar="P")
        parser.add_argument("--force", action="store_true", help="also when servers are cut off by it")

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        child, parent = parsed_args.child, parsed_args.parent
        forgot = registrar_of(parsed_args).detach(child, parent, force=parsed_args.force)
        where = f"; {', '.join(forgot)} no longer know it" if forgot else ""
        self.say(f"{child} is no longer under {parent}{where}")


class CellRotate(Command):
    """Give a cell a new key and certificate. Both the old and the new ones count until --finish, which says what still
    needs the old ones."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        add_tree(parser)
        parser.add_argument("name")
        parser.add_argument("--finish", action="store_true", help="the old ones count no longer and leave the key file")

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        folder, name = tree_of(parsed_args), parsed_args.name
        if parsed_args.finish:
            untold = certifying.finish_rotation(folder, name, system_clock())
            self.say(
                f"{name}: only its newest certificate counts{_untold(untold)}. Its former keys are out of "
                f"{folder.key_file(name)}: bring that file to its machines, where it replaces the one with the former "
                "keys, and send its daemons SIGHUP"
            )
            return
        key = fingerprint(identity(certifying.rotate(folder, name, os.urandom, system_clock())).says.key)
        self.say(
            f"{name} has the new key {key}: bring {folder.key_file(name)} and .certificate to its machines, send its "
            f"daemons (and REST servers beside them) SIGHUP, then: celltree cell rotate {name} --finish"
        )


class CellRemove(Command):
    """Take a cell out of the tree for good. Nobody believes what it says any more; its database stays as it is."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        add_tree(parser)
        parser.add_argument("name")
        parser.add_argument("--force", action="store_true", help="though it still has edges, or cannot be reached")

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        untold = certifying.remove(tree_of(parsed_args), parsed_args.name, system_clock(), force=parsed_args.force)
        self.say(
            f"{parsed_args.name} is removed; stop its daemons, and drop its broker users, virtual host and schema"
            f"{_untold(untold)}"
        )


def _untold(names: Sequence[str]) -> str:
    return f"; {', '.join(names)} could not be told, and will hear of it from their neighbours" if names else ""


class CellDrain(Command):
    """Let a cell keep what it has and take no new builds."""

    state = CellState.DRAINING
    words = "takes no new builds"

    def options(self, parser: argparse.ArgumentParser) -> None:
        add_tree(parser)
        parser.add_argument("name")
        parser.add_argument("--below", action="store_true", help="every cell below it, too")

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        registrar = registrar_of(parsed_args)
        changed = registrar.set_state(parsed_args.name, self.state, below=parsed_args.below)
        for name in changed:
            self.say(f"{name} {self.words}")
        left = [] if parsed_args.below else sorted(registrar.below(parsed_args.name))
        if left:
            self.say(f"the cells below it are as they were ({', '.join(left)}); --below means them, too")


class CellEnable(CellDrain):
    """Let a cell take new builds (again)."""

    state = CellState.ENABLED
    words = "takes new builds"


class CellList(Lister):
    """List the cells of a tree, as their own databases know them."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        add_tree(parser)

    def take_action(self, parsed_args: argparse.Namespace) -> Rows:
        rows = []
        for config in tree_of(parsed_args).configs():
            try:
                with open_store(config) as store, store.unit(lock=False) as unit:
                    edges = unit.all(EdgeRow)
                    state = unit.get(SettingRow, STATE)
                    seen = max((row.seen for row in unit.all(DaemonRow)), default=0)
            except CelltreeError as error:
                rows.append((config.cell, config.role, "unknown", "", "", str(error)))
                continue
            parents = ", ".join(sorted(edge.neighbour for edge in edges if edge.parent))
            children = ", ".join(sorted(edge.neighbour for edge in edges if not edge.parent))
            rows.append((config.cell, config.role, state.value if state else "enabled", parents, children, ago(seen)))
        return ("Name", "Role", "State", "Parents", "Children", "Daemon seen"), rows


class CellShow(ShowOne):
    """Show a cell: who it is, its edges, and what it knows of the cells below."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        add_tree(parser)
        parser.add_argument("name")

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        config = tree_of(parsed_args).config(parsed_args.name)
        with open_store(config) as store, store.unit(lock=False) as unit:
            edges = unit.all(EdgeRow)
            state = unit.get(SettingRow, STATE)
            daemons = unit.all(DaemonRow)
            roster = unit.all(RosterRow)
        says = identity(config).says
        facts = {
            "name": config.cell,
            "uuid": id_text(says.uuid),
            "role": config.role,
            "state": state.value if state else "enabled",
            "schema": schema.current(config.database),
            "key": f"{fingerprint(says.key)}, certified {clock_time(says.issued)}",
            "tls": _tls(config),
            "tick": config.tick,
            "parents": [_edge(edge) for edge in edges if edge.parent],
            "children": [_edge(edge) for edge in edges if not edge.parent],
            "daemons": [
                f"{row.name}, seen {ago(row.seen)} ago"
                + ("" if row.signer == fingerprint(says.key) else f", signs with another key: {row.signer}")
                for row in daemons
            ],
            "below": [_below(row) for row in roster],
        }
        if "json" in parsed_args.formatter or "yaml" in parsed_args.formatter:
            return tuple(facts), tuple(facts.values())
        return tuple(facts), tuple("\n".join(each) if isinstance(each, list) else each for each in facts.values())


def _tls(config: CellConfig) -> str:
    """The certificate for brokers, and until when it can be used."""
    file = config.amqp.tls.certificate
    if not file:
        return "no certificate"
    from cells import certificates

    try:
        seen = certificates.look(Path(file))
    except BadInput as error:
        return str(error)
    return f"{seen.name}, until {clock_time(seen.ends)[:10]}, SHA-256 {seen.fingerprint[:16]}"


def _edge(edge: EdgeRow) -> str:
    refused = f", refused: {edge.refused}" if edge.refused else ""
    return f"{edge.neighbour}, {edge.state}, heard {ago(edge.heard)} ago{refused}"


def _below(row: RosterRow) -> str:
    record: CellRecord = codec.unpack(CellRecord, row.payload)
    return f"{row.name}, {record.state}, heard {ago(row.updated)} ago"
