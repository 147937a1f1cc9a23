"""The front door of an API cell as configured: images, REST application, a listener. Opened by the daemon when its
configuration says where to listen, or by any WSGI server through `api_cell.http.wsgi`.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from api_cell.glance import GlanceImages
from api_cell.http.auth import read_users
from api_cell.http.signing import ImageTokens, Purpose
from api_cell.images import FolderImages, Images
from api_cell.posting import endpoint
from api_cell.rows import FlavorRow
from api_cell.service.api import Api
from api_cell.settings import Auth, DefaultQuota, Glance, Keystone, Limits, Settings
from cells.errors import BadInput
from cells.house import Parts
from cells.model import Flavor
from cells.ports import Unit

if TYPE_CHECKING:
    from api_cell.http.app import Application
    from api_cell.http.serve import Served
    from api_cell.http.service_user import ServiceUser

log = logging.getLogger("celltree.front")

# The flavors of a new API cell, until an administrator makes others: OpenStack's traditional ones and a few small.
FIRST_FLAVORS = (
    Flavor(id="1", name="m1.tiny", vcpus=1, ram_mib=512, disk_gib=1),
    Flavor(id="2", name="m1.small", vcpus=1, ram_mib=1024, disk_gib=2),
    Flavor(id="3", name="m1.medium", vcpus=2, ram_mib=4096, disk_gib=40),
    Flavor(id="4", name="m1.large", vcpus=4, ram_mib=8192, disk_gib=80),
    Flavor(id="5", name="m1.xlarge", vcpus=8, ram_mib=16384, disk_gib=160),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontSettings:
    """`images`: the folder of the embedded image service; or `glance`, which holds them. `users_file`:
    name:secret:project[:admin] lines, for http_basic. `secret_file`: some random bytes, the same for every process of
    this cell; it signs the tokens with which leaves move images. `public_url` is how clients reach this API,
    `image_url` how leaves reach its images."""

    auth: str = "none"
    images: str = ""
    users_file: str = ""
    keystone: Keystone = field(default_factory=Keystone)
    glance: Glance = field(default_factory=Glance)
    secret_file: str = ""
    public_url: str = ""
    image_url: str = ""
    build_time: int = 1800
    local_project: str = "local"
    incremental_backups: bool = False
    incrementals_per_full: int = 6
    quota: DefaultQuota = field(default_factory=DefaultQuota)
    limits: Limits = field(default_factory=Limits)


class Front:
    """What the role and the REST application of one API cell share: its images and their tokens."""

    def __init__(self, settings: FrontSettings, parts: Parts) -> None:
        self.settings = _settings(settings, parts)
        self._parts = parts
        self.tokens = ImageTokens(self.settings.image_secret, parts.clock, self.settings.image_token_lifetime)
        self.images: Images | None = None
        self._service_user: ServiceUser | None = None
        if settings.glance.url:
            self.images, self._service_user = _glance(settings, self.settings)
        elif settings.images:
            folder = Path(settings.images)
            self.images = FolderImages(folder, url=settings.image_url, clock=parts.clock, ids=parts.new_id)

    def application(self, poke: Callable[[], None]) -> "Application":
        """The WSGI callable."""
        # Only here: REST takes 10 MiB of memory, and a daemon beside WSGI servers serves none.
        from api_cell.http.app import make_app

        images, parts = self._needed_images(), self._parts
        with parts.store.unit() as unit:
            seed_flavors(unit)
        return make_app(self.settings, parts.store, images, poke, parts.clock, parts.new_id, self.keep)

    def open(self, poke: Callable[[], None], listen: str) -> "Served":
        """Serve at host:port."""
        from api_cell.http.serve import serve

        host, _, port = listen.rpartition(":")
        if not host or not port.isdigit():
            raise BadInput(f"listen: {listen!r} is not host:port, like 127.0.0.1:8774")
        try:
            served = serve(self.application(poke), host, int(port))
        except OSError as error:
            raise BadInput(f"listen: {listen} cannot be listened on: {error.strerror}; choose another port") from None
        if isinstance(self.images, FolderImages) and not self.images.url:
            self.images.url = f"http://{host}:{served.port}/image"
        log.info("%s: REST at http://%s:%d/v2.1", self.settings.cell, host, served.port)
        return served

    def posting(self, poke: Callable[[], None]) -> Mapping[str, Callable[..., Any]]:
        """What programs beside this cell may ask for without HTTP, by name."""
        images, parts = self._needed_images(), self._parts
        with parts.store.unit() as unit:
            seed_flavors(unit)
        api = Api(
            settings=self.settings,
            store=parts.store,
            images=images,
            poke=poke,
            clock=parts.clock,
            ids=parts.new_id,
            keep=self.keep,
        )
        return endpoint(api)

    def keep(self, secret: bytes) -> bytes:
        """A secret as it may lie in this cell's database."""
        return self._parts.identity.keep(secret, self._parts.random_bytes)

    def lends_images(self) -> bool:
        """Whether leaves can be given tokens now; if not, they can soon, or `images_refused` tells why not."""
        ours = self._service_user
        if ours is None or ours.is_ready():
            return True
        ours.ask_ahead()
        return False

    def images_refused(self) -> str:
        """Why leaves can be given no tokens, in words for tenants; empty where they can, or it is not known yet."""
        return self._service_user.refusal() if self._service_user is not None else ""

    def read_token(self, image: str) -> str:
        return self._token(image, Purpose.READ)

    def write_token(self, image: str) -> str:
        return self._token(image, Purpose.WRITE)

    def _token(self, image: str, purpose: Purpose) -> str:
        """Glance knows no tokens for one image, so its leaves come as our own user."""
        ours = self._service_user
        return self.tokens.token_for(image, purpose) if ours is None else ours.latest()

    def _needed_images(self) -> Images:
        if self.images is None:
            raise BadInput(
                "settings: front: images is missing: name a folder where the images are kept, or glance: url"
            )
        return self.images


def seed_flavors(unit: Unit) -> None:
    """The first flavors, if there are none."""
    if not unit.all(FlavorRow):
        unit.save(*(FlavorRow(id=flavor.id, name=flavor.name, flavor=flavor) for flavor in FIRST_FLAVORS))


def _glance(settings: FrontSettings, checked: Settings) -> "tuple[GlanceImages, ServiceUser]":
    if settings.images or settings.image_url:
        raise BadInput("settings: front: glance holds the images, so images and image_url must not be set; remove them")
    if checked.auth is not Auth.KEYSTONE:
        raise BadInput("settings: front: glance needs auth keystone, because images belong to Keystone's projects")
    parts = urlsplit(settings.glance.url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.rstrip("/").endswith("/v2"):
        raise BadInput(f"settings: front: glance: url {settings.glance.url!r}: write https://host:port, without /v2")
    if parts.username or parts.query:
        raise BadInput("settings: front: glance: url must have no user, password or query; our user is keystone: user")
    # Only here: it brings much along.
    from api_cell.http.service_user import ServiceUser

    ours = ServiceUser(settings.keystone, checked.keystone_password)
    authorities = settings.glance.authorities
    return GlanceImages(settings.glance.url, headers=ours.headers, forget=ours.forget, authorities=authorities), ours


def _settings(settings: FrontSettings, parts: Parts) -> Settings:
    if settings.auth not in tuple(Auth):
        raise BadInput(f"settings: front: auth is {settings.auth!r}; use one of {', '.join(Auth)}")
    users = read_users(_read(settings.users_file, "users_file")) if settings.users_file else ()
    if settings.auth == Auth.HTTP_BASIC and not users:
        raise BadInput("settings: front: auth http_basic needs users_file, with a line name:secret:project each")
    if settings.auth == Auth.KEYSTONE and not (settings.keystone.url and settings.keystone.password_file):
        raise BadInput("settings: front: auth keystone needs keystone: url and password_file, of our own user there")
    return Settings(
        cell=parts.identity.name,
        public_url=settings.public_url,
        auth=Auth(settings.auth),
        users=users,
        keystone=settings.keystone,
        keystone_password=_password(settings.keystone),
        local_project=settings.local_project,
        image_secret=_read(settings.secret_file, "secret_file").strip().encode() if settings.secret_file else b"",
        build_time=settings.build_time,
        incremental_backups=settings.incremental_backups,
        incrementals_per_full=settings.incrementals_per_full,
        quota=settings.quota,
        limits=settings.limits,
    )


def _password(keystone: Keystone) -> str:
    return _read(keystone.password_file, "keystone: password_file").strip() if keystone.password_file else ""


def _read(path: str, what: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"settings: front: {what} {path} cannot be read: {error.strerror}") from None
