"""What every job has at hand: sessions that heed its lease, what was sealed for the leaf, the leaf's own settings."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from cells import codec
from cells.decision import Job
from cells.errors import Permanent, Refusal
from cells.identity import Identity
from cells.model import ClassicGuest, Secrets
from cells.ports import Journal
from compute_cell.pools import Pools
from xenapi_host.config_drive import Personal
from xenapi_host.driver import ClassicSource
from xenapi_host.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """How a host's size becomes room for servers: `reserve` is the share of memory kept back, `cpu_ratio` vCPUs are
    given out for each processor, `disk_ratio` GiB for each GiB of storage."""

    reserve: float = 0.03
    cpu_ratio: float = 4.0
    disk_ratio: float = 1.0


_ONLY_LOOKS = ("get_", "assert_")


class LeasedSession(Session):
    """A pool's session as one job may use it: `check` raises LeaseLost when the job is another daemon's now."""

    def __init__(self, inner: Session, check: Callable[[], None]) -> None:
        super().__init__(_LeasedDoor(inner, check), clock=inner.now, sleep=inner.sleep)
        self._inner = inner
        self.known = inner.known

    @contextmanager
    def exclusively(self, what: str) -> Iterator[None]:
        with self._inner.exclusively(what):
            yield


class _LeasedDoor:
    def __init__(self, inner: Session, check: Callable[[], None]) -> None:
        self._inner = inner
        self._check = check

    def call(self, method: str, params: tuple[Any, ...]) -> Any:
        if not method.rpartition(".")[2].startswith(_ONLY_LOOKS):
            with suppress(Refusal):  # to be stopped early is heeded where the driver knows what to clear away
                self._check()
        return self._inner.call(method, *params)

    def close(self) -> None:
        """The pool's session stays open: it is everybody's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """Those of one cell. `classic`: its sources of classic guests by name."""

    pools: Pools
    identity: Identity
    counting: Counting
    clean_seconds: float
    classic: Mapping[str, ClassicSource]

    def session(self, pool: str, journal: Journal) -> Session:
        """For what changes something: each such call looks at the lease first."""
        return LeasedSession(self.pools.session(pool), journal.check)

    def unleased(self, pool: str) -> Session:
        """For what only looks, or heeds the lease by itself."""
        return self.pools.session(pool)

    def headers(self, sealed: bytes) -> Mapping[str, str]:
        """What goes with an image's download or upload."""
        token = self.secrets(sealed).image_token
        return {"X-Auth-Token": token} if token else {}

    def secrets(self, sealed: bytes) -> Secrets:
        """What was sealed for us; nothing where nothing was."""
        if not sealed:
            return Secrets()
        secrets: Secrets = codec.unpack(Secrets, self.identity.unseal(sealed))
        return secrets

    def source(self, guest: ClassicGuest) -> ClassicSource:
        """How a classic guest is reached; Permanent where it is not."""
        if guest.source not in self.classic:
            raise Permanent(f"the leaf has no source {guest.source!r} of classic guests; add it to classic_sources")
        return self.classic[guest.source]


Kinds = Mapping[str, tuple[type, Callable[[Tools, Job, Any, Journal], Any]]]
"""Kind of job -> the class of its arguments, and what does it."""


def personal_of(secrets: Secrets) -> Personal:
    """What a tenant gave for the first start."""
    return Personal(files=secrets.files, user_data=secrets.user_data, password=secrets.admin_password)
