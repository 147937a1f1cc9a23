"""Incremental backup end to end: REST at the top, a leaf below, the full simulator with the real plugin, images over
HTTP. What is restored is byte for byte what the server's disk was."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from cells.cli.demo_tree import DemoTree
from cells.model import BackupMark
from tests.support.full_tree import MIB, Rest, a_full_tree, an_image_file, until
from xenapi_host import tags, vhd


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[DemoTree]:
    (tmp_path / "tree").mkdir()
    with a_full_tree(tmp_path / "tree") as tree:
        yield tree


def test_incremental_backup_asked_over_rest_is_restored_byte_for_byte(tree: DemoTree, tmp_path: Path) -> None:
    tenant = Rest(endpoint=tree.endpoint)
    server = tenant.built("web", _uploaded(tree, an_image_file(tmp_path)))
    _write(tree, server, 40 * MIB, b"before the first" * 1000)
    first = _backed_up(tree, tenant, server, "first")
    _write(tree, server, 41 * MIB, b"after the first" * 1000)
    held = _bytes_of(tree, server)
    second = _backed_up(tree, tenant, server, "second")
    _write(tree, server, 42 * MIB, b"after the second" * 1000)

    full, incremental = _image(tree, first), _image(tree, second)
    assert BackupMark.PARENT not in full or not full[BackupMark.PARENT]
    assert (incremental[BackupMark.KIND], incremental[BackupMark.PARENT]) == ("incremental", first)
    restored = tenant.built("restored", second)
    assert _bytes_of(tree, restored) == held
    assert _bytes_of(tree, server) != held


def _uploaded(tree: DemoTree, path: Path) -> str:
    url = f"{tree.endpoint}/image/v2/images"
    wish = {"name": "demo-linux", "disk_format": "vhd", "container_format": "ovf"}
    image = str(requests.post(url, json=wish, timeout=60).json()["id"])
    headers = {"Content-Type": "application/octet-stream"}
    requests.put(f"{url}/{image}/file", data=path.read_bytes(), headers=headers, timeout=60).raise_for_status()
    return image


def _backed_up(tree: DemoTree, tenant: Rest, server: str, name: str) -> str:
    wish = {"name": name, "backup_type": "daily", "rotation": 5, "metadata": {"incremental": "true"}}
    image = str(tenant.act(server, "createBackup", wish)["image_id"])
    until(f"backup {name} is active", lambda: _image(tree, image)["status"] == "active")
    idle = "OS-EXT-STS:task_state"
    until("the server is idle", lambda: tenant.ask("GET", f"/servers/{server}")["server"][idle] is None)
    return image


def _image(tree: DemoTree, image: str) -> dict[str, str]:
    return dict(requests.get(f"{tree.endpoint}/image/v2/images/{image}", timeout=60).json())


def _disk(tree: DemoTree, server: str) -> Path:
    """The file of the server's root disk, once storage has done with it; no guest of the simulator has it open."""
    pool = tree.pools["dfw-1"]
    pool.settle()
    name = f"{tags.vm_name(_id(server))} root"
    with pool.engine.lock:
        (uuid,) = [
            vdi["uuid"] for vdi in pool.engine.db.all("VDI") if vdi["name_label"] == name and not vdi["is_a_snapshot"]
        ]
    (file,) = pool.data.rglob(f"{uuid}.vhd")
    return Path(file)


def _id(server: str) -> bytes:
    return bytes.fromhex(server.replace("-", ""))


def _write(tree: DemoTree, server: str, offset: int, data: bytes) -> None:
    with vhd.Disk.open(_disk(tree, server), writable=True) as disk:
        disk.pwrite(offset, data)


def _bytes_of(tree: DemoTree, server: str) -> bytes:
    """What the disk holds at its places of interest: the first 64 MiB and the last 2."""
    with vhd.Disk.open(_disk(tree, server)) as disk:
        return disk.pread(0, 64 * MIB) + disk.pread(disk.size - 2 * MIB, 2 * MIB)
