"""Our own user at Keystone, as whom this cell and its leaves come to the image service. Imported only where `auth` is
keystone.

A leaf uses its token a while after it was given one, so none is given that has less than half of its life left.
Decisions wait for nobody: they take what is there, and a new token is fetched meanwhile. While Keystone is out of reach
what needs a token waits; where Keystone refuses us that would be in vain, so it is told.
"""

import logging
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from keystoneauth1.access import AccessInfoV3
from keystoneauth1.exceptions import ClientException
from keystoneauth1.exceptions.http import HttpError
from keystoneauth1.exceptions.response import InvalidResponse
from keystoneauth1.identity.v3 import Password
from keystoneauth1.session import Session

from api_cell.settings import Keystone
from cells.errors import BadInput, CelltreeError, Permanent, Temporary

log = logging.getLogger("celltree.front")

_SECONDS = 10.0
REFUSAL_COUNTS = 5.0
"""Seconds for which what Keystone has said against us ends what waits for a token; then it is asked again."""
_TENANTS_WORD = (
    "The image service cannot be used: Keystone does not let this region's own user in. "
    "An administrator of the region has to put that right"
)
_PASSING = (408, 429)


class ServiceUser:
    """Its tokens. Thread-safe."""

    def __init__(self, settings: Keystone, password: str) -> None:
        self._url = settings.url
        self._settings = settings
        self._password = password
        self._access: AccessInfoV3 | None = None
        self._one_asks = threading.Lock()
        self._is_asking = False
        self._is_refused = False
        self._refused_until = 0.0

    def headers(self) -> Mapping[str, str]:
        """What proves who we are. May block; Temporary when Keystone cannot be asked, Permanent when it does not let
        us in."""
        if not self.is_ready():
            self._fetch()
        return {"X-Auth-Token": self.latest()}

    def is_ready(self) -> bool:
        """Whether the latest token is good for a while. Never blocks."""
        access = self._access
        return access is not None and not self._is_refused and _lasts(access)

    def latest(self) -> str:
        """The latest token; empty where there was none yet. Never blocks."""
        return str(self._access.auth_token) if self._access is not None else ""

    def refusal(self) -> str:
        """Why there will be no token, in words for tenants, if Keystone has refused us just now; else empty. Never
        blocks."""
        return _TENANTS_WORD if time.monotonic() < self._refused_until else ""

    def ask_ahead(self) -> None:
        """Have a token, or a refusal, at hand soon. Never blocks."""
        if self._is_asking or self.refusal():
            return
        self._is_asking = True
        threading.Thread(target=self._ask_ahead, name="celltree service token", daemon=True).start()

    def forget(self) -> None:
        """The latest token was refused: another one is needed."""
        self._is_refused = True

    def _ask_ahead(self) -> None:
        try:
            self._fetch()
        except (Permanent, BadInput) as error:
            self._refused_until = time.monotonic() + REFUSAL_COUNTS
            log.error("%s", error)
        except CelltreeError as error:
            log.warning("%s", error)
        finally:
            self._is_asking = False

    def _fetch(self) -> None:
        with self._one_asks:
            if not self.is_ready():
                self._access, self._is_refused = self._login(), False

    def _login(self) -> AccessInfoV3:
        settings = self._settings
        ours = Password(
            settings.url,
            self._password,
            username=settings.user,
            user_domain_name=settings.domain,
            project_name=settings.project,
            project_domain_name=settings.domain,
            include_catalog=False,
        )
        session = Session(verify=settings.authorities or True, timeout=_SECONDS)
        try:
            access = ours.get_auth_ref(session)
        except HttpError as error:
            if error.http_status in _PASSING or error.http_status >= 500:
                raise Temporary(f"Keystone at {self._url} answers {error.http_status}") from None
            raise Permanent(
                f"Keystone at {self._url} does not let user {settings.user} into project {settings.project} "
                f"({error.http_status}); look at front: keystone: url, user, password_file, project and domain"
            ) from None
        except InvalidResponse as error:
            raise BadInput(
                f"front: keystone: url {self._url} does not answer as the Identity API v3 does "
                f"({type(error).__name__}); end it with /v3"
            ) from None
        except ClientException as error:
            raise Temporary(f"Keystone at {self._url} cannot be asked for a token: {type(error).__name__}") from None
        finally:
            session.session.close()
        if not isinstance(access, AccessInfoV3):
            raise BadInput(f"front: keystone: url {self._url} is not of the Identity API v3; end it with /v3")
        return access


def _lasts(access: AccessInfoV3) -> bool:
    """Whether it has half of its life left."""
    issued, expires = access.issued, access.expires
    if issued is None or expires is None:
        return False
    return bool(expires - datetime.now(UTC) >= (expires - issued) / 2)
