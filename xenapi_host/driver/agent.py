"""The agent inside a server's guest: password, files, network, update; and what it is asked after a build.

Not every image has one. A guest that does not answer in time is told of, by Permanent where a tenant asked for just
this, in a note where it comes along with a build. Codes mean what the protocol says: "D0" for a key, "0" for the rest;
a network reset may also answer "500".
"""

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from cells.errors import Permanent, Temporary
from cells.ports import Journal
from xenapi_host.driver import domain, xenstore
from xenapi_host.driver.errors import telling
from xenapi_host.session import Session

PLUGIN = "celltree_agent.py"
ASK_SECONDS = 30
NETWORK_SECONDS = 60
UPDATE_SECONDS = 120
FIRST_TRIES = 5
_BOOT_RETRY_SECONDS = 2.0
_OK = ("0",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What an agent is to do when its server has started for the first time. Never logged."""

    password: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)
    network: bool = True

    def __repr__(self) -> str:
        return f"Wishes(password={'given' if self.password else 'none'}, files={len(self.files)})"


class Silent(Permanent):
    """The agent did not answer in its time."""

    def __init__(self) -> None:
        super().__init__("the server's guest agent does not answer; its image may have none, or it is not running")


@telling("ask the server's guest agent")
def agent_version(session: Session, server: bytes, *, timeout: int = ASK_SECONDS) -> str:
    """The agent's version; "" when it does not answer."""
    try:
        return _ask(session, server, "agent_version", {}, timeout=timeout)
    except Silent:
        return ""


@telling("set the server's password")
def set_password(session: Session, server: bytes, password: str, *, timeout: int = ASK_SECONDS) -> None:
    """Set the administrator's password inside the guest. It crosses XAPI and xenstore encrypted."""
    # Its library takes some MiB, and most daemons never set a password.
    from xenapi_host.agent_cipher import KeyExchange

    exchange = KeyExchange(secrets.token_bytes)
    public = _ask(session, server, "key_init", {"public": exchange.public}, timeout=timeout, good=("D0",))
    # The agent strips a line end, as the tool it once called needed one.
    box = exchange.shared(public.strip()).encrypt(password + "\n")
    _ask(session, server, "password", {"password": box}, timeout=timeout)


@telling("put a file into the server")
def inject_file(session: Session, server: bytes, path: str, content: bytes, *, timeout: int = ASK_SECONDS) -> None:
    """Write one file inside the running guest. Permanent when it is longer than xenstore can hold, about 2.8 KiB."""
    params = {"path": path, "content": base64.b64encode(content).decode()}
    _ask(session, server, "inject_file", params, timeout=timeout)


@telling("reset the server's network")
def reset_network(session: Session, server: bytes, *, timeout: int = NETWORK_SECONDS) -> None:
    """Let the guest configure its network as xenstore says."""
    _ask(session, server, "reset_network", {}, timeout=timeout, good=("0", "500"))


@telling("update the server's guest agent")
def update_agent(session: Session, server: bytes, url: str, md5: str, *, timeout: int = UPDATE_SECONDS) -> None:
    """Let the agent fetch and become another version of itself."""
    _ask(session, server, "agent_update", {"url": url, "md5": md5}, timeout=timeout)


@telling("activate the server's system")
def activate_system(session: Session, server: bytes, value: str, *, timeout: int = ASK_SECONDS) -> None:
    """Let a Windows guest register with a key management service; `value` is what the agent expects."""
    _ask(session, server, "kms_activate", {"value": value}, timeout=timeout)


@telling("configure the server's guest")
def first_boot(session: Session, server: bytes, wishes: Wishes, journal: Journal, *, timeout: int = ASK_SECONDS) -> str:
    """Let the agent of a server that was started for the first time do what was wished with the build. What could not
    be done is no failure of the build: it is said in the answer, "" when all was done. Raises Temporary a few times
    while the guest is still booting."""
    tries = int(journal.get("agent tries") or 0) + 1
    if not journal.get("agent is there"):
        if tries > FIRST_TRIES:
            return _note(Silent(), wishes)
        journal.put("agent tries", tries)
        if not agent_version(session, server, timeout=timeout):
            if tries == FIRST_TRIES:
                return _note(Silent(), wishes)
            raise Temporary("the server's guest agent is not there yet", retry_after=_BOOT_RETRY_SECONDS)
        journal.put("agent is there", True)
    notes = []
    for path, content in wishes.files.items():
        journal.check()
        try:
            inject_file(session, server, path, content, timeout=timeout)
        except Permanent as refused:
            notes.append(f"{path}: {refused}")
    try:
        journal.check()
        if wishes.password:
            set_password(session, server, wishes.password, timeout=timeout)
        if wishes.network:
            reset_network(session, server, timeout=max(timeout, min(NETWORK_SECONDS, 2 * timeout)))
    except Permanent as refused:
        notes.append(str(refused))
    xenstore.forget_hostname(session, server)
    return "; ".join(notes)


def _note(silent: Silent, wishes: Wishes) -> str:
    lost = [*wishes.files, *(["the password"] if wishes.password else [])]
    return f"{silent}; not set: {', '.join(lost)}" if lost else str(silent)


def _ask(
    session: Session,
    server: bytes,
    function: str,
    params: dict[str, str],
    *,
    timeout: int,
    good: tuple[str, ...] = _OK,
) -> str:
    """The agent's message, where its code is one of the good ones."""
    answer = domain.ask(session, server, PLUGIN, function, {**params, "timeout": timeout}, limit=timeout)
    said = answer if isinstance(answer, dict) else {}
    code = said.get("returncode")
    match said.get("outcome"):
        case "answered" if code in good:
            return str(said.get("message", ""))
        case "answered" if code == "404":
            raise Permanent("the server's guest agent does not know how; update it")
        case "answered":
            raise Permanent("the server's guest agent could not do it")
        case "too long":
            raise Permanent("it is too long for the guest agent; give it as user data on a config drive")
        case _:
            raise Silent
