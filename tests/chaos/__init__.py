"""Chaos: real processes, brokers, databases and simulated XenServers under tenants' work and faults, as Jepsen does it.

plan        what is broken when, from a seed                      pure
nemesis     breaks it, and puts it right; writes nemesis.jsonl
tenants     ask REST for servers and what is done to them; write history.jsonl
truth       what all cells and hosts have, when all is quiet
checker     whether history and truth keep the promises           pure
run         puts these together; `python -m tests.chaos --minutes 5`, or `make chaos MINUTES=5`
"""
