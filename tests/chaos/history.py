"""What tenants asked and were told, as lines of a file: an invocation, and how it ended. INFO is a request of which
nobody knows whether it was taken: the answer never came."""

import json
import threading
import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path


class End(StrEnum):
    """INVOKE: begun. OK: accepted. FAIL: surely not done. INFO: unknown."""

    INVOKE = "invoke"
    OK = "ok"
    FAIL = "fail"
    INFO = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line. `at`: seconds since the run began. `name`: the server's, which its tenant gives only once. `server`,
    `image`: ids where they are known. `flavor`: asked for. `detail`: what was answered."""

    at: float
    by: str
    end: End
    action: str
    name: str
    server: str = ""
    image: str = ""
    flavor: str = ""
    detail: str = ""


class History:
    """Writes events; from any thread."""

    def __init__(self, file: Path) -> None:
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._out = file.open("w", encoding="utf-8")
        self.events: list[Event] = []

    def now(self) -> float:
        return round(time.monotonic() - self._began, 3)

    def add(self, event: Event) -> None:
        with self._lock:
            self.events.append(event)
            self._out.write(json.dumps(asdict(event)) + "\n")
            self._out.flush()

    def close(self) -> None:
        self._out.close()


def read(file: Path) -> list[Event]:
    """What was written."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [Event(**{**raw, "end": End(raw["end"])}) for raw in map(json.loads, lines)]
