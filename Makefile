# `make help` lists the targets. Options for the command behind one: make demo ARGS="--keep"
.DEFAULT_GOAL := help
.PHONY: help setup demo test crashes chaos guards up lint check bench lock
ARGS ?=
PYTHON ?=
python := .venv/bin/python

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Set up what is missing: packages, database, Temporal server (the others do this by themselves)
	@PYTHON="$(PYTHON)" sh tools/setup.sh

demo: setup ## Run the whole system on a real job in time-lapse, with crashes, and check the outcome
	@./drumbeat demo $(ARGS)

test: setup ## Run the tests
	@$(python) -m pytest --numprocesses 2 --dist worksteal $(ARGS)

crashes: setup ## Kill a process at every crash point, each time it comes there (the tests do a third of them once)
	@$(python) -m tests.crashes $(ARGS)

up: setup ## Serve API, relay and workers until Ctrl-C; data are kept in .drumbeat
	@./drumbeat up $(ARGS)

lint: setup ## Check pins, style, types and layers
	@$(python) tools/lock.py --check
	@$(python) -m ruff check
	@$(python) -m ruff format --check
	@$(python) -m mypy .
	@.venv/bin/lint-imports

check: lint test ## Everything a change must pass

bench: setup ## Measure, and compare with the recorded figures
	@$(python) -m bench $(ARGS)

chaos: setup ## Have a storm of faults over the real processes, and judge it (ARGS="--minutes 2 --seed 7")
	@$(python) -m chaos $(ARGS)

guards: setup ## Take one guard after another out of a copy of the product, and see that the judge notices
	@$(python) -m tests.chaos.guards $(ARGS)

lock: setup ## Work the pinned requirements out anew (ARGS=--upgrade for newer versions)
	@$(python) tools/lock.py $(ARGS)
