"""How fast VHD files are read and written, beside `qemu-img convert` on the same file in the same run. Wall and CPU
times, so that ratios hold on a busy machine; a plain copy of the bytes is the calibration. The last rows show a 10 GiB
disk that is nearly all hole: made, snapshotted and exported without its holes being read."""

import io
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rig.report import Report, options
from xenapi_host import vhd

MIB = 2**20
_SHAPE = "files"


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds by the clock, and of CPU in this process and the programs it ran."""

    wall: float
    cpu: float


def main(words: Sequence[str] | None = None) -> None:
    parser = options("vhd", words, __doc__ or "")
    parser.add_argument("--mib", type=int, default=1024, help="size of the disk; half of it holds data")
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many runs counts")
    asked = parser.parse_args(words)
    size, rounds = (32 * MIB, 1) if asked.quick else (asked.mib * MIB, asked.rounds)
    report = Report("vhd")
    with tempfile.TemporaryDirectory(prefix="celltree-bench-") as name:
        folder = Path(name)
        raw = folder / "raw"
        data = _make_disk(raw, size)
        copied = _best(rounds, lambda: shutil.copyfile(raw, folder / "copy"), folder / "copy")
        report.calibration(_SHAPE, {"copy_mib_s": round(size / MIB / copied.wall), "data_mib": data // MIB})
        _beside_qemu(report, folder, raw, data, rounds)
        _alone(report, folder, raw, data, rounds)
        _sparse(report, folder)
    report.table()


def _make_disk(path: Path, size: int) -> int:
    """A sparse file, every second piece of 4 MiB of it data that does not compress; returns the bytes of data."""
    piece, data = 4 * MIB, 0
    chance = random.Random(1)
    with open(path, "wb") as file:
        for offset in range(0, size, 2 * piece):
            file.seek(offset)
            data += file.write(chance.randbytes(min(piece, size - offset)))
        file.truncate(size)
    return data


def _beside_qemu(report: Report, folder: Path, raw: Path, data: int, rounds: int) -> None:
    ours, theirs, back = folder / "ours.vhd", folder / "qemu.vhd", folder / "back"
    write = ("-f", "raw", "-O", "vpc", "-o", "subformat=dynamic,force_size=on")
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object], Path, Path]] = {
        "raw file to dynamic VHD": (
            lambda: vhd.import_raw_file(raw, ours),
            lambda: _qemu(*write, raw, theirs),
            ours,
            theirs,
        ),
        "dynamic VHD to raw file": (
            lambda: vhd.export_raw_file(ours, back),
            lambda: _qemu("-f", "vpc", "-O", "raw", ours, back),
            back,
            back,
        ),
    }
    for what, (mine, qemu, made, made_by_qemu) in pairs.items():
        here = _best(rounds, mine, made)
        there = _best(rounds, qemu, made_by_qemu) if shutil.which("qemu-img") else None
        report.figures(
            _SHAPE,
            what=what,
            data_mib=data // MIB,
            mib_s=data / MIB / here.wall,
            cpu_s=here.cpu,
            **_ratios(here, there, data),
        )


def _ratios(here: Took, there: Took | None, data: int) -> dict[str, float]:
    if there is None:
        return {}
    return {
        "qemu_mib_s": data / MIB / there.wall,
        "qemu_cpu_s": there.cpu,
        "wall_to_qemu": here.wall / there.wall,
        "cpu_to_qemu": here.cpu / there.cpu,
    }


def _qemu(*words: str | Path) -> None:
    subprocess.run(["qemu-img", "convert", *map(str, words)], check=True)


def _alone(report: Report, folder: Path, raw: Path, data: int, rounds: int) -> None:
    """What qemu-img cannot do: chains, differences, and the archive that Glance holds."""
    base, leaf = folder / "base.vhd", folder / "leaf.vhd"
    vhd.import_raw_file(raw, base)
    vhd.create_child(leaf, base)
    changed = 0
    with vhd.Disk.open(leaf, writable=True) as disk:
        for offset in range(0, disk.size, 16 * MIB):
            disk.pwrite(offset, os.urandom(MIB))
            changed += MIB
    archive, unpacked = folder / "image.tar.gz", folder / "unpacked"

    def fresh_folder() -> Path:
        shutil.rmtree(unpacked, ignore_errors=True)
        unpacked.mkdir()
        return unpacked

    def pack() -> None:
        with open(archive, "wb") as stream:
            vhd.write_image(leaf, stream, compression=1)

    def unpack() -> None:
        with open(archive, "rb") as stream:
            vhd.read_image(stream, fresh_folder())

    def difference() -> None:
        with open(folder / "difference", "wb") as stream:
            for chunk in vhd.plan_export(leaf, base).chunks():
                stream.write(chunk)

    for what, do, moved in (
        ("chain of two read", lambda: _read_all(leaf), data),
        ("difference to its base exported", difference, changed),
        ("image packed (tar.gz, level 1)", pack, data + changed),
        ("image unpacked and checked", unpack, data + changed),
    ):
        took = _best(rounds, do)
        report.figures(_SHAPE, what=what, data_mib=moved // MIB, mib_s=moved / MIB / took.wall, cpu_s=took.cpu)


def _read_all(leaf: Path) -> None:
    with vhd.Disk.open(leaf) as disk:
        for start, length in disk.allocated():
            for step in range(0, length, 2 * MIB):
                disk.pread(start + step, min(2 * MIB, length - step))


def _sparse(report: Report, folder: Path) -> None:
    base, leaf, size = folder / "sparse.vhd", folder / "sparse-leaf.vhd", 10 * 1024 * MIB

    def make() -> None:
        vhd.create_dynamic(base, size)
        with vhd.Disk.open(base, writable=True) as disk:
            for gib in range(10):
                disk.pwrite(gib * 1024 * MIB, os.urandom(MIB))
        vhd.create_child(leaf, base)

    def export() -> None:
        stream = io.BytesIO()
        for chunk in vhd.plan_export(leaf).chunks():
            stream.write(chunk)
        written.append(stream.tell())

    written: list[int] = []
    for what, do in (("10 GiB sparse made and snapshotted", make), ("10 GiB sparse exported as VHD", export)):
        before = _bytes_read()
        took = _best(1, do)
        report.figures(
            _SHAPE,
            what=what,
            data_mib=10,
            wall_s=took.wall,
            cpu_s=took.cpu,
            read_mib=(_bytes_read() - before) / MIB,
            written_mib=sum(written) / MIB,
        )


def _bytes_read() -> int:
    """Bytes this process has asked the system to read so far."""
    counters = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counters["rchar"])


def _best(rounds: int, do: Callable[[], object], made: Path | None = None) -> Took:
    best: Took | None = None
    for _ in range(rounds):
        if made is not None:
            made.unlink(missing_ok=True)
        wall, cpu = time.perf_counter(), _cpu()
        do()
        took = Took(time.perf_counter() - wall, _cpu() - cpu)
        best = took if best is None or took.wall < best.wall else best
    assert best is not None
    return best


def _cpu() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    main(sys.argv[1:])
