"""PUT /import and /import_metadata: VMs out of an XVA, with their disks or onto disks that are here.

The archive is read once, front to back, and is believed in nothing: what it may hold follows from its description, and
nothing but the named disks is written. When it fails, what was made for it goes again.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, BinaryIO, cast

from xenapi_host import vhd
from xenapi_host.simulator import chains, xva
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.devices import vbd_row, vif_row
from xenapi_host.simulator.engine import CHAINLESS, Engine
from xenapi_host.simulator.failure import NULL, Failure
from xenapi_host.simulator.http_wire import Request, Response
from xenapi_host.simulator.implicit import COMPUTED
from xenapi_host.simulator.model import model
from xenapi_host.simulator.raw_vdi import open_for_writing
from xenapi_host.simulator.transfers import Incoming, Transfer
from xenapi_host.simulator.vhd_storage import VhdStorage
from xenapi_host.simulator.vm import new_generation, remove, vm_row
from xenapi_host.simulator.vm_export import API_VERSION

_MOST_OBJECTS = 10_000
_OWN_OF_VM = {"power_state", "domid", "current_operations", "is_a_snapshot", "snapshot_time", "snapshot_info"}
_OWN_OF_DEVICE = {"uuid", "currently_attached", "device", "current_operations"}
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


def answer(engine: Engine, request: Request) -> Response:
    metadata = request.path == "/import_metadata"
    with engine.lock:
        transfer = Transfer(engine, request, "VM.metadata_import" if metadata else "VM.import", request.length or 0)
        if "transfer-encoding" in request.headers:
            return transfer.refuse(Failure("IMPORT_ERROR_CANNOT_HANDLE_CHUNKED"))
        arriving = _Import(
            engine,
            transfer,
            sr=request.parameter("sr_id") or engine.db.by_uuid("SR", request.parameter("sr_uuid")) or "",
            restore=request.parameter("restore") == "true",
            force=request.parameter("force") == "true",
        )

    def take(reader: BinaryIO) -> None:
        result: list[str] = []
        with transfer.underway(result), _told_as_xapi_does():
            stream = _unpacked(Incoming(reader, request.length, transfer))
            result += arriving.from_metadata(stream) if metadata else arriving.whole(stream)

    headers = [transfer.header, ("content-type", "application/octet-stream")]
    return Response(content_type="", headers=headers, take=take)


@contextmanager
def _told_as_xapi_does() -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Failure("IMPORT_ERROR_GENERIC", f"gzip: {error}") from error


class _Joined:
    """What has been read already, then the rest."""

    def __init__(self, first: bytes, rest: Incoming) -> None:
        self._first, self._rest = first, rest

    def read(self, length: int, /) -> bytes:
        part, self._first = self._first[:length], self._first[length:]
        return part or self._rest.read(length)


def _unpacked(stream: Incoming) -> xva.Readable:
    """The archive itself: XAPI looks at its first bytes, too, to see whether it is compressed."""
    first = stream.read(4)
    joined = _Joined(first, stream)
    if first == _ZSTD:
        raise Failure("IMPORT_ERROR_GENERIC", "zstd is not understood here; export with use_compression=gzip")
    if first[:2] == _GZIP:
        return cast(xva.Readable, gzip.GzipFile(fileobj=cast(BinaryIO, joined), mode="rb"))
    return joined


class _Archive:
    """What ova.xml describes: objects by name."""

    def __init__(self, described: dict[str, Any]) -> None:
        self.objects: dict[str, dict[str, dict[str, Any]]] = {}
        try:
            version = described["version"]
            known = (int(version["xapi_major"]), int(version["xapi_minor"]))
            if len(described["objects"]) > _MOST_OBJECTS:
                raise ValueError(f"more than {_MOST_OBJECTS} objects")
            for entry in described["objects"]:
                self.objects.setdefault(str(entry["class"]), {})[str(entry["id"])] = dict(entry["snapshot"])
        except (KeyError, ValueError, TypeError) as error:
            raise Failure("IMPORT_ERROR_GENERIC", f"{xva.DESCRIPTION}: {error!r}") from error
        if known > API_VERSION:
            raise Failure("IMPORT_INCOMPATIBLE_VERSION")

    def all(self, class_name: str) -> dict[str, dict[str, Any]]:
        return self.objects.get(class_name, {})

    def one(self, class_name: str, name: Any) -> dict[str, Any]:
        found = self.all(class_name).get(str(name))
        if found is None:
            raise Failure("IMPORT_ERROR_FAILED_TO_FIND_OBJECT", str(name)[:80])
        return found

    def drives(self) -> list[dict[str, Any]]:
        """The VBDs that stand for disks."""
        return [vbd for vbd in self.all("VBD").values() if vbd.get("type") != "CD" and not vbd.get("empty")]

    def disks(self) -> dict[str, dict[str, Any]]:
        """The disks that VMs of the archive use."""
        names = [drive.get("VDI") for drive in self.drives()]
        names += [vm["suspend_VDI"] for vm in self.all("VM").values() if vm.get("suspend_VDI", NULL) != NULL]
        return {str(name): self.one("VDI", name) for name in names}


class _Import:
    """One import, on its way. Its methods are called without the lock."""

    def __init__(self, engine: Engine, transfer: Transfer, *, sr: str, restore: bool, force: bool) -> None:
        self._engine, self._db, self._transfer = engine, engine.db, transfer
        self._sr, self._restore, self._force = sr, restore, force
        self._disks: dict[str, Row] = {}  # name in the archive -> the disk here
        self._sizes: dict[str, int] = {}  # of the disks that the archive brings; here they may be a little larger
        self._undo: list[Callable[[], None]] = []

    def whole(self, stream: xva.Readable) -> list[str]:
        """VMs with their disks; their references."""
        archive = _Archive(xva.read_description(stream))
        with self._undone_on_failure():
            with self._engine.lock:
                self._refuse_duplicates(archive)
                self._make_disks(archive, self._target())
            self._fill(stream)
            with self._engine.lock:
                return self._make_vms(archive)

    def from_metadata(self, stream: xva.Readable) -> list[str]:
        """VMs alone; their disks are those of the same uuids."""
        archive = _Archive(xva.read_description(stream))
        with self._undone_on_failure(), self._engine.lock:
            self._refuse_duplicates(archive)
            for name, vdi in archive.disks().items():
                found = self._db.find("VDI", self._db.by_uuid("VDI", str(vdi.get("uuid", ""))) or "")
                if found is not None:
                    self._disks[name] = found
                elif not self._force:
                    raise Failure("VDI_LOCATION_MISSING", str(vdi.get("SR", "")), str(vdi.get("location", "")))
            return self._make_vms(archive)

    @contextmanager
    def _undone_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            with self._engine.lock:
                for undo in reversed(self._undo):
                    with suppress(Failure):
                        undo()
            raise

    def _target(self) -> Row:
        """The repository for the disks: the one asked for, or the pool's default."""
        sr = self._db.find("SR", self._sr or self._engine.pool["default_SR"])
        if sr is None:
            raise Failure("HANDLE_INVALID", "SR", self._sr) if self._sr else Failure("DEFAULT_SR_NOT_FOUND", NULL)
        chains.need_plugged(self._db, sr)
        if sr["type"] in CHAINLESS or not isinstance(self._engine.storage, VhdStorage):
            raise Failure("SR_OPERATION_NOT_SUPPORTED", sr.ref)
        return sr

    def _refuse_duplicates(self, archive: _Archive) -> None:
        if not archive.all("VM"):
            raise Failure("IMPORT_ERROR_GENERIC", f"{xva.DESCRIPTION} describes no VM")
        for vm in archive.all("VM").values() if self._restore else ():
            known = self._db.by_uuid("VM", str(vm.get("uuid", "")))
            if known is not None:
                raise Failure("DUPLICATE_VM", known)
            seed = _fields("VM", vm, set()).get("other_config", {}).get("mac_seed")
            if seed and any(row["other_config"].get("mac_seed") == seed for row in self._db.all("VM")):
                raise Failure("DUPLICATE_MAC_SEED", seed)

    def _make_disks(self, archive: _Archive, sr: Row) -> None:
        for name, described in archive.disks().items():
            fields = _fields("VDI", described, {"uuid", "location", "managed", "snapshot_time", "is_a_snapshot"})
            fields |= {"cbt_enabled": False, "sm_config": {}}
            if "virtual_size" not in fields:
                raise Failure("IMPORT_ERROR_GENERIC", f"{name} has no size")
            self._sizes[name] = int(fields["virtual_size"], 0)
            vdi = chains.make(self._engine, sr, fields)
            self._disks[name] = vdi
            self._undo.append(partial(chains.remove, self._engine, vdi))

    def _fill(self, stream: xva.Readable) -> None:
        sizes = self._sizes
        complete: set[str] = {name for name, size in sizes.items() if not size}
        blocks = xva.read_blocks(stream)
        block = next(blocks, None)
        while block is not None:
            if block.disk not in sizes or block.disk in complete:
                raise Failure("IMPORT_ERROR_UNEXPECTED_FILE", "a disk of the VM", block.disk)
            name, size = block.disk, sizes[block.disk]
            with ExitStack() as held:
                with self._engine.lock:
                    disk = open_for_writing(self._engine, self._disks[name], self._transfer, held)
                at = -1
                while block is not None and block.disk == name:
                    self._put(block, at, size, disk)
                    at = block.number
                    block = next(blocks, None)
            if (at + 1) * xva.BLOCK >= size:
                complete.add(name)
        if complete != set(sizes):
            raise Failure("IMPORT_ERROR_PREMATURE_EOF")

    def _put(self, block: xva.Block, before: int, size: int, disk: vhd.Disk) -> None:
        start = block.number * xva.BLOCK
        if block.number <= before or len(block.data) != min(xva.BLOCK, size - start):
            raise Failure("IMPORT_ERROR_UNEXPECTED_FILE", f"a block after {before}", f"{block.disk}/{block.number:08d}")
        if not block.sound and not self._force:
            raise Failure("IMPORT_ERROR_SOME_CHECKSUMS_FAILED")
        if block.data.strip(b"\0"):
            disk.pwrite(start, block.data)

    # -- rows; the lock is held --

    def _make_vms(self, archive: _Archive) -> list[str]:
        made: dict[str, Row] = {}
        for name, described in archive.all("VM").items():
            vm = made[name] = self._make_vm(described)
            self._undo.append(partial(remove, self._engine, vm))
        for described in archive.all("VBD").values():
            self._make_drive(described, made)
        for described in archive.all("VIF").values():
            self._make_card(archive, described, made)
        return [vm.ref for vm in made.values()]

    def _make_vm(self, described: dict[str, Any]) -> Row:
        fields = _fields("VM", described, _OWN_OF_VM) | {"generation_id": new_generation(self._engine)}
        if not self._restore:
            fields.pop("uuid", None)
            fields["other_config"] = {**fields.get("other_config", {}), "mac_seed": self._engine.new_uuid()}
        vm = vm_row(self._engine, fields)
        image = self._disks.get(str(described.get("suspend_VDI")))
        if described.get("power_state") == "Suspended" and image is not None:
            self._db.update(vm, {"power_state": "Suspended", "suspend_VDI": image.ref})
        return vm

    def _make_drive(self, described: dict[str, Any], made: dict[str, Row]) -> None:
        vm, disk = made.get(str(described.get("VM"))), self._disks.get(str(described.get("VDI")))
        if vm is None:
            raise Failure("IMPORT_ERROR_FAILED_TO_FIND_OBJECT", str(described.get("VM"))[:80])
        fields = _fields("VBD", described, _OWN_OF_DEVICE)
        if disk is None and fields.get("type") != "CD":
            return  # of metadata whose disk is not here, which was forced
        vbd_row(self._engine, {**fields, "VM": vm.ref, "VDI": disk.ref if disk else NULL, "empty": disk is None})

    def _make_card(self, archive: _Archive, described: dict[str, Any], made: dict[str, Row]) -> None:
        vm = made.get(str(described.get("VM")))
        if vm is None:
            raise Failure("IMPORT_ERROR_FAILED_TO_FIND_OBJECT", str(described.get("VM"))[:80])
        fields = _fields("VIF", described, _OWN_OF_DEVICE)
        network = self._network(_fields("network", archive.one("network", described.get("network")), set()))
        mac = fields.get("MAC", "") if self._restore else ""
        vif_row(self._engine, {**fields, "MAC": mac, "VM": vm.ref, "network": network.ref})

    def _network(self, described: dict[str, Any]) -> Row:
        """The network of the same name or bridge; else a new, internal one."""
        for ref in self._db.by_name("network", described.get("name_label", "")):
            return self._db.rows[ref]
        for network in self._db.all("network"):
            if network["bridge"] and network["bridge"] == described.get("bridge"):
                return network
        kept: dict[str, Any] = {
            name: described[name] for name in ("name_label", "name_description") if name in described
        }
        return self._db.create("network", {**kept, "managed": True, "MTU": "1500"})


def _fields(class_name: str, described: dict[str, Any], own: set[str]) -> dict[str, Any]:
    """What may be taken over of a record: fields of the model, of the model's types, no references."""
    known = model().classes[class_name].fields
    left_out = own | set(COMPUTED.get(class_name, ()))
    return {
        name: known[name].coerce(value)
        for name, value in described.items()
        if name in known and name not in left_out and " ref" not in known[name].kind
    }
