"""Who asks, by a token of Keystone's, told by keystonemiddleware. Imported only where `auth` is keystone: it brings
much along.

The middleware is asked with a copy of the request's environment and leads to no application. So what a client says of
itself in X-Roles and its like reaches nobody, even if the middleware should once fail to strip it, and a no has the
same words as every other no of this API.
"""

from collections.abc import Callable, Iterable
from typing import Any

from keystoneauth1.exceptions import ClientException
from keystonemiddleware.auth_token import AuthProtocol
from oslo_config import cfg

from api_cell.errors import Forbidden, Unauthorized
from api_cell.service.api import Caller
from api_cell.settings import Keystone
from cells.errors import Temporary

# Set by the middleware when it has found a token good; no header of a client can become it.
_TOKEN = "keystone.token_info"
_REMEDY = "ask Keystone for a token and send it as X-Auth-Token"
_AGAIN_SECONDS = 5.0
_CONNECT_SECONDS = 10


class TokenDesk:
    """Asks Keystone about tokens, and remembers its answers for a while. Thread-safe. `caller` may block."""

    def __init__(self, settings: Keystone, password: str) -> None:
        self._admin_role = settings.admin_role
        self._middleware = AuthProtocol(_welcome, _options(settings, password))

    def caller(self, environment: dict[str, Any]) -> Caller:
        """Who sent a request with this WSGI environment. Unauthorized when its token is none, or not good any more;
        Forbidden when it is of no project; Temporary when Keystone cannot be asked."""
        if not environment.get("HTTP_X_AUTH_TOKEN"):
            raise Unauthorized(f"Authentication required: {_REMEDY}")
        asked = {name: value for name, value in environment.items() if name != _TOKEN}
        told: list[str] = []
        try:
            for _ in self._middleware(asked, lambda status, *_: told.append(status)):
                pass
        except ClientException as error:
            raise Temporary(f"Keystone cannot be asked: {error}", retry_after=_AGAIN_SECONDS) from error
        if told[0].startswith("503"):
            raise Temporary("Keystone cannot be asked", retry_after=_AGAIN_SECONDS)
        if not told[0].startswith("200") or _TOKEN not in asked:
            raise Unauthorized(f"The token is not good, or not any more; {_REMEDY}")
        return self._of(asked[_TOKEN]["token"])

    def _of(self, token: dict[str, Any]) -> Caller:
        project = (token.get("project") or {}).get("id")
        if not project:
            raise Forbidden("The token is of no project; ask Keystone for one that is scoped to a project")
        roles = {role["name"].lower() for role in token.get("roles", ())}
        return Caller(
            user=token["user"]["id"],
            project=project,
            admin=self._admin_role.lower() in roles,
            reader=roles <= {"reader"},
        )


def _welcome(_: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return []


def _options(settings: Keystone, password: str) -> dict[str, Any]:
    own = cfg.ConfigOpts()
    own([], default_config_files=[], default_config_dirs=[])
    return {
        # Options of its own, else it reads the process's global ones.
        "oslo_config_config": own,
        "auth_type": "password",
        "auth_url": settings.url,
        "www_authenticate_uri": settings.url,
        "username": settings.user,
        "password": password,
        "user_domain_name": settings.domain,
        "project_name": settings.project,
        "project_domain_name": settings.domain,
        "region_name": settings.region or None,
        "interface": settings.interface,
        "cafile": settings.authorities or None,
        "memcached_servers": settings.memcached or None,
        # To the middleware 0 is for ever, and -1 is not at all.
        "token_cache_time": settings.remember if settings.remember > 0 else -1,
        "http_connect_timeout": _CONNECT_SECONDS,
        "http_request_max_retries": 1,
        "include_service_catalog": False,
        "service_token_roles_required": True,
        "service_type": "compute",
    }
