"""A simulated pool, opened and listening, in one call: what the demo and embedded tests start."""

from pathlib import Path
from typing import Any

from xenapi_host.simulator.full import FullPool
from xenapi_host.simulator.worlds import demo_pool


class DemoPool(FullPool):
    """A pool with a way to look at it from outside of XenAPI."""

    def guests(self) -> list[dict[str, Any]]:
        """Name, power state and uuid of every VM that is neither a template nor a control domain."""
        with self.engine.lock:
            return [
                {"name_label": vm["name_label"], "power_state": vm["power_state"], "uuid": vm["uuid"]}
                for vm in self.engine.db.all("VM")
                if not vm["is_a_template"] and not vm["is_control_domain"]
            ]


def open_pool(data: Path, name: str, hosts: int) -> DemoPool:
    """A pool of so many hosts on loopback, kept in `data`; its `url` answers XenAPI until `stop`. User root, password
    xen."""
    pool = DemoPool(data, lambda engine: demo_pool(engine, hosts=hosts, name=name))
    pool.start()
    return pool
