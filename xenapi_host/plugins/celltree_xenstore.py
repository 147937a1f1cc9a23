#!/usr/bin/env python3
"""Plugin: a running domain's part of xenstore. Paths are below /local/domain/DOM_ID.

    version          {} -> {version, functions}
    read_record      {dom_id, path} -> text or null
    write_record     {dom_id, path, value} -> {written}
    delete_record    {dom_id, path} -> {removed}
    list_records     {dom_id, path} -> {name: value}            the direct children
    replace_records  {dom_id, path, records: {name: value}} -> {written, removed}   these children and no others

A domain that is not there is a RetryableError: it has been rebooted, moved or stopped; look for its new number.
"""

import re
import sys
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

# In dom0 the scripts lie side by side in one folder; type checkers know them as a package.
if TYPE_CHECKING:
    from xenapi_host.plugins.celltree_plugin import Params, PermanentError, RetryableError, dispatch, run, text
else:
    # Every entry of the plugin folder is a plugin to XAPI; a __pycache__ must not appear there.
    sys.dont_write_bytecode = True
    from celltree_plugin import Params, PermanentError, RetryableError, dispatch, run, text

VERSION = "1.0"
MOST_PAYLOAD = 4096
"""Bytes of a path and its value together: one message to xenstored."""
_PATH = re.compile(r"[A-Za-z0-9@_-]+(/[A-Za-z0-9@_-]+)*")
_SECONDS = 30


def version(params: Params) -> Dict[str, Any]:
    return {"version": VERSION, "functions": sorted(FUNCTIONS)}


def read_record(params: Params) -> Optional[str]:
    home = home_of(params)
    return read(f"{home}/{_path(params)}")


def write_record(params: Params) -> Dict[str, Any]:
    home, path = home_of(params), _path(params)
    need_domain(home)
    write(f"{home}/{path}", _value(params.get("value")))
    return {"written": 1}


def delete_record(params: Params) -> Dict[str, Any]:
    home, path = home_of(params), _path(params)
    need_domain(home)
    return {"removed": int(remove(f"{home}/{path}"))}


def list_records(params: Params) -> Dict[str, Optional[str]]:
    home, path = home_of(params), _path(params)
    need_domain(home)
    return {name: read(f"{home}/{path}/{name}") for name in names(f"{home}/{path}")}


def replace_records(params: Params) -> Dict[str, Any]:
    home, path = home_of(params), _path(params)
    records = params.get("records")
    if not isinstance(records, dict) or not all(_PATH.fullmatch(name) for name in records):
        raise PermanentError("params.records must be an object of names and texts")
    need_domain(home)
    gone = [name for name in names(f"{home}/{path}") if name not in records]
    for name, value in records.items():
        write(f"{home}/{path}/{name}", _value(value))
    for name in gone:
        remove(f"{home}/{path}/{name}")
    return {"written": len(records), "removed": len(gone)}


# -- what the agent plugin uses, too --


def home_of(params: Params) -> str:
    """Where a domain's part of xenstore begins."""
    dom_id = str(params.get("dom_id", ""))
    if not dom_id.isdigit() or int(dom_id) == 0 or len(dom_id) > 9:
        raise PermanentError("params.dom_id must be the number of a guest's domain")
    return f"/local/domain/{dom_id}"


def is_there(home: str) -> bool:
    """Whether the domain is running here."""
    return _run("xenstore-exists", f"{home}/name")[0] == 0


def need_domain(home: str) -> None:
    if not is_there(home):
        raise RetryableError("the domain is not on this host any more")


def read(path: str) -> Optional[str]:
    code, said = _run("xenstore-read", path)
    if code:
        return None
    return said[:-1] if said.endswith("\n") else said


def write(path: str, value: str) -> None:
    if len(path.encode()) + 1 + len(value.encode()) > MOST_PAYLOAD:
        raise PermanentError(f"a value for xenstore is too long: with its path it may have {MOST_PAYLOAD - 1} bytes")
    # Values come after --, because one that begins with a hyphen would be taken for an option.
    if _run("xenstore-write", "--", path, value)[0]:
        raise RetryableError("xenstore-write failed; is xenstored running and the domain there?")


def remove(path: str) -> bool:
    return _run("xenstore-rm", path)[0] == 0


def names(path: str) -> List[str]:
    code, said = _run("xenstore-list", path)
    return [] if code else said.split()


def _path(params: Params) -> str:
    path = text(params, "path")
    if not _PATH.fullmatch(path):
        raise PermanentError("params.path must be names of letters, digits and @_- with slashes between them")
    return path


def _value(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise PermanentError("a value for xenstore must be a text without zero bytes")
    return value


def _run(*command: str) -> Tuple[int, str]:
    """A xenstore command. Its complaints are dropped: they repeat values."""
    return run(*command, seconds=_SECONDS, complaints=False)


FUNCTIONS = {
    "version": version,
    "read_record": read_record,
    "write_record": write_record,
    "delete_record": delete_record,
    "list_records": list_records,
    "replace_records": replace_records,
}

if __name__ == "__main__":
    dispatch(FUNCTIONS)
