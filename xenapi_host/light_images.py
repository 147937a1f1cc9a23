"""Stand-ins for the image and disk plugins on light hosts, where disks have sizes but no bytes.

`give_images(pool)` lets builds and snapshots work on a LightPool with the calls and answers that a real pool has.
"""

import json
from collections.abc import Callable
from typing import Any

from xenapi_host.driver.classic import PLUGIN as CLASSIC_PLUGIN
from xenapi_host.driver.dom0 import PLUGIN as DISK_PLUGIN
from xenapi_host.driver.images import PLUGIN
from xenapi_host.facts import GIB
from xenapi_host.light_dom0 import LightGuests, give_dom0
from xenapi_host.simulator.call import Call
from xenapi_host.simulator.database import Row
from xenapi_host.simulator.failure import Failure
from xenapi_host.simulator.light import LightPool
from xenapi_host.simulator.storage import NoRoom


def _taken(url: str) -> int:
    return 204


def give_images(pool: LightPool, *, virtual_size: int = GIB, uploaded: Callable[[str], int] = _taken) -> LightGuests:
    """Let every image exist, with one disk of `virtual_size` bytes, every upload be taken unless `uploaded` (told its
    address) answers with another status than an image service's 204, and the other plugins be there; what guests are
    told is in the answer."""

    def download(call: Call, host: Row, args: dict[str, str]) -> str:
        params = json.loads(args["params"])
        storage, uuid = _storage(params), params["uuids"][0]
        try:
            call.engine.storage.disk(storage, uuid)
        except KeyError:
            try:
                call.engine.storage.create(storage, uuid, virtual_size)
            except NoRoom:
                raise _failed("download", "no space left in the SR for the image") from None
        return json.dumps([{"uuid": uuid, "virtual_size": virtual_size, "parent": None}])

    def upload(call: Call, host: Row, args: dict[str, str]) -> str:
        params = json.loads(args["params"])
        storage, size = _storage(params), 0
        base = params.get("base", {}).get("chain", ())
        if base and not set(base) & set(params["chain"][1:]):
            raise _failed("upload", "no base: the base shares nothing with the disk any more")
        for uuid in params["chain"]:
            try:
                size += call.engine.storage.disk(storage, uuid).physical_size
            except KeyError:
                raise _failed("upload", f"{uuid}.vhd is not in the SR; read the chain again") from None
        if (status := uploaded(params["url"])) != 204:
            gone = "ImageNotFound: Glance has no such image for the upload"
            raise _failed("upload", gone if status == 404 else f"Glance refused the upload with status {status}")
        disks = 1 if base else len(params["chain"])
        return json.dumps({"size": size, "checksum": "0" * 32, "identity": params["chain"][0], "disks": disks})

    pool.twin(PLUGIN, "download", download)
    pool.twin(PLUGIN, "sweep", lambda call, host, args: "0")
    pool.twin(PLUGIN, "upload", upload)
    _give_disk_work(pool)
    return give_dom0(pool)


def _give_disk_work(pool: LightPool) -> None:
    """Let every disk be one that auto-disk-config understands, and every other piece of work on a disk succeed."""

    def resized(call: Call, host: Row, args: dict[str, str]) -> str:
        size = json.loads(args["params"]).get("size", 0)
        return json.dumps({"done": True, "reason": "", "size": size})

    for function in ("grow", "shrink"):
        pool.twin(DISK_PLUGIN, function, resized)
    pool.twin(DISK_PLUGIN, "copy", lambda call, host, args: json.dumps({"copied": 0}))
    pool.twin(DISK_PLUGIN, "make", lambda call, host, args: json.dumps({"made": True}))
    pool.twin(DISK_PLUGIN, "write", lambda call, host, args: json.dumps({"written": 0}))
    pool.twin(CLASSIC_PLUGIN, "format", lambda call, host, args: json.dumps({"made": True}))
    pool.twin(CLASSIC_PLUGIN, "copy", lambda call, host, args: json.dumps({"bytes": 0}))
    pool.twin(CLASSIC_PLUGIN, "extract", lambda call, host, args: json.dumps({"files": 0}))
    pool.twin(CLASSIC_PLUGIN, "tell", lambda call, host, args: json.dumps({"told": ""}))


def _storage(params: dict[str, Any]) -> str:
    """The SR's uuid, the last part of its folder's path."""
    return str(params["sr_path"]).rpartition("/")[2]


def _failed(function: str, text: str) -> Failure:
    return Failure("XENAPI_PLUGIN_FAILURE", function, "PermanentError", text)
