"""What the front door of an API cell is told when it starts. Read from the configuration by the command line."""

from dataclasses import dataclass, field
from enum import StrEnum

from cells.names import CellName

GIB = 2**30


class Auth(StrEnum):
    """NONE: everybody is the one local user, an administrator. HTTP_BASIC: names and passwords from `users`. KEYSTONE:
    tokens of the Keystone that `keystone` names."""

    NONE = "none"
    HTTP_BASIC = "http_basic"
    KEYSTONE = "keystone"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody who may log in. `secret` is a salted hash (see api_cell.http.auth), never the password."""

    name: str
    project: str
    secret: str = field(repr=False)
    admin: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Keystone:
    """The Keystone that knows our users, and our own user there, which asks it about their tokens. `remember`: seconds
    that an answer is good for; a token that is revoked is still taken so long."""

    url: str = ""
    user: str = "celltree"
    password_file: str = ""
    project: str = "service"
    domain: str = "Default"
    region: str = ""
    interface: str = "internal"
    authorities: str = ""
    memcached: str = ""
    remember: int = 60
    admin_role: str = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """The Glance that holds our images, asked as our own user at Keystone."""

    url: str = ""
    authorities: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultQuota:
    """What a project may have when no quota was set for it; -1 is no limit. Raise for a private cloud of one team."""

    servers: int = 1000
    vcpus: int = 4000
    ram_mib: int = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one project may ask, so that it cannot take the whole cell: requests a second of each REST process, after a
    `burst` at once; and how many builds may wait for a leaf, of one project and `waiting_in_all`. 0 is no limit."""

    requests_per_second: float = 50.0
    burst: int = 500
    waiting: int = 2000
    waiting_in_all: int = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`public_url` is how clients reach this API (without /v2.1), for the links in answers; empty: as each request
    was addressed. `local_user` and `local_project` are who everybody is when `auth` is none. `image_secret` signs the
    tokens of image transfers; it must be the same in all processes of the cell. `incremental_backups`: whether a
    backup holds only what changed since an earlier one when its wish does not say; `incrementals_per_full` of them at
    most in a row. Sizes in bytes, times in seconds."""

    cell: CellName
    public_url: str = ""
    auth: Auth = Auth.NONE
    users: tuple[User, ...] = ()
    keystone: Keystone = Keystone()
    keystone_password: str = field(default="", repr=False)
    local_user: str = "local"
    local_project: str = "local"
    image_secret: bytes = field(default=b"", repr=False)
    image_token_lifetime: int = 6 * 3600
    largest_image: int = 256 * GIB
    largest_body: int = 114_688
    largest_page: int = 1000
    most_metadata: int = 128
    most_keypairs: int = 100
    build_time: int = 1800
    incremental_backups: bool = False
    incrementals_per_full: int = 6
    default_zone: str = "nova"
    quota: DefaultQuota = DefaultQuota()
    limits: Limits = Limits()
