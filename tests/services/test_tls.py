"""A lab whose brokers and databases take TLS only and know cells by their certificates: what works, who is refused."""

import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from amqp.exceptions import AccessRefused, PreconditionFailed
from kombu import Connection

from cells.broker import AmqpOptions, Tls, rpc
from cells.broker.amqp.connection import AmqpConnection, Lost
from cells.broker.amqp.wake import Wake
from cells.broker.limits import INBOX
from cells.certificates import Authority
from cells.errors import BadInput, Temporary
from cells.house import system_clock
from cells.lab.papers import PaperMill, Papers
from cells.registering import reach_database
from cells.tls import check
from cells.topology_file import CellPlan, PoolPlan, TopologyFile
from tests.support.labs import GONE, RunningLab, running_lab

TREE = TopologyFile(
    cells=(
        CellPlan(name="east", role="api"),
        CellPlan(name="dfw", role="compute", parents=("east",)),
        CellPlan(name="dfw-1", role="compute", parents=("dfw",), pools=(PoolPlan(name="dfw-1", hosts=1),)),
    )
)


@pytest.fixture(scope="module")
def lab() -> Iterator[RunningLab]:
    with running_lab(TREE, tls=True) as found:
        yield found


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
