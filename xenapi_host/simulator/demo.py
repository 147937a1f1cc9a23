"""A simulated pool, opened and listening, in one call: what the demo and embedded tests start."""

from pathlib import Path

from xenapi_host.simulator.full import FullPool
from xenapi_host.simulator.worlds import demo_pool


def open_pool(data: Path, name: str, hosts: int) -> FullPool:
    """A pool of so many hosts on loopback, kept in `data`; its `url` answers XenAPI until `stop`. User root, password
    xen."""
    pool = FullPool(data, lambda engine: demo_pool(engine, hosts=hosts, name=name))
    pool.start()
    return pool
