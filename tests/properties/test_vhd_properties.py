"""Random writes over random chains, held against plain bytes and against libvhdi."""

import io
import tempfile
from pathlib import Path

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
