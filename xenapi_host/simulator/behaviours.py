"""Loads every module that registers behaviours. A new class of XenAPI with behaviour adds its module here."""

from __future__ import annotations

from functools import cache
from importlib import import_module

MODULES = (
    "session",
    "task",
    "event",
    "pool",
    "mastership",
    "host",
    "host_power",
    "host_plugins",
    "network",
    "vlan",
    "sr",
    "vdi",
    "cbt",
    "devices",
    "vm",
    "vm_fields",
    "vm_copies",
    "vm_migration",
    "measures",
    "sundry",
)


@cache
def load() -> None:
    for name in MODULES:
        import_module(f"xenapi_host.simulator.{name}")
