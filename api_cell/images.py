"""Images: the seam to whoever holds them, and the store that is a folder, served by ourselves as a Glance v2 subset.

A leaf fetches and fills images over HTTP only (Glance v2), whoever serves them. The folder holds `<id>.img` (the
record) and `<id>.data` (the bytes). Bytes are streamed to a part file and renamed, so that an active image is
always whole.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Protocol

from api_cell.errors import Forbidden, Invalid, NotAllowedNow, NotFound, TooLarge
from cells import codec
from cells.model import ImageRef
from cells.names import Instant, id_text
from cells.ports import Clock, NewId

CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image as Glance shows it. `min_disk` in GiB, `min_ram` in MiB, `size` in bytes; `size` and `checksum` (md5 of
    the stored bytes) are known once active."""

    id: str
    name: str
    owner: str
    created: Instant
    updated: Instant
    status: str = "queued"
    visibility: str = "shared"
    disk_format: str = ""
    container_format: str = ""
    size: int | None = None
    checksum: str = ""
    sha512: str = ""
    min_disk: int = 0
    min_ram: int = 0
    protected: bool = False
    hidden: bool = False
    tags: tuple[str, ...] = ()
    properties: dict[str, str] = field(default_factory=dict)


# What Glance calls a field -> what it is called here; everything else a client names is a property.
FIELDS = {
    "name": "name",
    "visibility": "visibility",
    "disk_format": "disk_format",
    "container_format": "container_format",
    "min_disk": "min_disk",
    "min_ram": "min_ram",
    "protected": "protected",
    "os_hidden": "hidden",
    "tags": "tags",
}


class Images(Protocol):
    """Who holds the images: a folder served by ourselves, or Glance. Each may block. Raises Temporary when
    it cannot be reached, NotFound where an image is asked for that is not there. `url`: the Glance v2 endpoint, without
    /v2, as leaves reach it."""

    url: str

    def get(self, image_id: str) -> Image | None:
        """The image, or None."""

    def is_member(self, image_id: str, project: str) -> bool:
        """Whether a shared image is shared with this project."""

    def find(self, name: str) -> tuple[Image, ...]:
        """Every image of this name."""

    def having(self, properties: Mapping[str, str], status: str = "") -> tuple[Image, ...]:
        """Every image that has all these properties, and this status if one is named."""

    def create(
        self,
        *,
        name: str,
        owner: str,
        disk_format: str = "",
        container_format: str = "",
        min_disk: int = 0,
        properties: dict[str, str] | None = None,
    ) -> str:
        """A new, queued image without bytes; gives its id. Called again it makes another one."""

    def ref(self, image_id: str) -> ImageRef:
        """The image as a leaf needs it, with the Glance v2 endpoint it can fetch it from or upload it to."""

    def delete(self, image_id: str) -> None:
        """The image is gone afterwards, also when it was before."""


def visible(image: Image, project: str, *, admin: bool = False) -> bool:
    """Whether a project sees an image."""
    return admin or image.owner == project or image.visibility in ("public", "community")


def having(images: Iterable[Image], properties: Mapping[str, str], status: str) -> tuple[Image, ...]:
    """Those that have all these properties, and this status if one is named."""
    return tuple(
        image for image in images if properties.items() <= image.properties.items() and status in ("", image.status)
    )


def ref_to(image: Image, url: str) -> ImageRef:
    """The image as a leaf needs it, served at this endpoint."""
    return ImageRef(
        id=image.id,
        name=image.name,
        url=url,
        checksum=image.checksum,
        disk_format=image.disk_format or "vhd",
        container_format=image.container_format or "ovf",
        size=image.size or 0,
        min_disk_gib=image.min_disk,
        min_ram_mib=image.min_ram,
        properties=image.properties,
    )


class FolderImages:
    """The store of the embedded shape. `url`: the Glance endpoint, without /v2, as leaves reach it; it may be set after
    the server has got its port. Records are read from the folder each time and locks are on files in it, so several
    processes of one machine may share it."""

    def __init__(self, folder: Path, *, url: str, clock: Clock, ids: NewId, largest: int = 256 << 30) -> None:
        self.url = url
        self._folder = folder
        self._clock = clock
        self._ids = ids
        self._largest = largest
        folder.mkdir(parents=True, exist_ok=True)

    # --- the seam ---

    def get(self, image_id: str) -> Image | None:
        if not _plain(image_id):
            return None
        try:
            data = self._record(image_id).read_bytes()
        except FileNotFoundError:
            return None
        image: Image = codec.unpack(Image, data)
        return image

    def is_member(self, image_id: str, project: str) -> bool:
        return False  # nobody can share an image of the folder

    def find(self, name: str) -> tuple[Image, ...]:
        return tuple(image for image in self.all() if image.name == name)

    def having(self, properties: Mapping[str, str], status: str = "") -> tuple[Image, ...]:
        return having(self.all(), properties, status)

    def create(
        self,
        *,
        name: str,
        owner: str,
        disk_format: str = "",
        container_format: str = "",
        min_disk: int = 0,
        properties: dict[str, str] | None = None,
        **more: Any,
    ) -> str:
        now = self._clock()
        image = Image(
            id=more.pop("id", "") or id_text(self._ids()),
            name=name,
            owner=owner,
            created=now,
            updated=now,
            disk_format=disk_format,
            container_format=container_format,
            min_disk=min_disk,
            properties=properties or {},
            **more,
        )
        with self._alone():
            if self._record(image.id).exists():
                raise NotAllowedNow(f"Image ID {image.id} already exists; choose another or leave it out")
            self._write(image)
        return image.id

    def ref(self, image_id: str) -> ImageRef:
        return ref_to(self.need(image_id), self.url)

    def delete(self, image_id: str) -> None:
        if not _plain(image_id):
            return
        with self._alone():
            self._record(image_id).unlink(missing_ok=True)
            self._data(image_id).unlink(missing_ok=True)
            (self._folder / f"{image_id}.upload.lock").unlink(missing_ok=True)

    # --- what the Glance routes need besides ---

    def all(self) -> tuple[Image, ...]:
        """Every image, newest first."""
        found = (self.get(path.stem) for path in self._folder.glob("*.img"))
        return tuple(sorted((i for i in found if i is not None), key=lambda i: (i.created, i.id), reverse=True))

    def need(self, image_id: str) -> Image:
        """The image, or NotFound."""
        image = self.get(image_id)
        if image is None:
            raise NotFound(f"No image found with ID {image_id}")
        return image

    def change(self, image_id: str, **changes: Any) -> Image:
        """Change fields of the record."""
        with self._alone():
            image = replace(self.need(image_id), updated=self._clock(), **changes)
            self._write(image)
        return image

    def remove(self, image_id: str) -> None:
        """Delete as a tenant does: Forbidden while it is protected."""
        if self.need(image_id).protected:
            raise Forbidden(f"Image {image_id} is protected and cannot be deleted; set protected to false first")
        self.delete(image_id)

    def fill(self, image_id: str, source: IO[bytes], length: int | None = None) -> Image:
        """Take the bytes of a queued image: queued -> saving -> active; on any failure it is queued again. `length`:
        how many bytes there must be, where that is known before."""
        self.need(image_id)
        with self._held(f"{image_id}.upload", wait=False):
            return self._fill(image_id, source, length)

    def _fill(self, image_id: str, source: IO[bytes], length: int | None) -> Image:
        with self._alone():
            image = self.need(image_id)
            # We hold its upload lock: one that is saving was left so by a process that died.
            if image.status not in ("queued", "saving"):
                raise NotAllowedNow(f"Image {image_id} is {image.status}; only queued images take data; create another")
            if not image.disk_format or not image.container_format:
                raise NotAllowedNow(
                    f"Image {image_id} has no disk_format or container_format; set both (PATCH) before its data"
                )
            self._write(replace(image, status="saving"))
        part = self._folder / f"{image_id}.part-{id_text(self._ids())}"
        try:
            size, checksum, sha512 = self._receive(source, part)
            if length is not None and size != length:
                raise Invalid(f"The image data broke off after {size} of {length} bytes; send it again")
            with self._alone():
                latest = self.need(image_id)
                os.replace(part, self._data(image_id))
                done = replace(
                    latest, status="active", size=size, checksum=checksum, sha512=sha512, updated=self._clock()
                )
                self._write(done)
            return done
        except BaseException:
            part.unlink(missing_ok=True)
            with self._alone():
                stays = self.get(image_id)
                if stays is not None and stays.status == "saving":
                    self._write(replace(stays, status="queued"))
            raise

    def open(self, image_id: str) -> tuple[IO[bytes], int]:
        """The bytes of an active image, to be read in chunks, and how many."""
        image = self.need(image_id)
        if image.status != "active":
            raise NotAllowedNow(f"Image {image_id} is {image.status}; it has no data to download yet")
        data = self._data(image_id).open("rb")
        return data, os.fstat(data.fileno()).st_size

    def _receive(self, source: IO[bytes], part: Path) -> tuple[int, str, str]:
        size, md5, sha512 = 0, hashlib.md5(usedforsecurity=False), hashlib.sha512()
        with part.open("wb") as out:
            for chunk in _chunks(source):
                size += len(chunk)
                if size > self._largest:
                    raise TooLarge(f"The image data is over the limit of {self._largest} bytes; make the image smaller")
                md5.update(chunk)
                sha512.update(chunk)
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        return size, md5.hexdigest(), sha512.hexdigest()

    def _alone(self) -> AbstractContextManager[None]:
        """Nobody else changes a record meanwhile."""
        return self._held("records", wait=True)

    @contextmanager
    def _held(self, name: str, *, wait: bool) -> Iterator[None]:
        """Hold a lock among all threads and processes; it ends with its holder, whatever becomes of that."""
        path = self._folder / f"{name}.lock"
        with path.open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise NotAllowedNow("The image is being uploaded by somebody else; wait until that is over") from None
            yield

    def _write(self, image: Image) -> None:
        part = self._folder / f"{image.id}.record-part"
        part.write_bytes(codec.pack(image))
        os.replace(part, self._record(image.id))

    def _record(self, image_id: str) -> Path:
        return self._folder / f"{image_id}.img"

    def _data(self, image_id: str) -> Path:
        return self._folder / f"{image_id}.data"


def _plain(image_id: str) -> bool:
    """Ids become file names, so nothing else than a uuid's characters may be in one."""
    return len(image_id) == 36 and all(c in "0123456789abcdef-" for c in image_id)


def _chunks(source: IO[bytes]) -> Iterator[bytes]:
    while chunk := source.read(CHUNK):
        yield chunk
