"""The private servers of `celltree lab`: real RabbitMQ and MariaDB, killed and brought back."""

from urllib.parse import unquote, urlsplit

import pymysql
import pytest
from amqp.exceptions import AccessRefused, NotAllowed
from kombu.connection import Connection
from kombu.entity import Exchange, Queue

from cells.errors import Permanent, Temporary
from cells.lab.mariadb import MariaServer
from cells.lab.rabbitmq import RabbitNode
from tests.support.servers import NewMaria, NewRabbit, NewUrl

INBOX = Queue("inbox", Exchange(""), routing_key="inbox", durable=True)


def publish(url: str, text: str) -> None:
    options = {"confirm_publish": True}
    with Connection(url, transport_options=options) as connection, connection.channel() as channel:
        INBOX(channel).declare()
        connection.Producer(channel).publish(text, routing_key="inbox", delivery_mode=2, mandatory=True, timeout=20)


def take(url: str) -> str | None:
    """The text of the inbox's next message, None when it is empty."""
    with Connection(url) as connection, connection.channel() as channel:
        bound = INBOX(channel)
        bound.declare()
        message = bound.get(no_ack=True)
        return None if message is None else str(message.payload)


def test_virtual_hosts_of_one_node_do_not_see_each_other(new_vhost: NewUrl) -> None:
    here, there = new_vhost(), new_vhost()
    publish(here, "for here only")
    assert take(there) is None
    assert take(here) == "for here only"


def test_a_user_is_refused_in_another_users_virtual_host(rabbit: RabbitNode, new_vhost: NewUrl) -> None:
    here, there = new_vhost(), new_vhost()
    login, vhost = here.rpartition("/")[0], there.rpartition("/")[2]
    with pytest.raises(NotAllowed):
        publish(f"{login}/{vhost}", "not mine")


def test_permissions_narrow_what_a_user_may_do_and_a_deleted_user_is_out(rabbit: RabbitNode, new_vhost: NewUrl) -> None:
    url = new_vhost()
    vhost = url.rpartition("/")[2]
    publish(url, "first")
    rabbit.add_vhost_user(vhost, f"{vhost}-writer", "w", configure="", write="inbox", read="")
    writer = rabbit.amqp_url(vhost, f"{vhost}-writer", "w")
    with pytest.raises(AccessRefused):
        take(writer)
    rabbit.set_permissions(vhost, f"{vhost}-writer", configure=".*", write=".*", read=".*")
    assert take(writer) == "first"
    rabbit.delete_user(f"{vhost}-writer")
    rabbit.delete_user(f"{vhost}-writer")
    with pytest.raises(AccessRefused):
        take(writer)


def test_node_refuses_permissions_for_a_user_it_does_not_know(rabbit: RabbitNode) -> None:
    with pytest.raises(Permanent, match="refuses PUT"):
        rabbit.set_permissions("/", "nobody", configure="", write="", read="")


def test_killed_node_keeps_a_persistent_message(private_rabbit: NewRabbit) -> None:
    node = private_rabbit()
    node.add_vhost_user("leaf", "cell", "p/w@:")
    url = node.amqp_url("leaf", "cell", "p/w@:")
    publish(url, "still there")
    first_pid = node.pid
    node.kill9()
    assert not node.running
    with pytest.raises(Temporary, match="does not answer"):
        node.delete_vhost("leaf")
    again = RabbitNode(node.folder)
    again.start()
    again.wait_ready(120)
    assert again.pid not in (None, first_pid)
    assert take(url) == "still there"
    again.stop()
    assert again.pid is None


def test_node_that_cannot_start_shows_the_end_of_its_log(private_rabbit: NewRabbit) -> None:
    node = private_rabbit()
    node.kill9()
    (node.folder / "data" / "mnesia" / "schema.DAT").write_bytes(b"not a schema")
    node.start()
    with pytest.raises(Permanent, match=r"(?s)has ended.*ends:\n.*BOOT FAILED"):
        node.wait_ready(120)


def test_schemas_of_one_server_do_not_see_each_other(mariadb: MariaServer, new_schema: NewUrl) -> None:
    here, there = new_schema(), new_schema()
    with connect(here) as session, session.cursor() as cursor:
        cursor.execute("CREATE TABLE t (a INT)")
        with pytest.raises(pymysql.err.OperationalError, match="denied"):
            cursor.execute(f"CREATE TABLE `{there.rpartition('/')[2].partition('?')[0]}`.t (a INT)")


def test_killed_server_keeps_committed_rows_and_only_those(private_mariadb: NewMaria) -> None:
    server = private_mariadb()
    server.create_schema("leaf_1", "cell", "p'w\\@:")
    server.create_schema("leaf_1", "cell", "p'w\\@:")
    url = server.url("leaf_1", "cell", "p'w\\@:")
    with connect(url) as session, session.cursor() as cursor:
        cursor.execute("CREATE TABLE t (a INT)")
        cursor.execute("INSERT INTO t VALUES (1)")
        session.commit()
        cursor.execute("INSERT INTO t VALUES (2)")
        server.kill9()
    assert not server.running
    again = MariaServer(server.folder)
    again.start()
    again.wait_ready(120)
    assert again.execute("SELECT a FROM leaf_1.t") == "1\n"
    again.restart()
    assert again.execute("SELECT a FROM leaf_1.t") == "1\n"


def connect(url: str) -> "pymysql.connections.Connection[pymysql.cursors.Cursor]":
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    return pymysql.connect(
        host=parts.hostname,
        port=parts.port,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        database=parts.path[1:],
    )
