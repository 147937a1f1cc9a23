"""`celltree simulate`: trees of cells in virtual time, with everything going wrong that can, from seeds."""

import argparse
from pathlib import Path

from cliff.command import Command
from rich.console import Console

from cells.simulation.plan import draw
from cells.simulation.runs import Tally, quietly, report, run_seeds
from cells.simulation.world import simulate


class Simulate(Command):
    """Run seeded simulations with faults and check every promise; exit 1 when one was not kept."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("--seeds", type=int, default=100, metavar="N", help="how many seeds to run (default 100)")
        parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first of them (default 0)")
        parser.add_argument("--seed", type=int, metavar="SEED", help="run this one alone and tell all that happens")
        parser.add_argument(
            "--minutes", type=float, default=1.5, help="virtual minutes until everything heals (default 1.5)"
        )
        parser.add_argument("--failed", type=Path, metavar="FILE", help="add the seeds that fail to this file")
        return parser

    def take_action(self, arguments: argparse.Namespace) -> int:
        console = Console(highlight=False, markup=False, soft_wrap=True)
        if arguments.seed is not None:
            return _one(console, arguments.seed, arguments.minutes)
        tally = Tally()
        seeds = range(arguments.first, arguments.first + arguments.seeds)
        for outcome, seconds in run_seeds(seeds, arguments.minutes):
            tally.add(outcome, seconds)
            if outcome.breach is not None:
                _tell(console, outcome.plan.seed, arguments.minutes)
                if arguments.failed is not None:
                    with arguments.failed.open("a", encoding="ascii") as file:
                        file.write(f"{outcome.plan.seed}\n")
            elif tally.seeds % 100 == 0:
                console.print(f"{tally.seeds} seeds, {len(tally.failed)} failed")
        for line in tally.lines():
            console.print(line)
        return 1 if tally.failed else 0


def _one(console: Console, seed: int, minutes: float) -> int:
    with quietly():
        outcome = simulate(draw(seed, minutes), tell=True)
    for line in outcome.lines:
        console.print(line)
    console.print(f"trace {outcome.trace}, {outcome.events} events, at rest after {outcome.ended:.0f} virtual seconds")
    if outcome.breach is None:
        return 0
    _tell(console, seed, minutes)
    return 1


def _tell(console: Console, seed: int, minutes: float) -> None:
    for line in report(seed, minutes):
        console.print(line)
