"""PUT /import_raw_vdi and GET /export_raw_vdi: a disk's bytes over HTTP, raw or as VHD, whole or against a base.

XAPI answers 200 before the data, so what goes wrong later is told by the task whose reference came as task_id.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from xenapi_host import vhd
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.engine import CHAINLESS, Engine
from xenapi_host.simulator.failure import Failure
from xenapi_host.simulator.http_wire import Refused, Request, Response, Sink, trouble
from xenapi_host.simulator.vdi import attached
from xenapi_host.simulator.vhd_storage import VhdStorage

_CHUNK = struct.Struct("<qi")  # of chunked=true: where, how long
_FORMATS = ("raw", "vhd")


def _find(engine: Engine, text: str) -> Row | None:
    return engine.db.find("VDI", text) or engine.db.find("VDI", engine.db.by_uuid("VDI", text) or "")


def answer(engine: Engine, request: Request) -> Response:
    kind = request.query.get("format", "raw")
    if kind not in _FORMATS:
        return trouble(f'Failure("format {kind} is not known; use raw or vhd")')
    with engine.lock:
        vdi = _find(engine, request.query.get("vdi", ""))
        if vdi is None:
            return trouble(f'Db_exn.Read_missing_uuid("VDI", "", "{request.query.get("vdi", "")}")')
        if not isinstance(engine.storage, VhdStorage) or engine.db.get("SR", vdi["SR"])["type"] in CHAINLESS:
            return trouble("NOT_IMPLEMENTED: [ disks without bytes ]")
        path = engine.storage.path(engine.db.rows[vdi["SR"]]["uuid"], vdi["uuid"])
        if request.method == "PUT":
            if attached(engine, vdi):
                return _refuse(engine, request, Failure("VDI_IN_USE", vdi.ref, "import"))
            return _importing(engine, request, vdi, path, kind)
        base = _find(engine, request.query["base"]) if "base" in request.query else None
        base_path = engine.storage.path(engine.db.rows[base["SR"]]["uuid"], base["uuid"]) if base is not None else None
    return _exporting(engine, request, vdi, path, base_path, kind)


def _refuse(engine: Engine, request: Request, failure: Failure) -> Response:
    _end(engine, request, failure)
    return trouble(f"{failure.details[0]}: [ {'; '.join(failure.details[1:])} ]")


def _end(engine: Engine, request: Request, failure: Failure | None) -> None:
    """Write the outcome into the task that the client named; the engine's lock is held."""
    task = engine.db.find("task", request.query.get("task_id", ""))
    if task is None:
        return
    outcome = {"status": "success"} if failure is None else {"status": "failure", "error_info": failure.details}
    engine.db.update(task, {**outcome, "progress": 1.0, "finished": engine.now()})


@contextmanager
def _held(engine: Engine, request: Request, vdi: Row) -> Iterator[None]:
    """The disk's repository to ourselves, with the lock let go; errors end in the task."""
    failure: Failure | None = None
    with engine.lock, engine.exclusive("SR", vdi["SR"]):
        try:
            with engine.unlocked():
                yield
        except (vhd.VhdError, Refused) as error:
            failure = Failure("VDI_IO_ERROR", str(error))
        except ValueError as error:
            failure = Failure("VDI_TOO_SMALL", vdi.ref, str(error))
        except OSError:
            failure = Failure("VDI_IO_ERROR", "Device I/O errors")
        _end(engine, request, failure)


def _importing(engine: Engine, request: Request, vdi: Row, path: Path, kind: str) -> Response:
    length = request.length
    chunked = request.query.get("chunked") == "true"
    if "transfer-encoding" in request.headers or (length is None and not chunked):
        _end(engine, request, Failure("IMPORT_ERROR", "a Content-Length is needed"))
        return Response(status=404, content_type="text/html", close=True)

    def take(reader: BinaryIO) -> None:
        with _held(engine, request, vdi), vhd.Disk.open(path, writable=True) as disk:
            if chunked:
                _take_chunks(reader, disk)
            elif kind == "vhd":
                vhd.apply_stream(_Limited(reader, length or 0), disk)
            elif (length or 0) > disk.size:
                raise ValueError(f"{length} bytes do not fit into {disk.size}")
            else:
                vhd.overwrite_raw(_Limited(reader, length or 0), disk, length or 0)
        engine.after_call()

    return Response(content_type="", take=take)


class _Limited:
    """The first `left` bytes of a connection as a stream."""

    def __init__(self, reader: BinaryIO, left: int) -> None:
        self._reader = reader
        self._left = left

    def read(self, length: int, /) -> bytes:
        data = self._reader.read(min(length, self._left))
        self._left -= len(data)
        return data


def _exactly(reader: BinaryIO, length: int) -> bytes:
    data = reader.read(length)
    if len(data) < length:
        raise Refused("the data ended early")
    return data


def _take_chunks(reader: BinaryIO, disk: vhd.Disk) -> None:
    while True:
        start, length = _CHUNK.unpack(_exactly(reader, _CHUNK.size))
        if length == 0:
            return
        if length < 0 or start < 0 or start + length > disk.size:
            raise ValueError(f"a chunk of {length} bytes at {start} does not fit into {disk.size}")
        disk.pwrite(start, _exactly(reader, length))


def _exporting(engine: Engine, request: Request, vdi: Row, path: Path, base: Path | None, kind: str) -> Response:
    headers = [("Content-Type", "application/octet-stream")]
    if kind == "raw":
        size = vdi.number("virtual_size")
        return _streaming(engine, request, vdi, size, headers, lambda out: vhd.export_raw(path, out))
    try:
        plan = vhd.plan_export(path, base)
    except vhd.VhdError as error:
        return trouble(f"VDI_IO_ERROR: [ {error} ]")

    def send(out: Sink) -> None:
        for piece in plan.chunks():
            out.write(piece)

    return _streaming(engine, request, vdi, plan.size, headers, send)


def _streaming(
    engine: Engine,
    request: Request,
    vdi: Row,
    size: int,
    headers: list[tuple[str, str]],
    send: Callable[[Sink], object],
) -> Response:
    def stream(out: Sink) -> None:
        with _held(engine, request, vdi):
            send(out)
        engine.after_call()

    return Response(content_type="", headers=[*headers, ("content-length", str(size))], stream=stream)
