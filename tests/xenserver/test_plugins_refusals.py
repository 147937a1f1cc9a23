"""Downloads that fail: whether to try again, what is refused, and that nothing of it is left in the SR."""

import shutil
import signal
import tarfile
from pathlib import Path

import pytest

from tests.xenserver.dom0 import MIB, UUIDS, Dom0, PluginFailure, image_of, in_sr, member, packed
from tests.xenserver.glance_twin import Glance, Image, serve_glance
from xenapi_host import vhd


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (204, "PermanentError"),
        (302, "PermanentError"),
        (400, "PermanentError"),
        (401, "PermanentError"),
        (404, "PermanentError"),
        (408, "RetryableError"),
        (500, "RetryableError"),
        (503, "RetryableError"),
    ],
)
def test_a_status_tells_whether_to_try_again(dom0: Dom0, glance: Glance, status: int, kind: str) -> None:
    glance.images["one"] = Image(status=status)
    assert dom0.refusal(glance.file_url("one"))[0] == kind


def test_a_missing_image_is_named_so(dom0: Dom0, glance: Glance) -> None:
    assert "ImageNotFound" in dom0.refusal(glance.file_url("none"))[1]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_stream_that_breaks_off_may_be_retried(
    dom0: Dom0, glance: Glance, chain: tuple[Path, ...], chunked: bool
) -> None:
    data = image_of(chain[0])
    glance.images["one"] = Image(data=data, cut_after=len(data) // 2, chunked=chunked)
    assert dom0.refusal(glance.file_url("one"))[0] == "RetryableError"


def test_a_host_that_does_not_answer_may_be_retried(dom0: Dom0) -> None:
    with serve_glance() as gone:
        url = gone.file_url("one")
    assert dom0.refusal(url)[0] == "RetryableError"


def test_a_server_that_falls_silent_may_be_retried(dom0: Dom0, glance: Glance, chain: tuple[Path, ...]) -> None:
    glance.images["one"] = Image(data=image_of(chain[0]), stall_after=100_000)
    kind, text = dom0.refusal(glance.file_url("one"), timeout=1)
    assert (kind, "timed out" in text) == ("RetryableError", True)


def test_a_run_that_is_ended_clears_its_staging(dom0: Dom0, glance: Glance, chain: tuple[Path, ...]) -> None:
    glance.images["one"] = Image(data=image_of(chain[0]), stall_after=1_000_000)
    with dom0.start("download", **dom0.params(glance.file_url("one"))) as running:
        try:
            assert glance.stalled.wait(60)
            # A second run for the same disk keeps off while the first holds the staging folder.
            with pytest.raises(PluginFailure, match="another run"):
                dom0.download(glance.file_url("one"))
            running.terminate()
            said, _ = running.communicate(timeout=60)
        finally:
            running.kill()
    assert running.returncode == 128 + signal.SIGTERM
    assert said == ""
    assert list(dom0.sr.iterdir()) == []


def test_a_wrong_checksum_from_either_side_is_refused(dom0: Dom0, glance: Glance, chain: tuple[Path, ...]) -> None:
    glance.images["one"] = Image(data=image_of(chain[0]))
    glance.images["two"] = Image(data=image_of(chain[0]), checksum="0" * 32)
    assert "checksum" in dom0.refusal(glance.file_url("one"), checksum="f" * 32)[1]
    assert "checksum" in dom0.refusal(glance.file_url("two"))[1]


def test_an_image_cut_before_its_upload_is_permanent(dom0: Dom0, glance: Glance, chain: tuple[Path, ...]) -> None:
    glance.images["one"] = Image(data=image_of(chain[0])[:-300])
    kind, text = dom0.refusal(glance.file_url("one"))
    assert (kind, "cut short" in text) == ("PermanentError", True)


@pytest.mark.parametrize("name", ["../x.vhd", "../0.vhd", "/etc/0.vhd", "sub/0.vhd", "snap.vhd", "0.vhd/../1.vhd", ""])
def test_a_hostile_name_is_refused(dom0: Dom0, glance: Glance, chain: tuple[Path, ...], name: str) -> None:
    glance.images["one"] = Image(data=packed(member(name, chain[1].read_bytes())))
    kind, text = dom0.refusal(glance.file_url("one"))
    assert (kind, "only the names" in text) == ("PermanentError", True)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_links_devices_and_folders_are_refused(dom0: Dom0, glance: Glance, kind: bytes) -> None:
    glance.images["one"] = Image(data=packed(member("0.vhd", kind=kind, link="../../plugins/celltree_vhd.py")))
    assert "only regular files" in dom0.refusal(glance.file_url("one"))[1]


def test_a_parent_elsewhere_is_neither_read_nor_taken(dom0: Dom0, glance: Glance, chain: tuple[Path, ...]) -> None:
    shutil.copy(chain[1], dom0.sr / "origin-base.vhd")
    glance.images["one"] = Image(data=packed(member("0.vhd", chain[0].read_bytes())))
    assert "its parent is not in the image" in dom0.refusal(glance.file_url("one"))[1]


def test_disks_that_are_each_others_parents_are_refused(dom0: Dom0, glance: Glance, chain: tuple[Path, ...]) -> None:
    leaf = chain[0].read_bytes()
    vhd.set_uuid(chain[0], vhd.info(chain[1]).uuid)
    glance.images["one"] = Image(data=packed(member("0.vhd", leaf), member("1.vhd", chain[0].read_bytes())))
    assert "its parent is not in the image" in dom0.refusal(glance.file_url("one"))[1]


def test_disks_in_the_wrong_order_are_refused(dom0: Dom0, glance: Glance, chain: tuple[Path, ...]) -> None:
    vhd.set_hidden(chain[1], False)
    members = member("0.vhd", chain[1].read_bytes()), member("1.vhd", chain[0].read_bytes())
    glance.images["one"] = Image(data=packed(*members))
    assert "0.vhd: is no differencing disk" in dom0.refusal(glance.file_url("one"))[1]


def test_a_gap_or_a_double_is_refused(dom0: Dom0, glance: Glance, chain: tuple[Path, ...]) -> None:
    data = chain[1].read_bytes()
    glance.images["gap"] = Image(data=packed(member("1.vhd", data)))
    glance.images["double"] = Image(data=packed(member("0.vhd", data), member("0.vhd", data)))
    assert "gap" in dom0.refusal(glance.file_url("gap"))[1]
    assert "twice" in dom0.refusal(glance.file_url("double"))[1]


def test_more_files_than_uuids_are_refused(dom0: Dom0, glance: Glance, chain: tuple[Path, ...]) -> None:
    glance.images["one"] = Image(data=image_of(chain[0]))
    assert "more than 1 files" in dom0.refusal(glance.file_url("one"), uuids=UUIDS[:1])[1]


def test_a_bomb_is_stopped(dom0: Dom0, glance: Glance) -> None:
    glance.images["one"] = Image(data=packed(member("0.vhd", bytes(48 * MIB))))
    assert "more than the" in dom0.refusal(glance.file_url("one"), max_bytes=8 * MIB)[1]
    assert "for the size allowed" in dom0.refusal(glance.file_url("one"), max_virtual_size=8 * MIB)[1]


def test_an_image_larger_than_allowed_is_not_even_begun(dom0: Dom0, glance: Glance, chain: tuple[Path, ...]) -> None:
    glance.images["one"] = Image(data=image_of(chain[0]))
    assert "over the 1000 allowed" in dom0.refusal(glance.file_url("one"), max_bytes=1000)[1]


def test_a_disk_over_the_size_allowed_is_refused(dom0: Dom0, glance: Glance, chain: tuple[Path, ...]) -> None:
    glance.images["one"] = Image(data=image_of(chain[0]))
    assert "a disk of" in dom0.refusal(glance.file_url("one"), max_virtual_size=5 * MIB)[1]
    glance.images["raw"] = Image(data=b"x" * 100_000)
    assert "allowed" in dom0.refusal(glance.file_url("raw"), format="raw", max_virtual_size=50_000)[1]


@pytest.mark.parametrize(
    ("offset", "data"),
    [
        (-512 + 48, b"\0\0\0\x7f"),
        (-512, b"X"),
        (512 + 28, b"\xff\xff"),
        (20, b"!"),
        (1536, b"\0\0\0\1"),
        (1536, b"\x7f\0\0\0"),
    ],
)
def test_a_lying_disk_is_refused(dom0: Dom0, glance: Glance, chain: tuple[Path, ...], offset: int, data: bytes) -> None:
    raw = bytearray(chain[1].read_bytes())
    start = offset % len(raw)
    raw[start : start + len(data)] = data
    glance.images["one"] = Image(data=packed(member("0.vhd", bytes(raw))))
    kind, text = dom0.refusal(glance.file_url("one"))
    assert (kind, text.startswith("image refused: 0.vhd: ")) == ("PermanentError", True)


def test_a_hidden_leaf_is_refused(dom0: Dom0, glance: Glance, chain: tuple[Path, ...]) -> None:
    vhd.set_hidden(chain[0], True)
    glance.images["one"] = Image(data=image_of(chain[0]))
    assert "hidden" in dom0.refusal(glance.file_url("one"))[1]


def test_a_disk_of_another_is_not_replaced(dom0: Dom0, glance: Glance, chain: tuple[Path, ...]) -> None:
    glance.images["one"] = Image(data=image_of(chain[0]))
    vhd.create_dynamic(in_sr(dom0, 1), MIB)
    assert "another disk has the name" in dom0.refusal(glance.file_url("one"))[1]


def test_a_staging_place_that_is_a_link_is_refused(dom0: Dom0, glance: Glance, chain: tuple[Path, ...]) -> None:
    glance.images["one"] = Image(data=image_of(chain[0]))
    (dom0.root / "elsewhere").mkdir()
    (dom0.sr / f".celltree-staging-{UUIDS[0]}").symlink_to(dom0.root / "elsewhere")
    assert "is not a folder" in dom0.refusal(glance.file_url("one"))[1]


def test_vhd_util_failing_leaves_nothing(dom0: Dom0, glance: Glance, chain: tuple[Path, ...]) -> None:
    glance.images["one"] = Image(data=image_of(chain[0]))
    (dom0.root / "bin" / "vhd-util").write_text("#!/bin/sh\necho out of order\nexit 5\n")
    assert dom0.refusal(glance.file_url("one")) == ("PermanentError", "vhd-util modify failed: out of order")


@pytest.mark.parametrize(
    "wrong",
    [
        {"sr_path": "relative"},
        {"sr_path": "/nonexistent/sr"},
        {"uuids": []},
        {"uuids": ["../../etc/passwd"]},
        {"uuids": [UUIDS[0], UUIDS[0]]},
        {"url": "file:///etc/passwd"},
        {"url": "http://127.0.0.1:1/a b"},
        {"headers": {"X-Auth-Token": "a\r\nHost: b"}},
        {"max_bytes": -1},
        {"format": "qcow2"},
    ],
)
def test_wrong_parameters_are_permanent(dom0: Dom0, glance: Glance, wrong: dict[str, object]) -> None:
    url = str(wrong.get("url", glance.file_url("one")))
    others = {name: value for name, value in wrong.items() if name != "url"}
    assert dom0.refusal(url, **others)[0] == "PermanentError"
    assert glance.requests == []
