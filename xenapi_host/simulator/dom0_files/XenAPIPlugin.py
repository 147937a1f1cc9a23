"""XenAPIPlugin as XenServer's plugin scripts know it: `dispatch` runs one function and prints XAPI's answer.

For scripts written for a real dom0. The call back to the pool goes over the Unix socket that the simulator names in
CELLTREE_XAPI_SOCKET; only the standard library is used.
"""

import http.client
import os
import socket
import sys
import xmlrpc.client
from collections.abc import Callable
from typing import Any


class Failure(Exception):
    """A failure with a code of the plugin's own choice, or one that XAPI answered."""

    def __init__(self, code: str, params: list[str]) -> None:
        super().__init__(code, params)
        self.params = [code, *params]


class _Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.environ["CELLTREE_XAPI_SOCKET"])


class _Transport(xmlrpc.client.Transport):
    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return _Connection("localhost")


class _Proxy:
    """`session.xenapi.VM.get_record(ref)`: names are collected, the call adds the session."""

    def __init__(self, session: "Session", name: str) -> None:
        self._session = session
        self._name = name

    def __getattr__(self, name: str) -> "_Proxy":
        return _Proxy(self._session, f"{self._name}.{name}" if self._name else name)

    def __call__(self, *params: Any) -> Any:
        return self._session.request(self._name, params)


class Session:
    """The caller's session, used from dom0."""

    def __init__(self, ref: str) -> None:
        self.handle = self._session = ref
        self.xenapi = _Proxy(self, "")
        self._server = xmlrpc.client.ServerProxy("http://localhost/", transport=_Transport())

    @classmethod
    def local(cls) -> "Session":
        """A session of dom0's own root, who needs no password on the socket."""
        login = cls("root")
        return cls(login.request("session.login_with_password", ("",)))

    def request(self, name: str, params: tuple[Any, ...]) -> Any:
        answer: Any = getattr(self._server, name)(self.handle, *params)
        if answer["Status"] != "Success":
            code, *rest = answer["ErrorDescription"]
            raise Failure(code, rest)
        return answer["Value"]


def dispatch(functions: dict[str, Callable[["Session", dict[str, str]], Any]]) -> None:
    """Run the function that argv[1] asks for and print its outcome."""
    call, given = xmlrpc.client.loads(sys.argv[1])
    params: Any = call
    ref, args = params
    name = str(given)
    try:
        if name not in functions:
            raise Failure("UNKNOWN_XENAPI_PLUGIN_FUNCTION", [name])
        answer = _text({"Status": "Success", "Value": functions[name](Session(ref), args)})
    except Failure as failure:
        answer = _text({"Status": "Failure", "ErrorDescription": failure.params})
    except Exception as error:
        details = ["XENAPI_PLUGIN_FAILURE", name, type(error).__name__, str(error)]
        answer = _text({"Status": "Failure", "ErrorDescription": details})
    print(answer)


def _text(value: Any) -> str:
    return xmlrpc.client.dumps((value,), methodresponse=True)
