"""Ports are claimed for a server's folder, and stay claimed as long as that folder exists."""

import socket
import tempfile
from pathlib import Path

import pytest

from cells.errors import Temporary
from cells.lab.ports import LOOPBACK, claim_ports, is_free, release_ports


@pytest.fixture(autouse=True)
def claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def folder(tmp_path: Path, name: str) -> Path:
    path = tmp_path / name
    path.mkdir()
    return path


def every_port(monkeypatch: pytest.MonkeyPatch, first: int, count: int) -> None:
    monkeypatch.setattr("cells.lab.ports.LOWEST", first)
    monkeypatch.setattr("cells.lab.ports.SPAN", count)


def test_two_servers_never_get_the_same_port(tmp_path: Path) -> None:
    one, two = folder(tmp_path, "one"), folder(tmp_path, "two")
    ports = claim_ports(40, one) + claim_ports(40, two)
    assert len(set(ports)) == 80
    assert all(is_free(port) for port in ports)


def test_ports_are_below_those_the_kernel_gives_to_connections(tmp_path: Path) -> None:
    lowest_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(claim_ports(200, folder(tmp_path, "server"))) < lowest_ephemeral


def test_port_that_is_listened_on_is_not_free() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        assert not is_free(server.getsockname()[1])


def test_claim_ends_by_release_and_by_the_end_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone, kept = folder(tmp_path, "gone"), folder(tmp_path, "kept")
    first = claim_ports(1, gone)[0]
    every_port(monkeypatch, first, 1)
    with pytest.raises(Temporary, match="celltree lab down"):
        claim_ports(1, kept)
    gone.rmdir()
    assert claim_ports(1, kept) == (first,)
    release_ports((first,), gone)
    with pytest.raises(Temporary, match="celltree lab down"):
        claim_ports(1, kept)
    release_ports((first,), kept)
    assert claim_ports(1, kept) == (first,)
