"""Our gzip is gzip to everybody else; what would not get smaller is stored."""

import gzip
import io
import random
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenapi_host.plugins.celltree_gzip import Gzip
from xenapi_host.plugins.celltree_tar import Gunzip

KIB = 1024
NOISE, TEXT = random.Random(1).randbytes(600 * KIB), b"the same again and again " * (24 * KIB)


def packed(data: bytes, level: int = 6, at_once: int = 10 * KIB) -> bytes:
    stream = io.BytesIO()
    writing = Gzip(stream, level)
    for start in range(0, len(data), at_once):
        assert writing.write(data[start : start + at_once]) == len(data[start : start + at_once])
    writing.close()
    return stream.getvalue()


@given(
    parts=st.lists(st.tuples(st.sampled_from([NOISE, TEXT, bytes(300 * KIB)]), st.integers(0, 300 * KIB)), max_size=5),
    level=st.integers(0, 9),
)
def test_whatever_is_packed_comes_out_as_it_went_in(parts: list[tuple[bytes, int]], level: int) -> None:
    data = b"".join(part[:length] for part, length in parts)
    assert gzip.decompress(packed(data, level)) == data
    unpacking = Gunzip(io.BytesIO(packed(data, level)), len(data))
    assert unpacking.read(len(data) + 1) == data


@pytest.mark.parametrize(
    ("data", "least", "most"), [(NOISE, 1.0, 1.001), (TEXT, 0.0, 0.02)], ids=["noise is stored", "text is packed"]
)
def test_only_what_gets_smaller_is_packed(data: bytes, least: float, most: float) -> None:
    assert least < len(packed(data)) / len(data) < most


def test_gzip_and_tar_of_the_host_read_it(tmp_path: Path) -> None:
    archive = tmp_path / "image.tar.gz"
    with archive.open("wb") as stream:
        writing = Gzip(stream, 1)
        with tarfile.open(fileobj=writing, mode="w|", format=tarfile.GNU_FORMAT) as tar:
            for name, data in (("0.vhd", NOISE + TEXT), ("1.vhd", TEXT + NOISE)):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        writing.close()
    subprocess.run(["gzip", "--test", str(archive)], check=True)
    listed = subprocess.run(
        ["tar", "--list", "--gzip", "--file", str(archive)], check=True, capture_output=True, text=True
    )
    assert listed.stdout.split() == ["0.vhd", "1.vhd"]
    with tarfile.open(archive, mode="r|gz") as tar:
        assert [file.read() for member in tar if (file := tar.extractfile(member))] == [NOISE + TEXT, TEXT + NOISE]
