"""`python -m tests.tempest --program VENV/bin/tempest`: Tempest tests the Compute API of a tree of simulated hosts.

Tempest is in a virtual environment of its own, because it shares libraries with what is tested:
`python3 -m venv VENV && VENV/bin/pip install tempest==47.0.0`. docs/tempest.md has what came of it.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.tempest.region import a_region

# They need what Tempest was told of and is not there: a network service.
NETWORKS = r"(floating_ips|security_group|networks|multi_nic|auto_allocate|attach_interfaces|novnc)"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.tempest", description=__doc__)
    parser.add_argument("--program", type=Path, required=True, help="the tempest command")
    parser.add_argument("--regex", default=r"^tempest\.api\.compute\.", help="which tests; all of compute if not given")
    parser.add_argument("--least", default="2.61", help="the microversion asked for where a test needs none")
    parser.add_argument("--concurrency", default="2", help="how many tests at once")
    asked = parser.parse_args()
    program = str(asked.program.absolute())
    # Keystone and the tree are ended in any case.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = Path(tempfile.mkdtemp(prefix="celltree-tempest-"))
    with a_region(folder, asked.least) as conf:
        # Else Tempest keeps a list of its workspaces in the home folder.
        known = ("--workspace-path", str(folder / "workspaces.yaml"))
        subprocess.run([program, "init", *known, str(folder / "workspace")], check=True, capture_output=True)
        words = ["run", "--config-file", str(conf), "--concurrency", asked.concurrency, "--regex", asked.regex]
        words += ["--exclude-regex", NETWORKS]
        done = subprocess.run([program, *words], cwd=folder / "workspace", check=False)
    print(f"Tempest's log and the tree's databases are in {folder}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
