"""Good images with something wrong done to them: bytes of their disks' tables, of the archive, of the compression. Each
is refused in words, or taken as a sound chain; whichever it is, nothing outside the place for it has changed, and
nothing of a neighbour is in it."""

import gzip
import io
import random
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.xenserver.dom0 import UUIDS, Dom0, PluginFailure, fill, image_of
from tests.xenserver.glance_twin import Glance, Image, serve_glance
from xenapi_host import vhd

KIB, MIB = 1024, 1024**2
SECRET = b"a neighbour's secret " * 40
# Where a VHD keeps what may lie: footer copy, header with parent locators, tables; and the footer at the end.
_TABLES = 4 * KIB
# What a plugin may address at all; Python alone takes a tenth of it.
_ADDRESSES = 256 * MIB
quick = settings(
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # What is drawn is small already, and an example takes a process.
)

_words = st.binary(min_size=1, max_size=8) | st.sampled_from(
    [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(8), b"\0\0\0\1", b"\0\0\0\4", b"../../x\0", b"W2ru", b"conectix"]
)
_places = st.integers(0, _TABLES - 1) | st.integers(-KIB, -1)
_in_disks = st.lists(st.tuples(st.integers(0, 1), _places, _words), max_size=4)
_in_tar = st.lists(st.tuples(st.integers(0, 600), _words), max_size=2)
_cuts = st.none() | st.integers(0, 5000)


@dataclass(frozen=True)
class Good:
    """The files of a chain of two, leaf first."""

    files: tuple[bytes, bytes] = field(repr=False)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Good:
    folder = tmp_path_factory.mktemp("good")
    base, leaf = folder / "base.vhd", folder / "leaf.vhd"
    vhd.create_dynamic(base, 4 * MIB)
    fill(base, 0, random.Random(3).randbytes(64 * KIB))
    vhd.set_hidden(base, True)
    vhd.create_child(leaf, base)
    fill(leaf, MIB, b"leaf" * 1024)
    with tarfile.open(fileobj=io.BytesIO(image_of(leaf))) as archive:
        files = [archive.extractfile(f"{number}.vhd") for number in (0, 1)]
        return Good((files[0].read(), files[1].read()))  # type: ignore[union-attr]


def spoiled(good: Good, disks: list[tuple[int, int, bytes]], tar: list[tuple[int, bytes]], cut: int | None) -> bytes:
    """The image with these bytes written over its disks and its archive, cut off so many bytes before its end."""
    files = [bytearray(file) for file in good.files]
    for number, place, data in disks:
        start = place % len(files[number])
        files[number][start : start + len(data)] = data
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for number, file in enumerate(files):
            member = tarfile.TarInfo(f"{number}.vhd")
            member.size = len(file)
            archive.addfile(member, io.BytesIO(bytes(file)))
    raw = bytearray(out.getvalue())
    for place, data in tar:
        raw[place : place + len(data)] = data
    packed = gzip.compress(bytes(raw), 1)
    return packed if cut is None else packed[: max(0, len(packed) - cut)]


@settings(quick, max_examples=60)
@given(disks=_in_disks, tar=_in_tar, cut=_cuts)
def test_a_spoiled_image_is_refused_or_sound(good, disks, tar, cut) -> None:
    with tempfile.TemporaryDirectory() as home:
        staging = Path(home) / "staging"
        staging.mkdir()
        (Path(home) / "neighbour.vhd").write_bytes(SECRET)
        try:
            paths = vhd.read_image(io.BytesIO(spoiled(good, disks, tar, cut)), staging)
        except vhd.ImageRefused as refused:
            assert str(refused) and home not in str(refused)
            assert list(staging.iterdir()) == []
        else:
            vhd.check_chain(paths[0])
            with vhd.Disk.open(paths[0]) as disk:
                assert SECRET[:64] not in disk.pread(0, min(disk.size, 8 * MIB))
        assert (Path(home) / "neighbour.vhd").read_bytes() == SECRET
        assert {path.name for path in Path(home).iterdir()} == {"staging", "neighbour.vhd"}


@pytest.fixture(scope="module")
def glance() -> Iterator[Glance]:
    with serve_glance() as served:
        yield served


@settings(quick, max_examples=15)
@given(disks=_in_disks, tar=_in_tar, cut=_cuts)
def test_dom0_refuses_a_spoiled_image_or_makes_a_sound_chain_of_it(dom0, glance, good, disks, tar, cut) -> None:
    neighbour = dom0.sr / "neighbour.vhd"
    neighbour.write_bytes(SECRET)
    glance.images["one"] = Image(data=spoiled(good, disks, tar, cut))
    before = dom0.tree()
    try:
        made = dom0.download(glance.file_url("one"))
    except PluginFailure as failure:
        assert failure.args[:2] == ("XENAPI_PLUGIN_FAILURE", "download")
        assert failure.args[2] in ("PermanentError", "RetryableError")
        assert "Traceback" not in failure.args[3] and str(dom0.root) not in failure.args[3]
        assert dom0.tree() == before
        return
    vhd.check_chain(dom0.sr / f"{UUIDS[0]}.vhd")
    for disk in made:
        path = dom0.sr / f"{disk['uuid']}.vhd"
        assert SECRET[:64] not in path.read_bytes()
        path.unlink()
    assert dom0.tree() == before


@pytest.mark.parametrize(
    ("name", "made"),
    [
        pytest.param("zeros", gzip.compress(bytes(64 * MIB), 9), id="ossa_2013_029-zeros"),
        ("members", None),
        ("long names", None),
        pytest.param("gzip of gzip", gzip.compress(gzip.compress(bytes(64 * MIB), 9), 9), id="ossa_2013_029-twice"),
    ],
)
def test_ossa_2016_012_a_bomb_ends_within_the_memory_of_dom0(
    dom0: Dom0, glance: Glance, name: str, made: bytes
) -> None:
    glance.images["one"] = Image(data=made or _odd_archive(name))
    bounded = replace(dom0, before=("prlimit", f"--as={_ADDRESSES}"))
    kind, _ = bounded.refusal(glance.file_url("one"), max_bytes=8 * MIB)
    assert kind == "PermanentError"


def _odd_archive(name: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        for number in range(20_000 if name == "members" else 1):
            member = tarfile.TarInfo(f"{number}.vhd" if name == "members" else "n" * 4_000_000)
            archive.addfile(member)
    return out.getvalue()


@pytest.mark.parametrize("where", ["http://169.254.169.254/latest", "http://[::1]:1/x", "http://2130706433/x"])
def test_ossa_2026_004_a_redirect_of_an_image_is_not_followed(dom0: Dom0, glance: Glance, where: str) -> None:
    for status in (301, 302, 303, 307, 308):
        glance.images["one"] = Image(status=status, location=where)
        kind, text = dom0.refusal(glance.file_url("one"))
        assert (kind, text) == ("PermanentError", f"Glance refused the download with status {status}")


@pytest.mark.parametrize("liar", [b"QFI\xfb\0\0\0\3" + bytes(504), b"KDMV" + bytes(508), b"conectix" + bytes(504)])
def test_ossa_2016_001_a_raw_image_is_raw_whatever_it_looks_like(dom0: Dom0, glance: Glance, liar: bytes) -> None:
    """Nobody asks the bytes what they are."""
    content = liar + b"/etc/shadow".ljust(512, b"\0")
    glance.images["one"] = Image(data=content)
    (made,) = dom0.download(glance.file_url("one"), format="raw")
    with vhd.Disk.open(dom0.sr / f"{made['uuid']}.vhd") as disk:
        assert disk.pread(0, len(content)) == content


_arguments = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["/", "../x", UUIDS[0], "-1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
_NAMES = (
    "url",
    "headers",
    "sr_path",
    "uuids",
    "chain",
    "base",
    "parents",
    "checksum",
    "format",
    "timeout",
    "properties",
)


@settings(quick, max_examples=15)
@given(
    function=st.sampled_from(["download", "upload", "sweep", "version", "no_such"]),
    given_=st.dictionaries(st.sampled_from(_NAMES), _arguments, max_size=5),
)
def test_arguments_of_any_kind_are_answered_in_xapis_words(
    dom0: Dom0, function: str, given_: dict[str, object]
) -> None:
    """No trace of Python, nothing left behind, nothing written outside."""
    before = dom0.tree()
    sound = {"url": "http://127.0.0.1:9/v2/images/one/file", "headers": {}, "sr_path": str(dom0.sr), "timeout": 1}
    try:
        dom0.call(function, **{**sound, **given_})
    except PluginFailure as failure:
        assert failure.args[0] == "XENAPI_PLUGIN_FAILURE" or function == "no_such", failure.args
        assert "Traceback" not in " ".join(failure.args)
    assert dom0.tree() == before
