"""PUT /import_raw_vdi and GET /export_raw_vdi: a disk's bytes over HTTP, raw or as VHD, whole or against a base.

A disk that is read is opened at once and read from then on, whatever storage does to its files meanwhile. A disk that
is written is its writer's alone: snapshots wait, VDI.destroy is refused.
"""

from __future__ import annotations

import struct
from contextlib import ExitStack
from typing import BinaryIO

from xenapi_host import vhd
from xenapi_host.simulator.chains import NO_DATA
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.engine import CHAINLESS, Engine
from xenapi_host.simulator.failure import Failure
from xenapi_host.simulator.http_wire import Request, Response, Sink, redirect, trouble
from xenapi_host.simulator.placement import live, reaches_sr
from xenapi_host.simulator.storage import NoRoom
from xenapi_host.simulator.transfers import Incoming, Outgoing, Transfer
from xenapi_host.simulator.vdi import attached
from xenapi_host.simulator.vhd_storage import VhdStorage

_CHUNK = struct.Struct("<qi")  # of chunked=true: where, how long
_CONTENT = {"raw": "application/octet-stream", "vhd": "application/vhd"}


def answer(engine: Engine, request: Request, host: str | None) -> Response:
    """`host`: the member that was asked; another one is named where it does not see the disk's repository."""
    with engine.lock:
        vdi = _find(engine, request.parameter("vdi"))
        if vdi is None:
            return trouble(f'Db_exn.Read_missing_uuid("VDI", "", "{request.parameter("vdi")}")')
        elsewhere = _host_that_sees(engine, engine.db.get("SR", vdi["SR"]), host)
        if elsewhere is not None:
            return redirect(engine.urls[elsewhere.ref], request)
        incoming = request.method == "PUT"
        label = "VDI.import" if incoming else "VDI.export_raw_vdi"
        transfer = Transfer(engine, request, label, request.length or 0 if incoming else vdi.number("virtual_size"))
        kind = request.parameter("format", "raw").lower()
        if kind not in _CONTENT:
            return transfer.refuse_request(f"Unknown format {kind}")
        if not isinstance(engine.storage, VhdStorage) or engine.db.get("SR", vdi["SR"])["type"] in CHAINLESS:
            return transfer.refuse(Failure("SR_OPERATION_NOT_SUPPORTED", vdi["SR"]))
        if vdi["type"] == NO_DATA:
            return transfer.refuse(Failure("VDI_INCOMPATIBLE_TYPE", vdi.ref, NO_DATA))
        if incoming:
            return _import(engine, request, transfer, vdi, kind)
        return _export(engine, request, transfer, vdi, kind)


def _find(engine: Engine, text: str) -> Row | None:
    return engine.db.find("VDI", text) or engine.db.find("VDI", engine.db.by_uuid("VDI", text) or "")


def _host_that_sees(engine: Engine, sr: Row, host: str | None) -> Row | None:
    """Another host to ask, where the one asked does not see the repository and some other one does."""
    here = engine.db.find("host", host or "")
    if here is None or reaches_sr(engine, here, sr.ref):
        return None
    others = (other for other in engine.db.all("host") if live(engine, other) and reaches_sr(engine, other, sr.ref))
    return next(others, None)


# -- in --


def _import(engine: Engine, request: Request, transfer: Transfer, vdi: Row, kind: str) -> Response:
    chunked = request.parameter("chunked", "false") != "false"
    if "transfer-encoding" in request.headers:
        return transfer.refuse_request("import code cannot handle encoding")
    if chunked and kind != "raw":
        return transfer.refuse_request(f"unable to import a .{kind} using chunked encoding")
    if not chunked and request.length is None:
        return transfer.refuse_request("a Content-Length is needed")
    if attached(engine, vdi):
        return transfer.refuse(Failure("VDI_IN_USE", vdi.ref, "import"))

    length = None if chunked else request.length
    held = ExitStack()
    try:
        disk = open_for_writing(engine, vdi, transfer, held)
    except (vhd.VhdError, OSError, Failure) as error:
        with engine.unlocked():
            held.close()
        return transfer.refuse(error if isinstance(error, Failure) else Failure("VDI_IO_ERROR", str(error)))

    def take(reader: BinaryIO) -> None:
        stream = Incoming(reader, request.length, transfer)
        with transfer.underway(), held:
            lay_over(stream, disk, kind, length, vdi)

    headers = [transfer.header, ("content-type", _CONTENT["raw"])]
    return Response(content_type="", headers=headers, take=take, held=held)


def open_for_writing(engine: Engine, vdi: Row, transfer: Transfer, held: ExitStack) -> vhd.Disk:
    """A disk to oneself until `held` is closed; the transfer ends when the repository is full. The lock is held."""
    storage, sr = engine.storage, engine.db.get("SR", vdi["SR"])
    assert isinstance(storage, VhdStorage)
    mine = engine.exclusive("VDI", vdi.ref)
    mine.__enter__()

    def let_go() -> None:
        with engine.lock:
            mine.__exit__(None, None, None)

    held.callback(let_go)

    def check_room() -> None:
        space = storage.space(sr["uuid"])
        if space.used > space.total:
            raise NoRoom(space.used, space.total)

    transfer.check = check_room
    with engine.exclusive("SR", sr.ref):
        path = storage.path(sr["uuid"], engine.db.get("VDI", vdi.ref)["uuid"])
        return held.enter_context(vhd.Disk.open(path, writable=True))


def lay_over(stream: Incoming, disk: vhd.Disk, kind: str, length: int | None, vdi: Row) -> None:
    """What the stream brings goes over a disk, a VHD only where it has blocks. `length`: of raw bytes; None: chunks."""
    try:
        if kind == "vhd":
            vhd.apply_stream(stream, disk)
        elif length is None:
            _take_chunks(stream, disk)
        elif length > disk.size:
            raise ValueError(f"{length} bytes do not fit into {disk.size}")
        else:
            vhd.overwrite_raw(stream, disk, length)
    except ValueError as error:
        raise Failure("VDI_TOO_SMALL", vdi.ref, str(error)) from error


def _take_chunks(stream: Incoming, disk: vhd.Disk) -> None:
    while True:
        start, length = _CHUNK.unpack(stream.exactly(_CHUNK.size))
        if length == 0:
            return
        if length < 0 or start < 0 or start + length > disk.size:
            raise ValueError(f"a chunk of {length} bytes at {start} does not fit into {disk.size}")
        while length:
            piece = stream.exactly(min(length, vhd.BLOCK_SIZE))
            disk.pwrite(start, piece)
            start, length = start + len(piece), length - len(piece)


# -- out --


def _export(engine: Engine, request: Request, transfer: Transfer, vdi: Row, kind: str) -> Response:
    name = request.parameter("base")
    base = _find(engine, name) if name else None
    if name and (base is None or base["SR"] != vdi["SR"] or base["type"] == NO_DATA):
        return transfer.refuse(Failure("VDI_NOT_AVAILABLE", name))
    name = f"{vdi['uuid']}.{kind}"
    headers = [("content-type", _CONTENT[kind]), ("content-disposition", f'attachment; filename="{name}"')]
    held = ExitStack()
    try:
        disk = held.enter_context(reading(engine, vdi))
        plan = _planned(engine, disk, base) if kind == "vhd" else None
    except (vhd.VhdError, OSError, Failure) as error:
        with engine.unlocked():
            held.close()
        return transfer.refuse(error if isinstance(error, Failure) else Failure("VDI_IO_ERROR", str(error)))
    size = plan.size if plan is not None else disk.size

    def stream(sink: Sink) -> None:
        out = Outgoing(sink, transfer)
        with transfer.underway(), held:
            if plan is None:
                vhd.write_raw(disk, out)
            for piece in plan.chunks() if plan is not None else ():
                out.write(piece)

    headers += [transfer.header, ("content-length", str(size))]
    return Response(content_type="", headers=headers, stream=stream, held=held)


def _planned(engine: Engine, disk: vhd.Disk, base: Row | None) -> vhd.VhdExport:
    """A stream of what the open disk holds now, or of how it differs from its base."""
    if base is None:
        return vhd.plan_export(disk)
    with reading(engine, base) as older:
        return vhd.plan_export(disk, older)


def path_of(engine: Engine, vdi: Row) -> str:
    storage = engine.storage
    assert isinstance(storage, VhdStorage)
    return str(storage.path(engine.db.get("SR", vdi["SR"])["uuid"], vdi["uuid"]))


def reading(engine: Engine, vdi: Row) -> vhd.Disk:
    """A disk open for reading: what it holds now, though its files may be renamed or merged later. The lock is held."""
    with engine.exclusive("SR", vdi["SR"]):
        return vhd.Disk.open(path_of(engine, engine.db.get("VDI", vdi.ref)))
