"""The house rules that hold for every module, also for those written tomorrow.

Most are import contracts in pyproject.toml. What import-linter cannot see is read from the source here: folders that
are no packages, imports by a name in a string, a clock asked without an import that would tell.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = ("cells", "routing", "xenapi_host", "api_cell", "compute_cell", "migrations")

# Modules that decide, by prefix. Time, chance, ids and news come to them as arguments.
DECIDING = (
    "routing",
    "cells.decision",
    "cells.digest",
    "cells.lifecycle",
    "cells.messages",
    "cells.model",
    "cells.names",
    "cells.record",
    "xenapi_host.plan",
    "xenapi_host.tags",
)
# A module of these decides too, unless it works on hosts: then it is a job's.
ROLES = ("compute_cell",)
# The simulated pools, and the images of the light ones.
SIMULATOR_SIDE = (
    "xenapi_host.simulator",
    "xenapi_host.simulated",
    "xenapi_host.light_images",
    "xenapi_host.light_dom0",
    "xenapi_host.cli",
)
HANDS = ("xenapi_host.driver", "xenapi_host.session")

THE_WORLD = frozenset(
    {
        *("time", "random", "secrets", "threading", "queue", "concurrent", "socket", "select", "subprocess", "logging"),
        *("asyncio", "http", "sqlalchemy", "kombu", "amqp", "oslo_messaging", "XenAPI", "pymysql", "falcon"),
    }
)
ASKING_THE_WORLD = frozenset(
    {
        *("datetime.now", "datetime.utcnow", "datetime.datetime.now", "datetime.today", "date.today"),
        *(
            "uuid.uuid1",
            "uuid.uuid4",
            "uuid.uuid7",
            "uuid1",
            "uuid4",
            "uuid7",
            "os.urandom",
            "os.getpid",
            "os.environ.get",
        ),
    }
)

IMPORT_BY_NAME = frozenset({"importlib.import_module", "import_module", "__import__"})

# Dependencies that may be imported in more than one place, and why. Every other one has a door in pyproject.toml.
NO_DOOR_NEEDED = {
    "defusedxml": "a drop-in for the standard library's parsers, wherever XML comes from outside",
    "oslo.config": "configuration, at the edges",
    "oslo.log": "logs, at the edges",
    "prometheus-client": "metrics, at the edges",
    "PyYAML": "files that people write, at the edges",
}


@cache
def sources() -> dict[str, Path]:
    """Every module of ours by its dotted name. Plugins are no modules: they run in a XenServer's own Python."""
    found = {}
    for package in OURS:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if "plugins" not in parts:
                found[".".join(parts).removesuffix(".__init__")] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(sources()[module].read_text(), filename=str(sources()[module]))


def imports(module: str) -> Iterator[tuple[str, int]]:
    """Each module this one imports, with the line: at the top, inside functions, or by a name in a string."""
    package = module if sources()[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base, node.lineno
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in IMPORT_BY_NAME:
            yield from ((str(word.value), node.lineno) for word in node.args if isinstance(word, ast.Constant))


def within(module: str, prefixes: tuple[str, ...]) -> bool:
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes)


@cache
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def doors() -> dict[str, tuple[str, ...]]:
    """For each library behind a door: the modules that may import it, as the contracts say."""
    found = {}
    for contract in project()["tool"]["importlinter"]["contracts"]:
        if contract["name"].startswith("One door per library"):
            for library in contract["forbidden_modules"]:
                allowed = (line.split(" -> ") for line in contract["ignore_imports"])
                found[library] = tuple({door.removesuffix(".**") for door, target in allowed if target == library})
    return found


def test_import_contracts_hold() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-logo"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_library_is_imported_only_behind_its_door() -> None:
    allowed = doors()
    assert allowed["XenAPI"] == ("xenapi_host.session",)
    outside = [
        f"{module}:{line} imports {target}; only {' and '.join(allowed[library])} may"
        for module in sources()
        for target, line in imports(module)
        if (library := target.partition(".")[0]) in allowed and not within(module, allowed[library])
    ]
    assert not sorted(set(outside))


def test_every_dependency_has_a_door_or_a_reason_to_have_none() -> None:
    provides = packages_distributions()
    homes = {normal(distribution) for library in doors() for distribution in provides.get(library, [])}
    asked = {re.split(r"[<>=!~\[; ]", line)[0] for line in project()["project"]["dependencies"]}
    without = sorted(name for name in asked if normal(name) not in homes and name not in NO_DOOR_NEEDED)
    assert not without, f"{without}: add a 'One door per library' contract to pyproject.toml, or a reason here"
    assert not sorted(set(NO_DOOR_NEEDED) - asked), "reasons for libraries that are no dependency any more"


def test_modules_that_decide_do_not_touch_the_world() -> None:
    faults = [f"{module}:{line} {what}" for module in sources() if decides(module) for line, what in touches(module)]
    assert not faults


def test_the_deciding_modules_are_found() -> None:
    """So that a moved or renamed package cannot empty the test before this one."""
    deciding = [module for module in sources() if decides(module)]
    for package in ("routing", "cells", "compute_cell", "xenapi_host"):
        assert any(within(module, (package,)) for module in deciding), package


def decides(module: str) -> bool:
    if within(module, DECIDING):
        return True
    return within(module, ROLES) and not any(within(target, HANDS) for target, _ in imports(module))


def touches(module: str) -> Iterator[tuple[int, str]]:
    for target, line in imports(module):
        if target.partition(".")[0] in THE_WORLD:
            yield line, f"imports {target}"
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ASKING_THE_WORLD:
            yield node.lineno, f"calls {ast.unparse(node.func)}"


def test_the_driver_side_does_not_know_the_simulator() -> None:
    """Every module of xenapi_host is on the driver's side unless named as the simulator's."""
    knowing = [
        f"{module}:{line}"
        for module in sources()
        if within(module, ("xenapi_host",)) and not within(module, SIMULATOR_SIDE)
        for target, line in imports(module)
        if within(target, SIMULATOR_SIDE)
    ]
    assert not knowing


@pytest.mark.parametrize("package", OURS)
def test_top_level_name_is_provided_by_our_distribution_only(package: str) -> None:
    assert {normal(name) for name in packages_distributions().get(package, [])} == {"celltree"}


def test_no_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    machine = re.compile(rb"(?<![\w.])/(?:" + b"|".join((b"wo" + b"rk", b"fa" + b"rm")) + rb")/|\.\./sha" + rb"red\b")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=True,
    ).stdout
    files = [ROOT / name.decode() for name in listed.split(b"\0") if name]
    assert files
    naming = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in files
        if path.is_file()
        for number, line in enumerate(path.read_bytes().split(b"\n"), 1)
        if machine.search(line)
    ]
    assert not naming


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()
