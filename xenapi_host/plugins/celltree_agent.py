#!/usr/bin/env python3
"""Plugin: ask the agent inside a guest, over xenstore.

    version        {} -> {version, functions}              of this plugin
    agent_version  {dom_id, timeout} -> outcome            message: the agent's version
    features       {dom_id, timeout} -> outcome            message: its commands, with commas between
    key_init       {dom_id, timeout, public} -> outcome    returncode D0, message: its public key
    password       {dom_id, timeout, password} -> outcome  encrypted under the exchanged key, base64
    inject_file    {dom_id, timeout, path, content} -> outcome          content: base64
    reset_network  {dom_id, timeout} -> outcome
    agent_update   {dom_id, timeout, url, md5} -> outcome
    kms_activate   {dom_id, timeout, value} -> outcome

An outcome is {outcome: answered, returncode, message}, both text; {outcome: timeout} when the agent said nothing for
`timeout` seconds, the request is taken back then; {outcome: reboot} when the domain went away; {outcome: too long} when
xenstore cannot hold the request.

A request is data/host/ID with {name, value}; the agent takes it away and writes data/guest/ID. Nothing that a request
holds is ever repeated in an error.
"""

import base64
import binascii
import json
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any, Dict, Optional

# In dom0 the scripts lie side by side in one folder; type checkers know them as a package.
if TYPE_CHECKING:
    import xenapi_host.plugins.celltree_xenstore as xenstore
    from xenapi_host.plugins.celltree_plugin import Params, PermanentError, dispatch, number, text
else:
    # Every entry of the plugin folder is a plugin to XAPI; a __pycache__ must not appear there.
    sys.dont_write_bytecode = True
    import celltree_xenstore as xenstore
    from celltree_plugin import Params, PermanentError, dispatch, number, text

VERSION = "1.0"
_LOOK_SECONDS = 0.5
_TIMEOUT = 30


def version(params: Params) -> Dict[str, Any]:
    return {"version": VERSION, "functions": sorted(FUNCTIONS)}


def agent_version(params: Params) -> Dict[str, str]:
    return _ask(params, "version", "agent")


def features(params: Params) -> Dict[str, str]:
    return _ask(params, "features", "")


def key_init(params: Params) -> Dict[str, str]:
    public = text(params, "public")
    if not public.isdigit():
        raise PermanentError("params.public must be a decimal number")
    return _ask(params, "keyinit", public)


def password(params: Params) -> Dict[str, str]:
    return _ask(params, "password", text(params, "password"))


def inject_file(params: Params) -> Dict[str, str]:
    path = text(params, "path")
    try:
        content = base64.b64decode(str(params.get("content", "")).encode(), validate=True)
    except binascii.Error:
        raise PermanentError("params.content must be base64") from None
    if not path.startswith("/") or "," in path:
        raise PermanentError("params.path must be absolute and without commas")
    return _ask(params, "injectfile", base64.b64encode(path.encode() + b"," + content).decode())


def reset_network(params: Params) -> Dict[str, str]:
    return _ask(params, "resetnetwork", "")


def agent_update(params: Params) -> Dict[str, str]:
    return _ask(params, "agentupdate", "{},{}".format(text(params, "url"), text(params, "md5")))


def kms_activate(params: Params) -> Dict[str, str]:
    return _ask(params, "kmsactivate", text(params, "value"))


def _ask(params: Params, name: str, value: str) -> Dict[str, str]:
    home = xenstore.home_of(params)
    deadline = time.monotonic() + number(params, "timeout", _TIMEOUT)
    if not xenstore.is_there(home):
        return {"outcome": "reboot"}
    request = str(uuid.uuid4())
    asked, answered = f"{home}/data/host/{request}", f"{home}/data/guest/{request}"
    said = json.dumps({"name": name, "value": value})
    if len(asked) + 1 + len(said) > xenstore.MOST_PAYLOAD:
        return {"outcome": "too long"}
    xenstore.write(asked, said)
    try:
        while time.monotonic() < deadline:
            answer = _answer(answered)
            if answer is not None:
                return answer
            if not xenstore.is_there(home):
                return {"outcome": "reboot"}
            time.sleep(_LOOK_SECONDS)
    finally:
        # Also when XAPI ends us by a signal: a request that nobody waits for must not be done later.
        if xenstore.read(asked) is not None:
            xenstore.remove(asked)
    return _answer(answered) or {"outcome": "timeout"}


def _answer(path: str) -> Optional[Dict[str, str]]:
    said = xenstore.read(path)
    if said is None:
        return None
    xenstore.remove(path)
    try:
        found = json.loads(said)
        return {"outcome": "answered", "returncode": str(found["returncode"]), "message": str(found["message"])}
    except (ValueError, KeyError, TypeError):
        return {"outcome": "answered", "returncode": "500", "message": "the agent's answer is not understood"}


FUNCTIONS = {
    "version": version,
    "agent_version": agent_version,
    "features": features,
    "key_init": key_init,
    "password": password,
    "inject_file": inject_file,
    "reset_network": reset_network,
    "agent_update": agent_update,
    "kms_activate": kms_activate,
}

if __name__ == "__main__":
    dispatch(FUNCTIONS)
