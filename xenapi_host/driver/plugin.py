"""Calls to celltree's plugins in dom0: JSON in, JSON out, its failures as ours."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cells.errors import CelltreeError, Permanent, Refusal, Temporary
from cells.messages import RefusalCode
from cells.ports import Journal
from xenapi_host.driver import tasks
from xenapi_host.driver.tasks import run_noted
from xenapi_host.session import Session, XenFailure, run_task

CALL = "Async.host.call_plugin"
_RETRY_SECONDS = 10.0
_OF_IMAGES = ("download", "upload")
_BUSY_SECONDS = 3.0


class PluginFailed(Temporary):
    """The script has ended without doing it; it may be called again after a while."""


class BaseGone(Permanent):
    """What changed since a base cannot be told any more; all can be sent."""


def call_plugin(
    session: Session, host: str, plugin: str, function: str, params: dict[str, Any], *, limit: float
) -> Any:
    """The result of a plugin's function on a host (a reference), waiting at most `limit` seconds."""
    arguments = {"params": json.dumps(params)}
    with _failures_told():
        return _read(run_task(session, CALL, host, plugin, function, arguments, limit=limit))


def call_plugin_noted(
    session: Session,
    journal: Journal,
    step: str,
    host: str,
    plugin: str,
    function: str,
    params: dict[str, Any],
    *,
    limit: float,
) -> Any:
    """As call_plugin, noted in the journal: `earlier` gives what a try before this one has begun."""
    arguments = {"params": json.dumps(params)}
    with _failures_told():
        return _read(run_noted(session, journal, step, CALL, host, plugin, function, arguments, limit=limit))


def earlier(session: Session, journal: Journal, step: str, *, limit: float) -> Any:
    """The result of a plugin call that an earlier try has begun; None if there is none, or if it failed."""
    answer = tasks.earlier(session, journal, step, limit=limit)
    return None if answer is None else _read(answer)


@contextmanager
def _failures_told() -> Iterator[None]:
    try:
        yield
    except XenFailure as failure:
        if failure.code != "XENAPI_PLUGIN_FAILURE":
            raise
        raise _said(*failure.parameters) from failure


def _read(answer: str) -> Any:
    try:
        return json.loads(answer)
    except ValueError as error:
        raise Permanent("the host's plugins are of another version; its administrator installs this cell's") from error


def _said(*parameters: str) -> CelltreeError:
    """[function, exception class, text] from our plugins; anything else is XAPI's own words on how a script died."""
    kind, text = parameters[1:3] if len(parameters) == 3 else ("", "")
    if kind == "RetryableError" and text.startswith("another run works"):
        return PluginFailed("the image is being fetched by another build", retry_after=_BUSY_SECONDS)
    if kind == "RetryableError" and parameters[0] not in _OF_IMAGES:
        return PluginFailed("the host's plugin could not do it just now", retry_after=_RETRY_SECONDS)
    if kind == "RetryableError":
        return PluginFailed("the image could not be moved to or from the image service", retry_after=_RETRY_SECONDS)
    if kind != "PermanentError":
        return PluginFailed("the host's plugin was cut short", retry_after=_RETRY_SECONDS)
    if text.startswith("no base: "):
        return BaseGone(text[len("no base: ") :])
    if text.startswith("no space left"):
        return Refusal(RefusalCode.NO_ROOM, "the host's storage is too full")
    if text.startswith("ImageNotFound"):
        return Permanent("the image is not in the image service any more")
    if text.startswith(("image refused", "Glance refused", "Glance holds no data", "the image has ")):
        return Permanent(text)
    return Permanent("the host's plugin cannot do it; its administrator finds the reason in the cell's log")
