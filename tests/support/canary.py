"""Secrets planted in builds, and the search for them in everything of a lab that can be read: rows, queues, files of
brokers, databases and cells, logs, command lines and environments of all processes. Left out is what the secrets are
for: the hosts' own disks.
"""

import base64
import contextlib
import json
import os
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import SubprocessError
from typing import Any
from urllib.parse import quote

from cells.broker.limits import INBOX
from cells.errors import CelltreeError
from cells.lab.lab import Lab
from tests.support.backups import dump, schema_of

PASSWORD, FILE, DATA = "Canary-pass-81c2", "Canary-file-5e07", "Canary-data-d94b"
SECRETS = (PASSWORD, FILE, DATA)
NOT_SEARCHED = ("xenserver", "test-image")
KEPT = 8
_TOKEN = re.compile(rb"X-Auth-Token\W{1,20}(celltree1\.[0-9a-f-]{36}\.\w+\.\d+\.[\w-]{43})")
_SESSION = re.compile(rb"</methodName>\s*<params>\s*<param>\s*<value><string>(OpaqueRef:[0-9a-f-]{36})<")


def planted() -> dict[str, Any]:
    """What of a build's body is secret."""
    return {
        "adminPass": PASSWORD,
        "user_data": base64.b64encode(f"#!/bin/sh\n# {DATA}\n".encode()).decode(),
        "personality": [{"path": "/etc/x", "contents": base64.b64encode(FILE.encode()).decode()}],
    }


class Overheard:
    """The newest image tokens and XenServer session references that have passed by."""

    def __init__(self) -> None:
        self.tokens: deque[str] = deque(maxlen=KEPT)
        self.sessions: deque[str] = deque(maxlen=KEPT)

    def __call__(self, chunk: bytes) -> None:
        for pattern, kept in ((_TOKEN, self.tokens), (_SESSION, self.sessions)):
            for match in pattern.finditer(chunk):
                if (word := match[1].decode()) not in kept:
                    kept.append(word)

    @property
    def words(self) -> tuple[str, ...]:
        return (*self.tokens, *self.sessions)


def with_image_tokens(lab: Lab, cell: str, settings: dict[str, Any], image_url: str = "") -> dict[str, Any]:
    """A cell's settings in a lab, changed so that an API cell gives leaves tokens for images, with which they come to
    `image_url`."""
    front = settings["settings"].get("front")
    if front is not None:
        file = lab.folder / "front" / cell / "secret"
        file.write_text(lab.plan.password("images", cell) + "\n")
        front |= {"secret_file": str(file)} | ({"image_url": image_url} if image_url else {})
    return settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """`leaks`: where a secret is. `open`: the kinds of places where the open word is, which shows that looking finds
    what is there. `places`: how many were looked into."""

    leaks: tuple[str, ...]
    open: frozenset[str]
    places: int


def search(lab: Lab, open_word: str, *more: str, broken: bool = False) -> Search:
    """Look for the planted secrets, each pool's password and these, as they are, in base64 and in hexadecimal.
    `broken`: what does not answer now is passed over."""
    pools = [pool.name for cell in lab.topology.leaves for pool in cell.pools]
    secrets = (*SECRETS, *more, *(lab.plan.password("xenserver", pool) for pool in pools))
    leaks: list[str] = []
    seen: set[str] = set()
    places = 0
    for kind, place, data in everything(lab, broken=broken):
        places += 1
        leaks += [f"{secret} in {kind} {place}" for secret in secrets if found(secret, data)]
        if found(open_word, data):
            seen.add(kind)
    return Search(leaks=tuple(leaks), open=frozenset(seen), places=places)


def found(word: str, data: bytes) -> bool:
    """Whether the word is there in any form it may have been put into."""
    plain = word.encode()
    forms = [plain, plain.hex().encode(), plain.hex().upper().encode()]
    forms += [base64.b64encode(bytes(pad) + plain)[4:-4] for pad in range(3)]
    return any(form in data for form in forms)


def everything(lab: Lab, *, broken: bool = False) -> Iterator[tuple[str, str, bytes]]:
    """Kind, place and content of all that can be read."""
    silent = (CelltreeError, OSError, ValueError, AssertionError, SubprocessError) if broken else ()
    for cell in lab.topology.names:
        with contextlib.suppress(*silent):
            yield "queue", cell, queued(lab, cell)
        with contextlib.suppress(*silent):
            yield "definitions", cell, lab.broker(cell)._exchange("GET", "/api/definitions")[1].encode()
        with contextlib.suppress(*silent):
            yield "rows", cell, dump(lab.database(cell), schema_of(cell))
    for file in lab.folder.rglob("*"):
        if file.relative_to(lab.folder).parts[0] not in NOT_SEARCHED:
            with contextlib.suppress(OSError):  # gone meanwhile, a folder or a socket
                yield "files", str(file), file.read_bytes()
    for process in Path("/proc").iterdir():
        # The test's own session knows what it looks for.
        if process.name.isdigit() and int(process.name) != os.getpid():
            for name in ("cmdline", "environ"):
                with contextlib.suppress(OSError):
                    yield name, process.name, (process / name).read_bytes()


def queued(lab: Lab, cell: str) -> bytes:
    """The bodies in a cell's inbox queue, which stay there."""
    body = {"count": 1000, "ackmode": "ack_requeue_true", "encoding": "base64"}
    _, text = lab.broker(cell)._exchange("POST", f"/api/queues/{cell}/{quote(INBOX)}/get", body)
    messages = json.loads(text)
    assert isinstance(messages, list), text
    return b"".join(base64.b64decode(one["payload"]) for one in messages)
