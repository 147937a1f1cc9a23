"""Who asks: nobody in particular (auth none), a name and password (http_basic), a token of Keystone's (keystone), or a
leaf with an image token.

A secret is `scrypt$SALT$HASH` (base64; made by `hash_password`) or a bcrypt hash as `htpasswd -B` writes it. Both are
slow on purpose, so what was verified once is remembered by a keyed digest that only this process can make.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import threading
from typing import TYPE_CHECKING, Any

import bcrypt

from api_cell.errors import Unauthorized
from api_cell.http.signing import ImageTokens
from api_cell.service.api import Caller
from api_cell.settings import Auth, Settings, User
from cells.errors import BadInput

if TYPE_CHECKING:
    from api_cell.http.keystone import TokenDesk

_REMEMBERED = 10_000
_SECRET = re.compile(r"scrypt\$[A-Za-z0-9+/]+=*\$[A-Za-z0-9+/]+=*|\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}")
_REMEDY = "send HTTP basic authentication with the name and password of a user of this cell"


def hash_password(password: str, salt: bytes) -> str:
    """The secret to keep of a password."""
    return "$".join(("scrypt", base64.b64encode(salt).decode(), base64.b64encode(_scrypt(password, salt)).decode()))


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1, dklen=32)


def _matches(password: str, secret: str) -> bool:
    if secret.startswith("scrypt$"):
        _, salt, wanted = secret.split("$")
        return hmac.compare_digest(_scrypt(password, base64.b64decode(salt)), base64.b64decode(wanted))
    # bcrypt looks at 72 bytes; longer passwords are refused rather than cut.
    encoded = password.encode()
    return len(encoded) <= 72 and b"\0" not in encoded and bcrypt.checkpw(encoded, secret.encode())


def read_users(text: str) -> tuple[User, ...]:
    """A users file: a line `name:secret:project[:admin]` each, # begins a comment."""
    users: dict[str, User] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        words = line.strip().split(":")
        if len(words) not in (3, 4) or not all(words[:3]) or words[3:] not in ([], ["admin"], [""]):
            raise BadInput(f"users file line {number}: write name:secret:project or name:secret:project:admin")
        name, secret, project = words[:3]
        if _SECRET.fullmatch(secret) is None:
            raise BadInput(
                f"users file line {number}: the secret of {name!r} is no bcrypt or scrypt hash; use htpasswd -B"
            )
        if name in users:
            raise BadInput(f"users file line {number}: {name!r} is there twice; remove one")
        users[name] = User(name=name, secret=secret, project=project, admin=words[3:] == ["admin"])
    return tuple(users.values())


class Gate:
    """Tells who asks, from the request's own headers. Thread-safe."""

    def __init__(self, settings: Settings, tokens: ImageTokens) -> None:
        self._settings = settings
        self._tokens = tokens
        self._users = {user.name: user for user in settings.users}
        self._key = secrets.token_bytes(32)
        self._verified: dict[bytes, str] = {}
        self._lock = threading.Lock()
        self._desk = _desk(settings) if settings.auth is Auth.KEYSTONE else None
        # An unknown name takes as long as a known one.
        used = settings.auth is Auth.HTTP_BASIC
        self._decoy = hash_password(secrets.token_hex(16), secrets.token_bytes(16)) if used else ""

    def caller(self, environment: dict[str, Any]) -> Caller:
        """Who sent a request with this WSGI environment; Unauthorized when that is nobody. Two headers are looked at,
        and none of those in which a client might say who it is."""
        authorization, token = (environment.get(name, "") for name in ("HTTP_AUTHORIZATION", "HTTP_X_AUTH_TOKEN"))
        claim = self._tokens.claim(token) if token else None
        if claim is not None:
            return Caller(user="image", project="", image=claim[0], purpose=claim[1])
        if self._settings.auth is Auth.NONE:
            return Caller(user=self._settings.local_user, project=self._settings.local_project, admin=True)
        if self._desk is not None:
            return self._desk.caller(environment)
        name, password = _basic(authorization)
        user = self._user(name, password)
        return Caller(user=user.name, project=user.project, admin=user.admin)

    def _user(self, name: str, password: str) -> User:
        user = self._users.get(name)
        secret = user.secret if user is not None else self._decoy
        seal = hmac.new(self._key, f"{name}\0{password}\0{secret}".encode(), hashlib.sha256).digest()
        if user is not None and seal in self._verified:
            return user
        if not _matches(password, secret) or user is None:
            raise Unauthorized(f"The name or password is wrong; {_REMEDY}")
        with self._lock:
            if len(self._verified) >= _REMEMBERED:
                self._verified.clear()
            self._verified[seal] = name
        return user


def _desk(settings: Settings) -> "TokenDesk":
    from api_cell.http.keystone import TokenDesk  # Only here: it brings much along.

    return TokenDesk(settings.keystone, settings.keystone_password)


def _basic(authorization: str) -> tuple[str, str]:
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() != "basic" or len(rest) > 1024:
        raise Unauthorized(f"Authentication required: {_REMEDY}")
    try:
        name, colon, password = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise Unauthorized(f"The Authorization header is not readable; {_REMEDY}") from None
    if not colon or not name:
        raise Unauthorized(f"The Authorization header is not readable; {_REMEDY}")
    return name, password
