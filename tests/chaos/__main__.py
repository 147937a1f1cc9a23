"""`python -m tests.chaos --minutes 5 --seed 1`: runs of two minutes, each on a new lab, until time is over."""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.plan import RESTORES, USUAL, Kind
from tests.chaos.run import run
from tests.support import servers

ONE_RUN = 120.0
KINDS = {None: USUAL, "also": tuple(Kind), "only": RESTORES}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long faults go on, over all runs")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 1_000_000, help="of the first run")
    parser.add_argument("--folder", type=Path, default=None, help="where histories go (default: a new one)")
    parser.add_argument(
        "--put-back",
        nargs="?",
        const="also",
        choices=("also", "only"),
        help="put databases of cells back to backups, too; only: hardly anything else",
    )
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="celltree-chaos-"))
    servers.open_session()
    broken = False
    try:
        left, seed = asked.minutes * 60, asked.seed
        while left > 0:
            outcome = run(seed, min(ONE_RUN, left), folder / str(seed), KINDS[asked.put_back])
            print(json.dumps(outcome.figures()), flush=True)
            for breach in outcome.verdict.breaches:
                print(f"  BROKEN {breach}", flush=True)
            broken = broken or bool(outcome.verdict.breaches)
            left -= ONE_RUN
            seed += 1
    finally:
        servers.end_servers(servers.session_folder())
    print(f"histories are in {folder}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
