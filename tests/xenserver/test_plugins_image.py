"""The image plugin as XenServer runs it: a child process with one XML-RPC argument, against a loopback Glance."""

import ast
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import xmlrpc.client
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

from tests.support.vhd_files import libvhdi_read
from tests.xenserver.glance_twin import Glance, Image, serve_glance
from xenapi_host import vhd
from xenapi_host.plugins import FOLDER, PLUGINS, SCRIPTS

MIB = 1024**2
UUIDS = [str(UUID(int=number, version=4)) for number in range(1, 17)]
TOKEN = "canary-token-5f1c"
REPOSITORY = Path(__file__).parents[2]


class PluginFailure(Exception):
    """The ErrorDescription a plugin answered with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dom0:
    """A host's control domain: its plugin folder, one mounted SR, a PATH with vhd-util. `before`: what runs plugins."""

    root: Path
    before: tuple[str, ...] = ()

    @property
    def sr(self) -> Path:
        return self.root / "sr"

    def start(self, function: str, **params: object) -> subprocess.Popen[str]:
        argument = xmlrpc.client.dumps(("OpaqueRef:session", {"params": json.dumps(params)}), function)
        return subprocess.Popen(
            [
                *self.before,
                sys.executable,
                "-S",
                "-W",
                "error",
                str(self.root / "plugins" / "celltree_image.py"),
                argument,
            ],
            env={"PATH": f"{self.root / 'bin'}:/usr/bin:/bin"},
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, function: str, **params: object) -> object:
        with self.start(function, **params) as running:
            try:
                said, complained = running.communicate(timeout=60)
            finally:
                running.kill()
        assert TOKEN not in said + complained
        assert (running.returncode, complained) == (0, "")
        ((answer,), _) = xmlrpc.client.loads(said)
        assert isinstance(answer, dict)
        if answer["Status"] == "Failure":
            raise PluginFailure(*answer["ErrorDescription"])
        return json.loads(answer["Value"])

    def download(self, url: str, **more: object) -> object:
        return self.call("download", **{**self.params(url), **more})

    def params(self, url: str) -> dict[str, object]:
        return {"url": url, "headers": {"X-Auth-Token": TOKEN}, "sr_path": str(self.sr), "uuids": UUIDS}

    def refusal(self, url: str, **more: object) -> tuple[str, str]:
        """Download and expect a failure that leaves everything under the root as it was; its class and text."""
        before = self.tree()
        with pytest.raises(PluginFailure) as caught:
            self.download(url, **more)
        assert self.tree() == before
        code, function, kind, text = caught.value.args
        assert (code, function) == ("XENAPI_PLUGIN_FAILURE", "download")
        return kind, text

    def tree(self) -> dict[str, tuple[int, int, int]]:
        """Every entry with its inode, size and time of change, folders by their inode only."""
        found = {}
        for path in self.root.rglob("*"):
            stat = path.lstat()
            folder = path.is_dir() and not path.is_symlink()
            found[str(path)] = (stat.st_ino, 0 if folder else stat.st_size, 0 if folder else stat.st_mtime_ns)
        return found


@pytest.fixture
def dom0(tmp_path: Path) -> Dom0:
    return a_dom0(tmp_path / "dom0")


def a_dom0(root: Path) -> Dom0:
    host = Dom0(root=root)
    for name in ("plugins", "bin", "sr"):
        (host.root / name).mkdir(parents=True)
    for script in SCRIPTS:
        shutil.copy(script, host.root / "plugins")
    command = host.root / "bin" / "vhd-util"
    command.write_text(f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} -m xenapi_host.vhd "$@"\n')
    command.chmod(0o755)
    return host


@pytest.fixture
def glance() -> Iterator[Glance]:
    with serve_glance() as served:
        yield served


@pytest.fixture
def chain(tmp_path: Path) -> tuple[Path, ...]:
    """Two layers, leaf first, in a folder of their own."""
    folder = tmp_path / "origin"
    folder.mkdir()
    base, leaf = folder / "origin-base.vhd", folder / "origin-leaf.vhd"
    vhd.create_dynamic(base, 6 * MIB)
    fill(base, 0, random.Random(1).randbytes(3 * MIB))
    vhd.set_hidden(base, True)
    vhd.create_child(leaf, base)
    fill(leaf, MIB, b"leaf" * 1024)
    return leaf, base


def fill(path: Path, offset: int, data: bytes) -> None:
    with vhd.Disk.open(path, writable=True) as disk:
        disk.pwrite(offset, data)


def image_of(leaf: Path) -> bytes:
    out = io.BytesIO()
    vhd.write_image(leaf, out)
    return out.getvalue()


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made, data


def in_sr(dom0: Dom0, number: int) -> Path:
    return dom0.sr / f"{UUIDS[number]}.vhd"


# --- the scripts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_python_3_6_and_import_the_standard_library_only(script: Path) -> None:
    tree = ast.parse(script.read_text(), feature_version=(3, 6))
    own = {path.stem for path in SCRIPTS}
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            top = name.split(".")[0]
            assert top in sys.stdlib_module_names or top in own or name.startswith("xenapi_host.plugins.celltree_")


def test_plugins_are_executable() -> None:
    for name in PLUGINS:
        assert os.access(FOLDER / name, os.X_OK)
        assert (FOLDER / name).read_text().startswith("#!/usr/bin/env python3\n")


def test_version_names_the_functions(dom0: Dom0) -> None:
    assert dom0.call("version") == {"version": "1.1", "functions": ["download", "sweep", "upload", "version"]}


def test_an_unknown_function_is_refused_in_xens_words(dom0: Dom0) -> None:
    with pytest.raises(PluginFailure) as caught:
        dom0.call("format_disk")
    assert caught.value.args == ("UNKNOWN_XENAPI_PLUGIN_FUNCTION", "format_disk")


# --- downloads that work ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
def test_an_image_becomes_a_chain_in_the_sr(dom0: Dom0, glance: Glance, chain: tuple[Path, ...], chunked: bool) -> None:
    data = image_of(chain[0])
    glance.images["one"] = Image(data=data, chunked=chunked)
    answer = dom0.download(glance.file_url("one"), checksum=hashlib.md5(data).hexdigest())
    assert answer == [
        {"uuid": UUIDS[0], "virtual_size": 6 * MIB, "parent": UUIDS[1]},
        {"uuid": UUIDS[1], "virtual_size": 6 * MIB, "parent": None},
    ]
    assert sorted(path.name for path in dom0.sr.iterdir()) == sorted(f"{uuid}.vhd" for uuid in UUIDS[:2])
    vhd.check_chain(in_sr(dom0, 0))
    assert vhd.chain(in_sr(dom0, 0)) == (in_sr(dom0, 0), in_sr(dom0, 1))
    assert libvhdi_read((in_sr(dom0, 0), in_sr(dom0, 1))) == libvhdi_read(chain)
    assert glance.requests == [("GET", "/v2/images/one/file", TOKEN)]


def test_asking_twice_downloads_once(dom0: Dom0, glance: Glance, chain: tuple[Path, ...]) -> None:
    glance.images["one"] = Image(data=image_of(chain[0]))
    first = dom0.download(glance.file_url("one"))
    before = dom0.tree()
    assert dom0.download(glance.file_url("one")) == first
    assert dom0.tree() == before
    assert len(glance.requests) == 1


def test_a_leaf_cloned_since_is_told_as_it_is_now(dom0: Dom0, glance: Glance, chain: tuple[Path, ...]) -> None:
    glance.images["one"] = Image(data=image_of(chain[0]))
    dom0.download(glance.file_url("one"))
    base_copy = in_sr(dom0, 9)
    in_sr(dom0, 0).rename(base_copy)
    vhd.create_child(in_sr(dom0, 0), base_copy)
    assert dom0.download(glance.file_url("one"), uuids=UUIDS[:9]) == [
        {"uuid": UUIDS[0], "virtual_size": 6 * MIB, "parent": UUIDS[9]},
        {"uuid": UUIDS[1], "virtual_size": 6 * MIB, "parent": None},
    ]
    assert len(glance.requests) == 1


def test_what_a_killed_run_left_is_taken_over(dom0: Dom0, glance: Glance, chain: tuple[Path, ...]) -> None:
    glance.images["one"] = Image(data=image_of(chain[0]))
    staging = dom0.sr / f".celltree-staging-{UUIDS[0]}"
    (staging / "folder").mkdir(parents=True)
    (staging / "0.vhd").write_bytes(b"half")
    shutil.copy(chain[1], in_sr(dom0, 1))
    dom0.download(glance.file_url("one"))
    vhd.check_chain(in_sr(dom0, 0))
    assert len(list(dom0.sr.iterdir())) == 2


def test_sweep_removes_abandoned_staging_and_nothing_else(dom0: Dom0) -> None:
    (dom0.sr / f".celltree-staging-{UUIDS[3]}").mkdir()
    (dom0.sr / f".celltree-staging-{UUIDS[3]}" / "0.vhd").write_bytes(b"half")
    (dom0.sr / ".celltree-staging-notes").mkdir()
    in_sr(dom0, 5).write_bytes(b"a disk")
    assert dom0.call("sweep", sr_path=str(dom0.sr)) == 1
    assert {path.name for path in dom0.sr.iterdir()} == {".celltree-staging-notes", f"{UUIDS[5]}.vhd"}


@pytest.mark.parametrize("length", [5 * MIB + 100, 4 * MIB, 1])
def test_a_raw_image_becomes_one_disk(dom0: Dom0, glance: Glance, length: int) -> None:
    raw = (b"\x01head" + bytes(3 * MIB) + b"tail" * MIB)[:length]
    glance.images["raw"] = Image(data=raw)
    size = -(-length // (2 * MIB)) * 2 * MIB
    answer = dom0.download(glance.file_url("raw"), format="raw", uuids=UUIDS[:1])
    assert answer == [{"uuid": UUIDS[0], "virtual_size": size, "parent": None}]
    vhd.check(in_sr(dom0, 0))
    with vhd.Disk.open(in_sr(dom0, 0)) as disk:
        assert disk.pread(0, size) == raw.ljust(size, b"\0") == libvhdi_read((in_sr(dom0, 0),))


def test_a_disk_made_from_raw_can_be_written_and_grown(dom0: Dom0, glance: Glance) -> None:
    glance.images["raw"] = Image(data=bytes(2 * MIB) + b"x" * 2 * MIB)
    dom0.download(glance.file_url("raw"), format="raw", uuids=UUIDS[:1])
    vhd.resize(in_sr(dom0, 0), 600 * MIB)
    fill(in_sr(dom0, 0), 500 * MIB, b"new")
    vhd.check(in_sr(dom0, 0))
    with vhd.Disk.open(in_sr(dom0, 0)) as disk:
        assert disk.pread(2 * MIB - 1, 3) + disk.pread(500 * MIB, 3) == b"\0xxnew"


# --- downloads that fail ----------------------------------------------------------------------------------------------


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


# --- uploads ----------------------------------------------------------------------------------------------------------


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
