"""`celltree messages ...`: what cells have parked, and what becomes of it."""

import argparse
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from cells import codec
from cells.cli.command import Command, Lister, Rows, ShowOne, add_cell, clock_time, configs_of
from cells.config import CellConfig
from cells.errors import BadInput
from cells.house import system_clock
from cells.names import Instant, id_from_text, id_text
from cells.parked import drop, record_of, replay, why_not_replay
from cells.record import NO_SERVER
from cells.registering import open_store
from cells.rows import ParkedRow


class MessagesList(Lister):
    """List parked messages, oldest first."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        add_cell(parser, "only this cell")
        parser.add_argument("--limit", type=int, default=200, help="at most so many of each cell (default 200)")

    def take_action(self, parsed_args: argparse.Namespace) -> Rows:
        rows = []
        for config in configs_of(parsed_args):
            with open_store(config) as store, store.unit(lock=False) as unit:
                for row in unit.find(ParkedRow, order=("at",), limit=max(1, parsed_args.limit)):
                    server = "" if row.server == NO_SERVER else id_text(row.server)
                    rows.append(
                        (config.cell, id_text(row.id), clock_time(row.at), row.neighbour, row.kind, server, row.reason)
                    )
        return ("Cell", "Id", "At", "From", "Kind", "Server", "Reason"), rows


class MessagesCount(Lister):
    """Count parked messages: of whom, for what reason, since when."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        add_cell(parser, "only this cell")

    def take_action(self, parsed_args: argparse.Namespace) -> Rows:
        rows = []
        for config in configs_of(parsed_args):
            seen: dict[tuple[str, str, str], list[Instant]] = defaultdict(list)
            with open_store(config) as store, store.unit(lock=False) as unit:
                for row in unit.all(ParkedRow):
                    seen[row.neighbour, row.kind, row.reason].append(row.at)
            for (neighbour, kind, reason), at in sorted(seen.items(), key=lambda found: -len(found[1])):
                rows.append((config.cell, len(at), neighbour, kind, reason, clock_time(min(at)), clock_time(max(at))))
        return ("Cell", "Count", "From", "Kind", "Reason", "First", "Last"), rows


class MessagesShow(ShowOne):
    """Show one parked message."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("id")
        add_cell(parser, "only this cell")

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        config, row = _one(configs_of(parsed_args), parsed_args.id)
        record = record_of(row)
        facts = {
            "cell": config.cell,
            "id": id_text(row.id),
            "at": clock_time(row.at),
            "from": row.neighbour,
            "kind": row.kind,
            "server": id_text(row.server),
            "reason": row.reason,
            "replay": why_not_replay(row) or "possible",
            "origin": record.origin if record else "",
            "request": record.request if record else "",
            "bytes": len(row.data),
            "body": repr(codec.plain(record.body)) if record else row.data[:200].hex(),
        }
        return tuple(facts), tuple(facts.values())


class MessagesReplay(Command):
    """Let the cell decide on a parked record again; it is parked again if that fails again."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("id")
        add_cell(parser, "only this cell")

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        config, row = _one(configs_of(parsed_args), parsed_args.id)
        with open_store(config) as store, store.unit() as unit:
            replay(unit, row, system_clock())
        self.say(f"{config.cell} decides on {id_text(row.id)} again")


class MessagesDrop(Command):
    """Forget parked messages."""

    def options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("id", nargs="+")
        add_cell(parser, "only this cell")

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        configs = configs_of(parsed_args)
        for config, row in [_one(configs, word) for word in parsed_args.id]:
            with open_store(config) as store, store.unit() as unit:
                drop(unit, row)
            self.say(f"{config.cell} has forgotten {id_text(row.id)}")


def _one(configs: Iterable[CellConfig], word: str) -> tuple[CellConfig, ParkedRow]:
    """The parked message of this id, in whichever cell."""
    key = id_from_text(word, "message id")
    for config in configs:
        with open_store(config) as store, store.unit(lock=False) as unit:
            row = unit.get(ParkedRow, key)
        if row is not None:
            return config, row
    raise BadInput(f"no cell has a parked message {word}; see celltree messages list")
