"""Deterministic simulation: the real roles, node and driver over light hosts, dict stores, a network that loses,
doubles, delays and reorders, and one virtual clock, all from one seed. `celltree simulate` runs it; tests/simulation
checks it.

plan.py draws what will happen, world.py lets it happen, invariants.py says what must be so, report.py tells a failure.
"""
