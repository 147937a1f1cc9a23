"""The image plugin uploads a chain as Glance holds it."""

import hashlib
import io
import shutil
from pathlib import Path

import pytest

from tests.support.vhd_files import libvhdi_read
from tests.xenserver.dom0 import TOKEN, UUIDS, Dom0, PluginFailure, in_sr
from tests.xenserver.glance_twin import Glance, Image
from xenapi_host import vhd


def store(dom0: Dom0, chain: tuple[Path, ...]) -> None:
    """Bring a chain into the SR under our uuids."""
    for number in reversed(range(len(chain))):
        shutil.copy(chain[number], in_sr(dom0, number))
        if number + 1 < len(chain):
            vhd.set_parent(in_sr(dom0, number), in_sr(dom0, number + 1))


def upload(dom0: Dom0, glance: Glance, *uuids: str) -> object:
    return dom0.call(
        "upload",
        url=glance.file_url("new"),
        headers={"X-Auth-Token": TOKEN},
        sr_path=str(dom0.sr),
        chain=list(uuids),
    )


def test_a_chain_is_uploaded_as_glance_holds_it(
    dom0: Dom0, glance: Glance, chain: tuple[Path, ...], tmp_path: Path
) -> None:
    store(dom0, chain)
    before = dom0.tree()
    with vhd.Disk.open(in_sr(dom0, 0), writable=True):
        answer = upload(dom0, glance, *UUIDS[:2])
    taken = glance.taken["new"]
    sent = {"size": len(taken), "checksum": hashlib.md5(taken).hexdigest()}
    assert answer == {**sent, "identity": str(vhd.info(in_sr(dom0, 0)).uuid), "disks": 2}
    assert dom0.tree() == before
    (tmp_path / "received").mkdir()
    assert libvhdi_read(vhd.read_image(io.BytesIO(taken), tmp_path / "received")) == libvhdi_read(chain)


def test_what_was_uploaded_can_be_downloaded(dom0: Dom0, glance: Glance, chain: tuple[Path, ...]) -> None:
    store(dom0, chain)
    upload(dom0, glance, *UUIDS[:2])
    glance.images["new"] = Image(data=glance.taken["new"])
    dom0.download(glance.file_url("new"), uuids=UUIDS[2:])
    assert libvhdi_read((in_sr(dom0, 2), in_sr(dom0, 3))) == libvhdi_read(chain)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, "PermanentError"),
        (404, "PermanentError"),
        (409, "PermanentError"),
        (413, "PermanentError"),
        (500, "RetryableError"),
        (503, "RetryableError"),
        (507, "RetryableError"),
    ],
)
def test_a_failed_upload_tells_whether_to_try_again(
    dom0: Dom0, glance: Glance, chain: tuple[Path, ...], status: int, kind: str
) -> None:
    store(dom0, chain)
    glance.upload_status = status
    with pytest.raises(PluginFailure) as caught:
        upload(dom0, glance, *UUIDS[:2])
    assert caught.value.args[1:3] == ("upload", kind)


def test_an_incomplete_or_unknown_chain_is_not_sent(dom0: Dom0, glance: Glance, chain: tuple[Path, ...]) -> None:
    store(dom0, chain)
    for uuids in ([UUIDS[0]], [UUIDS[1], UUIDS[0]], [UUIDS[9]]):
        with pytest.raises(PluginFailure, match="PermanentError"):
            upload(dom0, glance, *uuids)
    assert glance.requests == []
