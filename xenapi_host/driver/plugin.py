"""Calls to celltree's plugins in dom0: JSON in, JSON out, its failures as ours."""

import json
from typing import Any

from cells.errors import CelltreeError, Permanent, Refusal, Temporary
from cells.messages import RefusalCode
from xenapi_host.session import Session, XenFailure, run_task

_RETRY_SECONDS = 10.0


def call_plugin(
    session: Session, host: str, plugin: str, function: str, params: dict[str, Any], *, limit: float
) -> Any:
    """The result of a plugin's function on a host (a reference), waiting at most `limit` seconds."""
    arguments = {"params": json.dumps(params)}
    try:
        answer = run_task(session, "Async.host.call_plugin", host, plugin, function, arguments, limit=limit)
    except XenFailure as failure:
        if failure.code != "XENAPI_PLUGIN_FAILURE":
            raise
        raise _said(*failure.parameters) from failure
    try:
        return json.loads(answer)
    except ValueError as error:
        raise Permanent("the host's plugins are of another version; its administrator installs this cell's") from error


def _said(*parameters: str) -> CelltreeError:
    """[function, exception class, text] from our plugins; anything else is XAPI's own words on how a script died."""
    kind, text = parameters[1:3] if len(parameters) == 3 else ("", "")
    if kind == "RetryableError":
        return Temporary("the image could not be moved to or from the image service", retry_after=_RETRY_SECONDS)
    if kind != "PermanentError":
        return Temporary("the host's image plugin was cut short", retry_after=_RETRY_SECONDS)
    if text.startswith("no space left"):
        return Refusal(RefusalCode.NO_ROOM, "the host's storage is too full for the image")
    if text.startswith("ImageNotFound"):
        return Permanent("the image is not in the image service any more")
    if text.startswith(("image refused", "Glance refused", "Glance holds no data", "the image has ")):
        return Permanent(text)
    return Permanent("the host's image plugin cannot do it; its administrator finds the reason in the cell's log")
