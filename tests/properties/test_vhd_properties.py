"""Random writes over random chains, held against plain bytes and against libvhdi; and writers that die half-way."""

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.vhd_files import libvhdi_read
from xenapi_host import vhd

SIZE = 3 * 2 * 1024**2 + 512 * 5
LIMITED = settings(max_examples=25, deadline=None)

offsets = st.one_of(
    st.integers(0, SIZE - 1), st.integers(0, 12).map(lambda number: number * 512 * 1024 + number % 3 * 511)
)
writes = st.tuples(st.just("write"), offsets, st.integers(1, 3 * 1024**2), st.integers(0, 255))
steps = st.lists(
    st.one_of(
        writes,
        writes,
        st.tuples(st.just("snapshot"), st.just(0), st.just(0), st.just(0)),
        st.tuples(st.just("coalesce"), st.just(0), st.just(0), st.just(0)),
        st.tuples(st.just("grow"), st.just(0), st.integers(1, 9), st.just(0)),
    ),
    min_size=1,
    max_size=14,
)


def run(folder: Path, taken: list[tuple[str, int, int, int]]) -> tuple[list[Path], bytearray]:
    """Do the steps on files and on bytes; the chain leaf first, and the bytes."""
    chain, twin = [folder / "0.vhd"], bytearray(SIZE)
    vhd.create_dynamic(chain[0], SIZE)
    for number, (step, offset, length, value) in enumerate(taken, 1):
        if step == "write":
            data = bytes([value]) * min(length, len(twin) - offset)
            with vhd.Disk.open(chain[0], writable=True) as disk:
                disk.pwrite(offset, data)
            twin[offset : offset + len(data)] = data
        elif step == "snapshot":
            child = folder / f"{number}.vhd"
            vhd.create_child(child, chain[0])
            chain.insert(0, child)
        elif step == "grow":
            twin += bytes(length * 512)
            vhd.resize(chain[0], len(twin))
        elif step == "coalesce" and len(chain) > 2:
            middle = chain.pop(1)
            vhd.coalesce(middle)
            vhd.set_parent(chain[0], chain[1])
            middle.unlink()
    return chain, twin


@LIMITED
@given(steps)
def test_a_chain_reads_as_the_bytes_written(taken: list[tuple[str, int, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        chain, twin = run(Path(folder), taken)
        vhd.check_chain(chain[0])
        with vhd.Disk.open(chain[0]) as disk:
            assert disk.pread(0, disk.size) == twin
            held = list(disk.allocated())
        covered = bytearray(len(twin))
        for start, length in held:
            covered[start : start + length] = twin[start : start + length]
        assert covered == twin
        # libvhdi takes the original size for the disk's, so it cannot read chains that have grown.
        if len(twin) == SIZE:
            assert libvhdi_read(chain) == twin


@LIMITED
@given(steps, st.integers(0, SIZE - 1), st.integers(0, 3 * 1024**2))
def test_any_piece_reads_as_it_does_within_the_whole(
    taken: list[tuple[str, int, int, int]], offset: int, length: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        chain, twin = run(Path(folder), taken)
        with vhd.Disk.open(chain[0]) as disk:
            assert disk.pread(offset, length) == twin[offset : offset + length]


@LIMITED
@given(steps, st.data())
def test_a_difference_laid_over_any_ancestor_gives_the_leaf(
    taken: list[tuple[str, int, int, int]], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        chain, twin = run(Path(folder), taken)
        base = data.draw(st.sampled_from(chain))
        stream = io.BytesIO(b"".join(vhd.plan_export(chain[0], base).chunks()))
        copy = Path(folder) / "copy.vhd"
        copy.write_bytes(b"".join(vhd.plan_export(base).chunks()))
        vhd.check(copy)
        vhd.resize(copy, len(twin))
        with vhd.Disk.open(copy, writable=True) as disk:
            vhd.apply_stream(stream, disk)
            assert disk.pread(0, disk.size) == twin


@LIMITED
@given(steps)
def test_the_archive_keeps_every_byte(taken: list[tuple[str, int, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as staging:
        chain, twin = run(Path(folder), taken)
        image = io.BytesIO()
        vhd.write_image(chain[0], image, compression=1)
        image.seek(0)
        paths = vhd.read_image(image, staging)
        with vhd.Disk.open(paths[0]) as disk:
            assert disk.pread(0, disk.size) == twin


class Died(BaseException):
    """The process ends here: nothing catches it, nothing is written any more."""


@contextlib.contextmanager
def dying_after(writes: int) -> Iterator[None]:
    """Let so many writes to files through, half of the next one, and none after it."""
    left = writes
    real = os.pwrite

    def pwrite(fd: int, data: memoryview, position: int) -> int:
        nonlocal left
        left -= 1
        if left < 0:
            if left == -1 and len(data) > 4096:
                real(fd, data[: len(data) // 2], position)
            raise Died
        return real(fd, data, position)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        yield


CHANGES: dict[str, Callable[[Path], object]] = {
    "grow a little": lambda path: vhd.resize(path, SIZE + 512),
    "grow beyond the tables": lambda path: vhd.resize(path, SIZE + 1024**4),
    "hide": lambda path: vhd.set_hidden(path, True),
    "coalesce": vhd.coalesce,
}


@settings(LIMITED, max_examples=60)
@given(
    st.integers(0, 12),
    st.lists(
        st.tuples(st.integers(0, 3_100_000), st.sampled_from([1, 4096, 70_000, 2_500_000])), min_size=1, max_size=4
    ),
    st.sampled_from(sorted(CHANGES)),
)
def test_a_writer_that_dies_at_any_write_loses_nothing_finished(
    writes: int, pieces: list[tuple[int, int]], change: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        base, leaf = Path(folder) / "base.vhd", Path(folder) / "leaf.vhd"
        vhd.create_dynamic(base, SIZE)
        with vhd.Disk.open(base, writable=True) as disk:
            disk.pwrite(1000, b"B" * 3_000_000)
        vhd.create_child(leaf, base)
        twin = bytearray(SIZE)
        twin[1000 : 1000 + 3_000_000] = b"B" * 3_000_000
        torn = range(0)
        with contextlib.suppress(Died), dying_after(writes), vhd.Disk.open(leaf, writable=True) as disk:
            for offset, length in pieces:
                torn = range(offset, min(offset + length, SIZE))
                disk.pwrite(offset, b"L" * len(torn))
                twin[torn.start : torn.stop] = b"L" * len(torn)
                torn = range(0)
        with contextlib.suppress(Died), dying_after(writes % 7):
            CHANGES[change](leaf)
        vhd.repair(leaf)
        vhd.repair(base)
        vhd.check_chain(leaf)
        with vhd.Disk.open(leaf) as disk:
            seen = disk.pread(0, SIZE)
        assert seen[: torn.start] == twin[: torn.start]
        assert seen[torn.stop :] == twin[torn.stop :]
        piece, before = (np.frombuffer(part[torn.start : torn.stop], np.uint8) for part in (seen, bytes(twin)))
        assert ((piece == ord("L")) | (piece == before)).all()
