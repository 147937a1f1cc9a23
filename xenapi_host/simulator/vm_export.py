"""GET /export and /export_metadata: a VM as an XVA, with its disks or described alone."""

from __future__ import annotations

import gzip
from contextlib import ExitStack
from typing import Any, BinaryIO, cast

from xenapi_host import vhd
from xenapi_host.simulator import xva
from xenapi_host.simulator.call import Call
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.engine import CHAINLESS, Engine
from xenapi_host.simulator.failure import NULL, Failure
from xenapi_host.simulator.http_wire import Request, Response, Sink, trouble
from xenapi_host.simulator.implicit import record
from xenapi_host.simulator.raw_vdi import reading
from xenapi_host.simulator.transfers import Outgoing, Transfer
from xenapi_host.simulator.vhd_storage import VhdStorage
from xenapi_host.simulator.vm_operations import operation, refuse

EXPORT_VERSION = 2
API_VERSION = (2, 21)
_CONTENT = ("content-type", "application/octet-stream")
_GZIP_LEVEL = 1  # disks are large, and so are their easy parts


def answer(engine: Engine, request: Request) -> Response:
    with engine.lock:
        metadata = request.path == "/export_metadata"
        vm = engine.db.find("VM", request.parameter("ref"))
        uuid = request.parameter("uuid")
        if vm is None and not (metadata and request.parameter("all") == "true"):
            vm = engine.db.find("VM", engine.db.by_uuid("VM", uuid) or "")
            if vm is None:
                return trouble(f"UUID_INVALID: [ VM; {uuid} ]")
        transfer = Transfer(engine, request, "VM.export_metadata" if metadata else "VM.export")
        if metadata:
            return _export_metadata(engine, transfer, [vm] if vm is not None else _guests(engine))
        assert vm is not None
        return _export(engine, request, transfer, vm)


def _guests(engine: Engine) -> list[Row]:
    return [vm for vm in engine.db.all("VM") if not vm["is_control_domain"] and not vm["is_default_template"]]


def _export_metadata(engine: Engine, transfer: Transfer, vms: list[Row]) -> Response:
    try:
        for vm in vms:
            refuse(vm, "metadata_export")
    except Failure as failure:
        return transfer.refuse(failure)
    described = Description(engine, vms).whole

    def stream(sink: Sink) -> None:
        out = Outgoing(sink, transfer)
        with transfer.underway():
            xva.write_description(out, described)
            xva.write_end(out)

    return Response(content_type="", headers=[transfer.header, _CONTENT], stream=stream)


def _export(engine: Engine, request: Request, transfer: Transfer, vm: Row) -> Response:
    compression = request.parameter("use_compression", "false")
    held = ExitStack()
    try:
        if compression not in ("true", "gzip", "false", ""):
            raise Failure("IMPORT_ERROR_GENERIC", f"compression {compression} is not known; use gzip")
        refuse(vm, "export")
        described = Description(engine, [vm])
        disks = [(name, held.enter_context(_open(engine, vdi))) for name, vdi in described.disks()]
        _show(engine, transfer, vm, held)
    except (vhd.VhdError, OSError, Failure) as error:
        with engine.unlocked():
            held.close()
        return transfer.refuse(error if isinstance(error, Failure) else Failure("VDI_IO_ERROR", str(error)))
    transfer.total = sum(disk.size for _, disk in disks)

    def stream(sink: Sink) -> None:
        plain = Outgoing(sink, transfer)
        with transfer.underway(), held:
            if compression in ("true", "gzip"):
                with gzip.GzipFile(
                    fileobj=cast(BinaryIO, plain), mode="wb", compresslevel=_GZIP_LEVEL, mtime=0
                ) as packed:
                    _write(packed, described, disks)
            else:
                _write(plain, described, disks)

    return Response(content_type="", headers=[transfer.header, _CONTENT], stream=stream, held=held)


def _write(out: xva.Writable, described: Description, disks: list[tuple[str, vhd.Disk]]) -> None:
    xva.write_description(out, described.whole)
    for name, disk in disks:
        xva.write_disk(out, name, disk)
    xva.write_end(out)


def _open(engine: Engine, vdi: Row) -> vhd.Disk:
    sr = engine.db.get("SR", vdi["SR"])
    if sr["type"] in CHAINLESS or not isinstance(engine.storage, VhdStorage):
        raise Failure("SR_OPERATION_NOT_SUPPORTED", sr.ref)
    return reading(engine, vdi)


def _show(engine: Engine, transfer: Transfer, vm: Row, held: ExitStack) -> None:
    """The VM is under export until `held` is closed."""
    shown = operation(Call(engine, "VM.export", None, transfer.task), vm, "export")
    shown.__enter__()

    def over() -> None:
        with engine.lock:
            shown.__exit__(None, None, None)

    held.callback(over)


class Description:
    """VMs and what belongs to them as ova.xml has it: records whose references are `Ref:0`, `Ref:1`, and so on, or
    null where they lead out of the archive."""

    def __init__(self, engine: Engine, vms: list[Row]) -> None:
        self._db = engine.db
        self._names: dict[str, str] = {}
        rows = self._belonging(vms)
        for number, row in enumerate(rows):
            self._names[row.ref] = f"Ref:{number}"
        software = engine.master["software_version"]
        self.whole: dict[str, Any] = {
            "version": {
                "hostname": engine.master["hostname"],
                "date": software.get("date", ""),
                "product_version": software.get("product_version", ""),
                "product_brand": software.get("product_brand", ""),
                "build_number": software.get("build_number", ""),
                "xapi_major": API_VERSION[0],
                "xapi_minor": API_VERSION[1],
                "export_vsn": EXPORT_VERSION,
            },
            "objects": [
                {
                    "class": row.class_name,
                    "id": self._names[row.ref],
                    "snapshot": self._renamed(record(engine, row)),
                }
                for row in rows
            ],
        }
        self._vms = vms

    def disks(self) -> list[tuple[str, Row]]:
        """The disks that go along, in the order in which XAPI expects them: by name as text."""
        found = {vdi.ref: vdi for vm in self._vms for vdi in self._disks_of(vm)}
        return sorted((self._names[ref], vdi) for ref, vdi in found.items())

    def _belonging(self, vms: list[Row]) -> list[Row]:
        db = self._db
        devices = [db.rows[ref] for vm in vms for ref in [*vm["VBDs"], *vm["VIFs"]]]
        disks = [vdi for vm in vms for vdi in self._disks_of(vm)]
        metrics = [db.find("VM_guest_metrics", vm["guest_metrics"]) for vm in vms]
        others = [db.find("network", card["network"]) for card in devices if card.class_name == "VIF"]
        storage = [db.find("SR", vdi["SR"]) for vdi in disks]
        found = [*vms, *devices, *disks, *storage, *others, *metrics]
        return list({row.ref: row for row in found if row is not None}.values())

    def _disks_of(self, vm: Row) -> list[Row]:
        db = self._db
        drives = [db.rows[ref] for ref in vm["VBDs"]]
        refs = [drive["VDI"] for drive in drives if drive["type"] != "CD"] + [vm["suspend_VDI"]]
        found = [db.find("VDI", ref) for ref in refs]
        return [vdi for vdi in found if vdi is not None]

    def _renamed(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._names.get(value, NULL) if value.startswith("OpaqueRef:") else value
        if isinstance(value, list):
            renamed = [self._renamed(item) for item in value]
            return [item for item in renamed if item != NULL]
        if isinstance(value, dict):
            return {self._renamed(key): self._renamed(item) for key, item in value.items() if key != NULL}
        return value
