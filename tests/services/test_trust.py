"""Trust on real servers: a lab whose brokers and databases take TLS only and know cells by their certificates. What
works, who is refused, keys that change under traffic, a cell that was removed, and secrets that are nowhere."""

import contextlib
import json
import os
import signal
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from amqp.exceptions import AccessRefused, PreconditionFailed
from kombu.connection import Connection

from cells.broker import AmqpOptions, Tls, rpc
from cells.broker.amqp.connection import AmqpConnection, Lost
from cells.broker.amqp.wake import Wake
from cells.broker.limits import INBOX
from cells.certificates import Authority
from cells.codec import pack_bundle, pack_record
from cells.config import identity, keys
from cells.errors import BadInput, CelltreeError, Temporary
from cells.house import system_clock
from cells.lab.daemons import Daemon
from cells.lab.lab import Lab
from cells.lab.papers import PaperMill, Papers
from cells.messages import Ack
from cells.names import NEVER
from cells.record import Hop, Record
from cells.registering import open_store, reach_database
from cells.rows import SettingRow
from cells.tls import check
from cells.topology_file import CellPlan, PoolPlan, TopologyFile
from cells.withdrawing import WITHDRAWN
from compute_cell.rows import PoolRow
from tests.support.canary import SECRETS, Overheard, found, planted, queued, search, with_image_tokens
from tests.support.labs import GONE, RunningLab, running_lab
from tests.support.tcp_proxy import TcpProxy
from xenapi_host.session import Access
from xenapi_host.session import connect as log_in

TREE = TopologyFile(
    cells=(
        CellPlan(name="east", role="api"),
        CellPlan(name="dfw", role="compute", parents=("east",)),
        CellPlan(name="dfw-1", role="compute", parents=("dfw",), pools=(PoolPlan(name="dfw-1", hosts=1),)),
    )
)


class TalkativeLab(Lab):
    """Its daemons log all they can; what comes to its image service is overheard."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.overheard = Overheard()
        self.proxies: dict[str, TcpProxy] = {}

    def daemon(self, name: str) -> Daemon:
        found = super().daemon(name)
        return Daemon(found.log.parent, found.name, ("-vv", *found.arguments))

    def _settings(self, cell: CellPlan) -> dict[str, Any]:
        if cell.name in self.plan.api_ports and cell.name not in self.proxies:
            proxy = TcpProxy(self.plan.api_ports[cell.name], overhear=self.overheard)
            self.proxies[cell.name] = proxy.__enter__()
        at = f"http://127.0.0.1:{self.proxies[cell.name].port}/image" if cell.name in self.proxies else ""
        return with_image_tokens(self, cell.name, super()._settings(cell), at)

    def down(self, **how: Any) -> None:
        super().down(**how)
        for proxy in self.proxies.values():
            proxy.__exit__()
        self.proxies.clear()


@pytest.fixture(scope="module")
def lab() -> Iterator[RunningLab]:
    with running_lab(TREE, tls=True, kind=TalkativeLab) as found:
        yield found


def overheard(lab: RunningLab) -> tuple[str, ...]:
    """Image tokens that leaves have just come with."""
    assert isinstance(lab.lab, TalkativeLab)
    return tuple(lab.lab.overheard.tokens)


def connect(lab: RunningLab, papers: Papers | None, *, user: str = "dfw", vhost: str = "east") -> Connection:
    """kombu as somebody with these papers, who says to be `user`."""
    node = lab.lab.broker("east")
    secure = {"ca_certs": str(lab.lab.papers.server("loopback").authorities), "cert_reqs": ssl.CERT_REQUIRED}
    if papers:
        secure |= {"certfile": str(papers.certificate), "keyfile": str(papers.key)}
    return Connection(
        f"amqp://{quote(user)}@127.0.0.1:{node.amqp_port}/{vhost}",
        ssl={**secure, "server_hostname": "127.0.0.1"},
        login_method="EXTERNAL",
        connect_timeout=5,
        transport_options={"confirm_publish": True},
    )


def ours(lab: RunningLab, **changed: object) -> AmqpConnection:
    """A connection as cells make them, with dfw's papers to east's broker."""
    config = lab.lab.tree.config("dfw")
    options = replace(config.amqp, tls=replace(config.amqp.tls, **changed))  # type: ignore[arg-type]
    wake = Wake()
    try:
        return AmqpConnection(lab.lab.edge_url("dfw", "east"), options, "test", wake)
    finally:
        wake.close()


def test_build_goes_all_the_way_over_tls(lab: RunningLab) -> None:
    server = lab.build("east")
    assert lab.wait_status("east", server, "ACTIVE", "ERROR")["status"] == "ACTIVE"
    config = lab.lab.tree.config("east")
    assert config.broker.startswith("amqps://east@")
    beside = rpc.client(config.broker, "east", options=config.amqp)
    try:
        assert beside.call("show", 30.0, server=server)["status"] == "ACTIVE"
    finally:
        beside.close()
    lab.delete("east", server)
    lab.wait_status("east", server, GONE)


def test_plain_tcp_is_refused(lab: RunningLab) -> None:
    config = lab.lab.tree.config("dfw")
    wake = Wake()
    plain = lab.lab.edge_url("dfw", "east").replace("amqps://dfw@", "amqp://dfw:word@")
    with pytest.raises(Lost):
        AmqpConnection(plain, AmqpOptions(time_limit=1.0), "test", wake)
    wake.close()
    with pytest.raises(Temporary, match="Access denied"):
        reach_database(config.database.partition("&ssl_ca")[0])


def test_certificate_of_another_authority_and_none_at_all_are_refused(lab: RunningLab, tmp_path: Path) -> None:
    forged = PaperMill(tmp_path).client("dfw")
    for papers in (forged, None):
        with pytest.raises((ssl.SSLError, ConnectionError, OSError)), connect(lab, papers) as connection:
            connection.connect()
    with pytest.raises(Lost, match="certificate and key"):
        ours(lab, certificate=str(forged.certificate), key=str(forged.key))
    with pytest.raises(Lost, match="certificate does not hold"):
        ours(lab, authorities=str(forged.authorities))


def test_server_of_another_name_is_refused_unless_the_host_is_not_to_be_verified(lab: RunningLab) -> None:
    other = lab.lab.edge_url("dfw", "east").replace("127.0.0.1", "127.1")  # the same address by another name
    options = lab.lab.tree.config("dfw").amqp
    wake = Wake()
    with pytest.raises(Lost, match="certificate does not hold"):
        AmqpConnection(other, options, "test", wake)
    AmqpConnection(other, replace(options, tls=replace(options.tls, verify_host=False)), "test", wake).close()
    wake.close()


def test_certificate_lets_in_as_its_common_name_only(lab: RunningLab) -> None:
    """Who has dfw's certificate is dfw, whatever it says; and dfw-1, which has no edge to east, may not in."""
    with connect(lab, lab.lab.papers.client("dfw"), user="east") as connection:
        message = connection.default_channel.prepare_message(b"x", properties={"user_id": "dfw"})
        connection.default_channel.basic_publish(message, exchange=INBOX)
    for cell, vhost in (("dfw-1", "east"), ("east", "dfw-1"), ("dfw", "mine")):
        with (
            pytest.raises(Exception, match=r"530|403|refused|access"),
            connect(lab, lab.lab.papers.client(cell), user=cell, vhost=vhost) as connection,
        ):
            connection.connect()


@pytest.mark.parametrize(
    "forbidden",
    [
        lambda channel: channel.basic_get(INBOX),
        lambda channel: channel.basic_consume(INBOX),
        lambda channel: channel.queue_declare("mine"),
        lambda channel: channel.queue_purge(INBOX),
        lambda channel: channel.basic_publish(
            channel.prepare_message(b"{}"), exchange="", routing_key="celltree.posting"
        ),
        lambda channel: channel.basic_publish(channel.prepare_message(b"{}"), exchange="amq.direct"),
    ],
)
def test_neighbour_may_write_to_the_inbox_and_nothing_else(lab: RunningLab, forbidden: Callable[..., object]) -> None:
    with connect(lab, lab.lab.papers.client("dfw")) as connection, pytest.raises(AccessRefused):
        forbidden(connection.default_channel)


def test_forged_publisher_is_refused_by_the_broker(lab: RunningLab) -> None:
    with connect(lab, lab.lab.papers.client("dfw")) as connection:
        message = connection.default_channel.prepare_message(b"{}", properties={"user_id": "east"})
        with pytest.raises(PreconditionFailed):
            connection.default_channel.basic_publish(message, exchange=INBOX)


def test_database_wants_the_cells_own_certificate(lab: RunningLab) -> None:
    config = lab.lab.tree.config("east")
    reach_database(config.database)
    with pytest.raises(Temporary, match="Access denied"):
        reach_database(config.database.replace("client-east", "client-dfw"))


def test_pool_is_known_by_its_certificate_and_takes_tls_only(lab: RunningLab) -> None:
    with open_store(lab.lab.tree.config("dfw-1"), whole=True) as store, store.unit(lock=False) as unit:
        pool = unit.all(PoolRow)[0]
    assert pool.url.startswith("https://")
    password = lab.plan.password("xenserver", "dfw-1")
    pinned = Access(url=pool.url, user="root", password=password, fingerprint=pool.fingerprint)
    session = log_in(pinned)
    assert session.call("host.get_all_records")
    session.close()
    for wrong in ({"fingerprint": "00" * 32}, {"fingerprint": ""}, {"url": pool.url.replace("https:", "http:")}):
        with pytest.raises(CelltreeError):
            log_in(replace(pinned, **wrong)).call("host.get_all_records")


def test_certificates_that_cannot_be_used_are_refused_at_start_with_the_remedy(lab: RunningLab, tmp_path: Path) -> None:
    config, now = lab.lab.tree.config("east"), system_clock()
    good = config.amqp.tls
    old, key = Authority.create("old", now).issue("east", now - 10 * 86400 * 1_000_000, days=3)
    (tmp_path / "old.pem").write_bytes(old)
    (tmp_path / "old.key").write_bytes(key)
    tries: dict[str, Tls] = {
        "cannot be read: No such file": replace(good, certificate=str(tmp_path / "none.pem")),
        "has expired on": replace(good, certificate=str(tmp_path / "old.pem"), key=str(tmp_path / "old.key")),
        "does not belong to": replace(good, key=str(tmp_path / "old.key")),
        "holds no certificate": replace(good, authorities=good.key),
        "but no key": replace(good, key=""),
        "no certificate to log in with": replace(good, certificate="", key=""),
    }
    check(config, now)
    for said, tls in tries.items():
        with pytest.raises(BadInput, match=said):
            check(replace(config, amqp=replace(config.amqp, tls=tls)), now)
    with pytest.raises(BadInput, match="add ssl_ca"):
        check(replace(config, database=config.database.replace("&ssl_ca=", "&x=")), now)


# --- keys and cells that go ---


def test_keys_are_rotated_under_traffic_and_nothing_restarts_or_is_refused(lab: RunningLab) -> None:
    before = {part.what: part.pid for part in lab.lab.status()}
    parked = lab.celltree("messages", "count", "-f", "json").stdout
    servers = [lab.build("east", "before")]
    for cell in ("dfw-1", "east", "dfw"):
        old = identity(lab.lab.tree.config(cell))
        assert f"{cell} has the new key" in lab.celltree("cell", "rotate", cell).stdout
        servers.append(lab.build("east", f"with-{cell}"))
        early = lab.celltree("cell", "rotate", cell, "--finish", check=False)
        assert (early.returncode, "still signs with another key" in early.stderr) == (1, True)
        pid = lab.lab.daemon(cell).pid
        assert pid is not None
        os.kill(pid, signal.SIGHUP)
        servers.append(lab.build("east", f"after-{cell}"))
        lab.wait(
            lambda cell=cell: lab.celltree("cell", "rotate", cell, "--finish", check=False).returncode == 0,
            f"{cell}'s daemon signs with the new key",
        )
        trust = old.trust
        trust.take_withdrawn(lab.lab.tree.withdrawn()[1])
        with pytest.raises(BadInput, match="was withdrawn"):
            trust.certificate(old.certificate)
        held = keys(lab.lab.tree.config(cell))
        assert (held.former, held.public) == ((), (old.says.key,))
        os.kill(pid, signal.SIGHUP)  # from now on it has the newest key only
    servers.append(lab.build("east", "last"))
    for server in servers:
        assert lab.wait_status("east", server, "ACTIVE", "ERROR")["status"] == "ACTIVE"
    assert lab.celltree("messages", "count", "-f", "json").stdout == parked
    assert {part.what: part.pid for part in lab.lab.status()} == before
    for server in servers:
        lab.delete("east", server)
    for server in servers:
        lab.wait_status("east", server, GONE)


def test_removed_cells_messages_are_parked_with_the_reason_and_counted(lab: RunningLab) -> None:
    lab.celltree("lab", "add", "gone-1", "--parent", "dfw")
    gone = identity(lab.lab.tree.config("gone-1"))
    url = lab.lab.tree.config("gone-1").broker
    lab.wait(lambda: "gone-1" in lab.celltree("tree").stdout, "gone-1 is in the tree")
    lab.celltree("cell", "detach", "gone-1", "--parent", "dfw")
    lab.celltree("lab", "remove", "gone-1")
    lab.wait(
        lambda: "gone-1" in withdrawn_at(lab, "east"), "east's own database has the list of withdrawn certificates"
    )
    report = Record(id=os.urandom(16), body=Ack(), origin="gone-1", destination="east")

    def knock() -> bool:
        packet = gone.packet("east", 1, NEVER, (pack_record(report),), system_clock())
        packet = replace(packet, trail=(*packet.trail, Hop(cell="dfw", at=system_clock())))
        with connect(lab, lab.lab.papers.client("dfw")) as connection:
            message = connection.default_channel.prepare_message(pack_bundle([packet]), properties={"user_id": "dfw"})
            connection.default_channel.basic_publish(message, exchange=INBOX)
        rows = json.loads(lab.celltree("messages", "count", "--cell", "east", "-f", "json").stdout)
        return any("'gone-1' was withdrawn" in row["Reason"] and row["From"] == "dfw" for row in rows)

    lab.wait(knock, "a refused message is counted")
    # It cannot even knock at the broker: its user and its virtual host are gone.
    with pytest.raises(Lost), contextlib.closing(Wake()) as wake:
        AmqpConnection(url, AmqpOptions(tls=client_tls(lab, "gone-1")), "test", wake)


def withdrawn_at(lab: RunningLab, cell: str) -> Mapping[str, int]:
    """The names whose certificates a cell's own database says to believe no longer."""
    config = lab.lab.tree.config(cell)
    with open_store(config) as store, store.unit(lock=False) as unit:
        row = unit.get(SettingRow, WITHDRAWN)
    return identity(config).trust.read_withdrawn(bytes.fromhex(row.value)).before if row else {}


def client_tls(lab: RunningLab, cell: str) -> Tls:
    papers = lab.lab.papers.client(cell)
    return Tls(authorities=str(papers.authorities), certificate=str(papers.certificate), key=str(papers.key))


# --- secrets ---


def test_secrets_of_a_build_lie_nowhere_in_clear_while_it_waits_or_when_it_is_done(lab: RunningLab) -> None:
    name = "canary-open-33aa"
    image = lab.image("east")
    lab.lab.kill("dfw-1")
    server = build_with_secrets(lab, name, image)
    lab.wait(lambda: name.encode() in queued(lab.lab, "dfw-1"), "the build waits in the leaf's queue")
    waiting = search(lab.lab, name)
    lab.lab.start("dfw-1")
    seen = lab.wait_status("east", server, "ACTIVE", "ERROR")
    assert seen["status"] == "ACTIVE", seen.get("fault")
    lab.rest("east").compute("GET", "/servers/detail")
    tokens = overheard(lab)
    done = search(lab.lab, name, *tokens)
    lab.delete("east", server)
    lab.wait_status("east", server, GONE)
    assert (waiting.leaks, done.leaks) == ((), ())
    assert waiting.open >= {"rows", "files", "queue"}
    assert done.open >= {"rows", "files"}
    assert tokens, "the leaf came for the image without a token"
    assert " DEBUG " in (lab.lab.folder / "run" / "dfw-1.log").read_text(), "the daemons did not log all they can"


def test_secrets_of_builds_that_fail_lie_nowhere_in_clear_and_in_no_fault(lab: RunningLab) -> None:
    """One finds no room, one has an image that is none: it fails at the leaf, after the secrets were opened there."""
    rest, name = lab.rest("east"), "canary-open-77cd"
    record = {"name": "garbage", "disk_format": "vhd", "container_format": "ovf", "visibility": "public"}
    garbage = rest.image("POST", "/images", record)["id"]
    file = lab.lab.folder / "test-image" / "garbage"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(os.urandom(4096))
    rest.upload(garbage, file)
    servers = [
        build_with_secrets(lab, f"{name}-leaf", garbage),
        build_with_secrets(lab, f"{name}-room", lab.image("east"), flavor="5"),
    ]
    shown = [lab.wait_status("east", server, "ACTIVE", "ERROR") for server in servers]
    assert [seen["status"] for seen in shown] == ["ERROR", "ERROR"], shown
    looked = search(lab.lab, name, *overheard(lab))
    assert looked.leaks == ()
    assert looked.open >= {"rows", "files"}
    told = json.dumps([*shown, *(lab.celltree("story", server, "-f", "json").stdout for server in servers)]).encode()
    assert not any(found(secret, told) for secret in SECRETS)
    for server in servers:
        lab.delete("east", server)
        lab.wait_status("east", server, GONE)


def build_with_secrets(lab: RunningLab, name: str, image: str, *, flavor: str = "1") -> str:
    body = {"name": name, "imageRef": image, "flavorRef": flavor, "networks": "none", **planted()}
    server: str = lab.rest("east").compute("POST", "/servers", {"server": {**body, "config_drive": True}})["server"][
        "id"
    ]
    return server
