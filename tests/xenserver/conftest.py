"""What tests of the driver and of the plugins stand on: a simulated pool with a session, dom0's scripts, a Glance."""

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cells.model import ImageRef
from tests.xenserver.dom0 import MIB, Dom0, a_dom0, fill
from tests.xenserver.glance_twin import Glance, Image, serve_glance
from tests.xenserver.simulated import a_pool, connected
from xenapi_host import vhd
from xenapi_host.image_maker import make_image
from xenapi_host.session import Session
from xenapi_host.simulator.full import FullPool


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[FullPool]:
    """Two hosts over HTTP."""
    with a_pool(tmp_path / "pool", hosts=2) as pool:
        yield pool


@pytest.fixture
def session(pool: FullPool) -> Iterator[Session]:
    with closing(connected(pool)) as session:
        yield session


@pytest.fixture
def glance() -> Iterator[Glance]:
    with serve_glance() as glance:
        yield glance


@pytest.fixture
def image(tmp_path: Path, glance: Glance) -> ImageRef:
    """An image of 32 MiB with one file in it."""
    files = tmp_path / "files"
    files.mkdir()
    (files / "motd").write_text("made for a test\n")
    made = make_image(files, tmp_path / "image.tar.gz", size=32 * MIB)
    glance.images["demo"] = Image(data=made.path.read_bytes())
    return ImageRef(id="demo", name="demo-linux", url=glance.url)


@pytest.fixture
def dom0(tmp_path: Path) -> Dom0:
    return a_dom0(tmp_path / "dom0")


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
