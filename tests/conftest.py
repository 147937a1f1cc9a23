"""What every test of the tree gets: the private servers, and a watch over processes that a test forgot to end."""

import logging
import os
from collections.abc import Iterator

import pytest

from cells.lab import processes
from tests.support import servers
from tests.support.labs import shared_lab  # noqa: F401  (pytest finds fixtures by their being here)
from tests.support.servers import (  # noqa: F401  (pytest finds fixtures by their being here)
    mariadb,
    new_schema,
    new_vhost,
    private_mariadb,
    private_rabbit,
    rabbit,
)

LEFTOVERS = pytest.StashKey[list[str]]()
# Processes that were told to end may take a moment, above all on a busy machine.
PATIENCE_SECONDS = 10.0
STEPS = "steps of "  # what a test records that strikes at each step of an operation, with its name


def _is_first_process(config: pytest.Config) -> bool:
    """Whether this is the process the session began with, and not one of its parallel workers."""
    return not hasattr(config, "workerinput")


@pytest.fixture(autouse=True)
def _log_levels() -> Iterator[None]:
    """The command line sets them for its process; here that is every test's."""
    loggers = logging.getLogger(), logging.getLogger("celltree")
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def pytest_configure(config: pytest.Config) -> None:
    if _is_first_process(config):
        servers.open_session()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs real servers, so that `-m "not services"` leaves it out."""
    for item in items:
        if servers.SERVER_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("services")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the shared servers; then whatever of the session's processes still runs was forgotten, and fails it."""
    if not _is_first_process(session.config) or servers.SESSION_VARIABLE not in os.environ:
        return
    folder = servers.session_folder()
    servers.end_servers(folder)
    processes.wait_until(lambda: not servers.leftovers(folder), timeout=PATIENCE_SECONDS)
    forgotten = servers.leftovers(folder)
    session.config.stash[LEFTOVERS] = [f"{mark.pid}: {command}" for mark, command in forgotten]
    for mark, _ in forgotten:
        processes.kill(mark)
    if forgotten:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    _show_steps(terminalreporter)
    forgotten = terminalreporter.config.stash.get(LEFTOVERS, [])
    if forgotten:
        terminalreporter.section("processes that tests forgot to end", red=True)
        for line in forgotten:
            terminalreporter.write_line(line[:300], red=True)


def _show_steps(terminalreporter: pytest.TerminalReporter) -> None:
    """At how many steps each operation was struck, by tests that enumerate them."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome)]
    counted = {
        (report.location[0], name.removeprefix(STEPS)): count
        for report in reports
        for name, count in report.user_properties
        if name.startswith(STEPS)
    }
    if counted:
        terminalreporter.section("steps that operations were struck at, before and after each")
        for (file, operation), count in sorted(counted.items()):
            terminalreporter.write_line(f"{count:5}  {file}: {operation}")
        terminalreporter.write_line(f"{sum(counted.values()):5}  together")
