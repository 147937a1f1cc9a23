"""What hosts cost. A build, a snapshot and a resize of one image on the full simulator (a process of its own, real VHD
files, real plugin processes): wall time, CPU of the driver and of the pool with its plugins, bytes moved over HTTP and
written by the pool. Then XenAPI calls a second over HTTP, and how many light hosts a GiB of memory holds."""

import gc
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.rig.images import Images, serve
from benchmarks.rig.report import Report, options
from cells.model import BuildSpec, Flavor, ImageRef
from cells.names import id_text
from xenapi_host import driver, vhd
from xenapi_host.plan import BuildPlan, plan_build
from xenapi_host.session import Access, InProcess, Session, connect
from xenapi_host.simulator.light import LightPool
from xenapi_host.simulator.worlds import HostShape

MIB = 2**20
SERVER = bytes(range(16))
HOSTS_A_POOL = 16
_TICKS = os.sysconf("SC_CLK_TCK")


class _Journal:
    """Steps in memory: nobody takes this job over."""

    def __init__(self) -> None:
        self._steps: dict[str, Any] = {}

    def get(self, step: str) -> Any:
        return self._steps.get(step)

    def put(self, step: str, value: Any) -> None:
        self._steps[step] = value

    def check(self) -> None:
        """Never overtaken."""


class _Pool:
    """The simulator's process."""

    def __init__(self, folder: Path) -> None:
        words = (sys.executable, "-m", "xenapi_host.simulator", "--port", "0", "--hosts", "2", "--data", str(folder))
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.access = Access(url=self._process.stdout.readline().strip(), user="root", password="xen")

    def cpu(self) -> float:
        """Seconds so far, with those of plugins that have ended."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / _TICKS

    def close(self) -> None:
        self._process.terminate()
        self._process.communicate(timeout=60)


def main(words: Sequence[str] | None = None) -> None:
    parser = options("hosts", words, __doc__ or "")
    parser.add_argument("--mib", type=int, default=1024, help="size of the image's disk; half of it holds data")
    parser.add_argument("--light", type=int, default=4096, help="how many light hosts to make")
    asked = parser.parse_args(words)
    report = Report("hosts")
    with tempfile.TemporaryDirectory(prefix="celltree-bench-") as name:
        folder = Path(name)
        size = (16 if asked.quick else asked.mib) * MIB
        image = _make_image(folder, size)
        with serve(image) as images, closing(_Pool(folder / "pool")) as pool:
            _operations(report, images, pool, size)
            _calls(report, pool, seconds=0.5 if asked.quick else 5)
    _light(report, 64 if asked.quick else asked.light)
    report.table()


def _make_image(folder: Path, size: int) -> Path:
    """A tar.gz of one VHD, every second MiB of its disk data that does not compress."""
    disk, image = folder / "0.vhd", folder / "image.tar.gz"
    vhd.create_dynamic(disk, size)
    with vhd.Disk.open(disk, writable=True) as opened:
        for offset in range(0, size, 2 * MIB):
            opened.pwrite(offset, os.urandom(MIB))
    with open(image, "wb") as stream:
        vhd.write_image(disk, stream, compression=1)
    disk.unlink()
    return image


def _operations(report: Report, images: Images, pool: _Pool, size: int) -> None:
    image = ImageRef(id="6f1c1e3e-0000-4000-8000-000000000001", name="bench", url=images.url)
    small = Flavor(id="1", name="small", vcpus=1, ram_mib=512, disk_gib=2)
    large = Flavor(id="2", name="large", vcpus=2, ram_mib=1024, disk_gib=4)
    larger = Flavor(id="3", name="larger", vcpus=2, ram_mib=2048, disk_gib=4)
    headers = {"X-Auth-Token": "none"}

    def plan(host: int, flavor: Flavor, serial: int, server: bytes = SERVER) -> BuildPlan:
        spec = BuildSpec(name="bench", project="bench", user="bench", flavor=flavor, image=image)
        facts = driver.measure(session)
        return plan_build(spec, server=server, attempt=1, host=facts.hosts[host], serial=serial)

    def build(server: bytes) -> None:
        made = plan(0, small, 0, server)
        driver.prepare_build(session, made, _Journal(), headers=headers)
        driver.start_build(session, server, 1, made.host)

    def snapshot() -> None:
        target = ImageRef(id="6f1c1e3e-0000-4000-8000-000000000002", url=images.url)
        driver.snapshot(session, SERVER, target, _Journal(), headers=headers)

    steps: dict[str, Callable[[], object]] = {
        "first build (image downloaded)": lambda: build(SERVER),
        "second build (cached image)": lambda: build(bytes(range(16, 32))),
        "snapshot (chain uploaded)": snapshot,
        "resize on its host": lambda: driver.resize(session, plan(0, large, 5), _Journal()),
        "confirm": lambda: driver.confirm_resize(session, SERVER),
        "resize to the other host": lambda: driver.resize(session, plan(1, larger, 6), _Journal()),
        "revert": lambda: driver.revert_resize(session, SERVER),
        "delete": lambda: driver.destroy(session, SERVER),
    }
    with closing(connect(pool.access)) as session:
        for what, do in steps.items():
            moved, ours, theirs = images.sent + images.taken, time.process_time(), pool.cpu()
            began = time.perf_counter()
            do()
            report.figures(
                "full",
                what=what,
                image_mib=size // MIB,
                wall_s=time.perf_counter() - began,
                driver_cpu_s=time.process_time() - ours,
                pool_cpu_s=pool.cpu() - theirs,
                moved_mib=(images.sent + images.taken - moved) / MIB,
            )


def _calls(report: Report, pool: _Pool, *, seconds: float) -> None:
    for threads in (1, 8):
        with closing(connect(pool.access)) as session:
            host = session.call("host.get_all")[0]
            before = pool.cpu()
            done, took = _together(threads, seconds, partial(session.call, "host.get_record", host))
            report.figures(
                "full",
                what="host.get_record over HTTP",
                threads=threads,
                per_second=done / took,
                pool_cpu_ms_each=1000 * (pool.cpu() - before) / done,
            )


def _together(threads: int, seconds: float, call: Callable[[], object]) -> tuple[int, float]:
    """How many calls so many threads made, and in how many seconds."""
    counts = [0] * threads
    until = time.perf_counter() + seconds

    def work(mine: int) -> None:
        while time.perf_counter() < until:
            call()
            counts[mine] += 1

    began = time.perf_counter()
    workers = [threading.Thread(target=work, args=(mine,)) for mine in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(counts), time.perf_counter() - began


def _light(report: Report, hosts: int) -> None:
    """Pools of 16 hosts, empty and then with ten halted VMs on each host."""
    with _memory() as grown:
        pools = [
            LightPool(hosts=HOSTS_A_POOL, shape=HostShape(cpu_objects=False)) for _ in range(hosts // HOSTS_A_POOL)
        ]
        _say_light(report, "light hosts", hosts, grown())
        template = _vm_record()
        began, calls = time.perf_counter(), 0
        for pool in pools:
            session = pool.login()
            for number in range(10 * HOSTS_A_POOL):
                session.call("VM.create", {**template, "name_label": id_text(number.to_bytes(16))})
                calls += 1
            session.close()
        took = time.perf_counter() - began
        _say_light(report, "light hosts with ten VMs each", hosts, grown(), per_second=calls / took)


def _say_light(report: Report, what: str, hosts: int, grown: int, **more: float) -> None:
    report.figures(
        "light", what=what, hosts=hosts, kib_each=grown / 1024 / hosts, hosts_per_gib=2**30 * hosts // grown, **more
    )


def _vm_record() -> dict[str, Any]:
    spec = BuildSpec(
        name="bench",
        project="bench",
        user="bench",
        flavor=Flavor(id="1", name="small", vcpus=1, ram_mib=64, disk_gib=1),
        image=ImageRef(id="6f1c1e3e-0000-4000-8000-000000000001", name="bench"),
    )
    pool = LightPool(hosts=1)
    with closing(Session(InProcess(face=pool.login()))) as session:
        facts = driver.measure(session)
    return dict(plan_build(spec, server=SERVER, attempt=1, host=facts.hosts[0]).vm)


@contextmanager
def _memory() -> Iterator[Callable[[], int]]:
    """How many bytes this process has grown by since."""
    gc.collect()
    before = _resident()

    def grown() -> int:
        gc.collect()
        return max(1, _resident() - before)

    yield grown


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main(sys.argv[1:])
