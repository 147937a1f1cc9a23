"""What every plugin of ours has: reading XAPI's call from argv[1], answering on standard output, running programs.

XAPI starts the script with an XML-RPC methodCall fn(session, {string: string}). Our one argument is `params`, a JSON
object as text; the result is JSON as text. An exception becomes the Failure XenServer's own XenAPIPlugin would give:
[XENAPI_PLUGIN_FAILURE, fn, class name, text].
"""

import json
import os
import signal
import subprocess
import sys
import xmlrpc.client
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

Params = Dict[str, Any]
LONGEST_SECONDS = 6 * 3600


class RetryableError(Exception):
    """The same call may succeed later."""


class PermanentError(Exception):
    """The same call would fail again; the text names the remedy."""


def dispatch(functions: Mapping[str, Callable[[Params], Any]], argv: Optional[List[str]] = None) -> None:
    """Answer the call in argv[1] with one of `functions`; prints exactly one methodResponse."""
    # XAPI ends a plugin by SIGTERM; as an exception it lets `finally` clear the staging folder.
    signal.signal(signal.SIGTERM, _leave)
    arguments = sys.argv if argv is None else argv
    if len(arguments) != 2:
        sys.exit("this is a XenServer plugin: call it with host.call_plugin, or give one XML-RPC methodCall")
    call, name = xmlrpc.client.loads(arguments[1])
    sys.stdout.write(_answer(functions, str(name), call))
    sys.stdout.flush()


def _answer(functions: Mapping[str, Callable[[Params], Any]], name: str, call: Any) -> str:
    if name not in functions:
        return _failure(["UNKNOWN_XENAPI_PLUGIN_FUNCTION", name])
    try:
        return _response({"Status": "Success", "Value": json.dumps(functions[name](_params(call)))})
    except Exception as error:  # the one edge of the script: XAPI takes failures as text only
        return _failure(["XENAPI_PLUGIN_FAILURE", name, type(error).__name__, str(error)])


def _params(call: Any) -> Params:
    """The JSON object in the argument `params`; an empty one when there is none."""
    arguments = call[1] if len(call) > 1 else {}
    try:
        found = json.loads(arguments.get("params", "{}"))
    except ValueError as error:
        raise PermanentError(f"params is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise PermanentError("params must be a JSON object")
    return found


def _response(value: Dict[str, Any]) -> str:
    return xmlrpc.client.dumps((value,), methodresponse=True, allow_none=False)


def _failure(description: List[str]) -> str:
    return _response({"Status": "Failure", "ErrorDescription": [_printable(text) for text in description]})


def _printable(text: str) -> str:
    """XML has no place for control characters; an answer with one could not be parsed."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def _leave(number: int, frame: Any) -> None:
    sys.exit(128 + number)


def run(*command: str, seconds: int = LONGEST_SECONDS, complaints: bool = True) -> Tuple[int, str]:
    """A program's exit code and what it said, with its complaints or without them."""
    environment = dict(os.environ, LC_ALL="C.UTF-8", E2FSPROGS_LIBMAGIC_SUPPRESS="1")
    environment["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin"
    try:
        ran = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if complaints else subprocess.DEVNULL,
            env=environment,
            timeout=seconds,
        )
    except OSError as error:
        raise PermanentError(f"{command[0]} cannot be run in dom0: {reason(error)}") from error
    except subprocess.TimeoutExpired:
        # What the program was given stays out of the error: it may be a secret.
        raise RetryableError(f"{command[0]} did not end in {seconds} s") from None
    return ran.returncode, ran.stdout.decode("utf-8", "replace")


def reason(error: Exception) -> str:
    """What went wrong, in words that name no file of dom0: they may be shown to a tenant."""
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)


def text(params: Params, name: str) -> str:
    """A parameter that must be a non-empty text."""
    value = params.get(name)
    if not isinstance(value, str) or not value:
        raise PermanentError(f"params.{name} must be a text")
    return value


def number(params: Params, name: str, default: int) -> int:
    """A parameter that must be a whole number above zero."""
    value = params.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise PermanentError(f"params.{name} must be a whole number above 0")
    return value
