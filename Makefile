# celltree's commands. `make` alone lists them. The same ones run on a laptop and in CI (.ci/run is `make test`).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export PATH := $(CURDIR)/.venv/bin:$(PATH):/usr/local/sbin:/usr/sbin:/sbin

# An unchanged pyproject.toml means an unchanged .venv.
HASH := $(shell sha256sum pyproject.toml | cut -c1-16)
RUN_STAMP := .venv/.celltree-run-$(HASH)
DEV_STAMP := .venv/.celltree-dev-$(HASH)
STAMP_FOR_DEMO := $(if $(wildcard $(DEV_STAMP)),$(DEV_STAMP),$(RUN_STAMP))

PACKAGES := cells routing xenapi_host api_cell compute_cell migrations
# Parts that need no server and no second program; the folders that are there.
FAST := $(wildcard tests/unit tests/stories tests/properties tests/architecture)
LINT := layout lint types
PYTEST := pytest -n auto --dist worksteal
# A third of all tests wait for servers most of the time: one worker more than there are processors.
PYTEST_ALL := pytest -n $(shell echo $$(($$(nproc) + 1))) --dist worksteal

.PHONY: help venv services demo check layout lint types fast-tests test format soak chaos bench clean

help:  ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

venv: $(DEV_STAMP)  ## Make .venv with everything to run, test and change celltree

services:  ## Install RabbitMQ, MariaDB and tools that tests use where missing (Debian packages); starts no service
	@.ci/services rabbitmq mariadb e2fsprogs qemu xva-img rsync

demo: $(STAMP_FOR_DEMO)  ## Run the embedded tree with simulated XenServers: make demo ARGS="--port 8080"
	@.ci/services e2fsprogs
	@exec celltree demo $(ARGS)

check: $(DEV_STAMP)  ## Format, lint, types, import contracts and the fast tests
	@$(MAKE) --keep-going --jobs 2 --output-sync=target $(LINT) fast-tests
	@echo "make check: all good"

# The import contracts are a test: tests/architecture runs lint-imports.
layout: $(DEV_STAMP)
	@ruff format --check --output-format concise .

lint: $(DEV_STAMP)
	@ruff check --quiet --output-format concise .

types: $(DEV_STAMP)
	@mypy --no-error-summary

fast-tests: $(DEV_STAMP)
	@$(PYTEST) -q $(FAST)

# The tests run even when the linters complain: one run tells everything.
test: $(DEV_STAMP) services  ## Everything: make check's parts and the tests with real servers
	@failed=; \
	$(MAKE) --keep-going --jobs 2 --output-sync=target $(LINT) || failed="layout, lint or types (see above)"; \
	$(PYTEST_ALL) $(ARGS) || failed="$${failed:+$$failed and }tests"; \
	if [ -n "$$failed" ]; then echo "make test: failed: $$failed"; exit 1; fi; \
	echo "make test: all good"

format: $(DEV_STAMP)  ## Format the code and mend what the linter can mend
	@ruff check --fix --quiet . || true
	@ruff format .
	@ruff check .

soak: $(DEV_STAMP)  ## Simulate many seeds; those that fail are added to the list: make soak SEEDS=10000 FIRST=0
	@exec celltree simulate --seeds $(or $(SEEDS),1000) --first $(or $(FIRST),0) --failed tests/simulation/failed_seeds.txt

chaos: $(DEV_STAMP) services  ## Break a lab under load for a while, and check every promise: make chaos MINUTES=10 SEED=1
	@exec python -m tests.chaos --minutes $(or $(MINUTES),4) $(if $(SEED),--seed $(SEED))

bench: $(DEV_STAMP) services  ## Run the benchmarks; each prints its figures: make bench ARGS=placement
	@for program in benchmarks/$(or $(ARGS),[a-z]*).py; do \
		name=$$(basename "$$program" .py); echo "== $$name"; python -m "benchmarks.$$name"; \
	done

clean:  ## Remove .venv and everything made by tools
	@rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(DEV_STAMP):
	@.ci/venv dev
	@rm -f .venv/.celltree-*
	@touch $@

$(RUN_STAMP):
	@.ci/venv run
	@rm -f .venv/.celltree-*
	@touch $@
