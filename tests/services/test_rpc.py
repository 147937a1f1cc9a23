"""What oslo.messaging does to a process and to a broker, which its in-process twins cannot show."""

import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable

import pytest
from kombu.connection import Connection

from cells.broker import AmqpOptions, MemoryExchanges, notify, rpc
from cells.broker.notify import Notification
from cells.errors import BadInput, Temporary
from cells.lab.rabbitmq import RabbitNode
from tests.support.tcp_proxy import TcpProxy


def in_a_fresh_process(program: str) -> object:
    """What the program prints, as JSON; warnings are errors there too."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)


def test_embedded_shape_loads_neither_oslo_messaging_nor_kombu_nor_eventlet() -> None:
    loaded = in_a_fresh_process(
        """
        import json, sys
        from cells.broker import MemoryExchanges, notify, open_broker, rpc
        exchanges = MemoryExchanges()
        open_broker("memory://a", "a", lambda: None, exchanges=exchanges)
        rpc.serve("memory://a", "a", {}, exchanges=exchanges)
        notify.notifications("memory://a", "a", exchanges=exchanges)
        print(json.dumps([one for one in ("eventlet", "greenlet", "oslo_messaging", "kombu") if one in sys.modules]))
        """
    )
    assert loaded == []


def test_between_cells_nothing_loads_eventlet() -> None:
    loaded = in_a_fresh_process(
        """
        import json, sys
        import cells.broker.amqp
        print(json.dumps([one for one in ("eventlet", "greenlet", "oslo_messaging") if one in sys.modules]))
        """
    )
    assert loaded == []


def test_oslo_messaging_patches_nothing() -> None:
    patched = in_a_fresh_process(
        """
        import json, socket, sys, threading, time
        before = [socket.socket, threading.Thread, threading.Lock, time.sleep]
        import cells.broker.oslo
        after = [socket.socket, threading.Thread, threading.Lock, time.sleep]
        patcher = sys.modules.get("eventlet.patcher")
        print(json.dumps([before == after, dict(patcher.already_patched) if patcher else {}]))
        """
    )
    assert patched == [True, {}]


def test_no_third_group_of_options_is_known_to_the_global_configuration_only() -> None:
    """18.3.1 has two that it does not register on a private configuration. A third would make every call fail."""
    missing = in_a_fresh_process(
        """
        import json
        from oslo_config import cfg
        from cells.broker.oslo import private_configuration
        from cells.broker.options import AmqpOptions
        ours = private_configuration("dfw", AmqpOptions(), secure=False)
        missing = set(cfg.CONF.keys()) - set(ours.keys())
        print(json.dumps(sorted(one for one in missing if one.startswith("oslo_messaging"))))
        """
    )
    assert missing == []


def test_call_over_a_silent_link_ends_in_time(rabbit: RabbitNode, new_vhost: Callable[[], str]) -> None:
    url = new_vhost()
    with TcpProxy(rabbit.amqp_port) as proxy:
        client = rpc.client(url.replace(f":{rabbit.amqp_port}/", f":{proxy.port}/"), "dfw")
        proxy.black_hole()
        begin = time.monotonic()
        with pytest.raises(Temporary, match="did not answer"):
            client.call("post_build", 0.5)
        assert time.monotonic() - begin < 10  # oslo.messaging alone: until the link is healed
        proxy.heal()
        client.close()


def test_notification_arrives_as_openstack_programs_expect_it(new_vhost: Callable[[], str]) -> None:
    url = new_vhost()
    with Connection(url) as connection:
        channel = connection.default_channel
        channel.exchange_declare("celltree", "topic", durable=False, auto_delete=False)
        channel.queue_declare("notifications.info", durable=False, auto_delete=False)
        channel.queue_bind("notifications.info", "celltree", "notifications.info")
        emitter = notify.notifications(url, "dfw")
        emitter.emit(
            Notification(event_type="compute.instance.create.end", payload={"instance_id": "x"}, request="req-1")
        )
        emitter.close()
        message = channel.basic_get("notifications.info", no_ack=True)
    assert message is not None
    body = json.loads(json.loads(message.body)["oslo.message"])
    assert body["event_type"] == "compute.instance.create.end"
    assert body["publisher_id"] == "compute.dfw"
    assert body["payload"] == {"instance_id": "x"}
    assert body["_context_request_id"] == "req-1"
    assert emitter.dropped == 0


def test_emitting_into_a_silent_broker_never_waits_and_counts_what_it_drops(
    rabbit: RabbitNode, new_vhost: Callable[[], str]
) -> None:
    with TcpProxy(rabbit.amqp_port) as proxy:
        proxy.black_hole()
        url = new_vhost().replace(f":{rabbit.amqp_port}/", f":{proxy.port}/")
        emitter = notify.OsloNotifications(url, "dfw", AmqpOptions(), room=10)
        begin = time.monotonic()
        for number in range(1000):
            emitter.emit(Notification(event_type="compute.instance.update", payload={"number": number}))
        assert time.monotonic() - begin < 5
        assert emitter.dropped >= 980
        proxy.heal()
        emitter.close()
        assert emitter.join(30), "the thread did not end once the broker was back"


def test_embedded_notifications_are_kept_to_be_looked_at() -> None:
    exchanges = MemoryExchanges()
    emitter = notify.notifications("memory://dfw", "dfw", exchanges=exchanges)
    event = Notification(event_type="compute.instance.delete.end", payload={})
    emitter.emit(event)
    assert list(exchanges.exchange("dfw").notifications) == [event]
    with pytest.raises(BadInput, match="messagingv2, noop"):
        notify.notifications("memory://dfw", "dfw", driver="log")
