# Every target that needs .venv builds it first, from Python 3.11+ alone.
#   make PYTHON=/path/to/python ...   uses that interpreter
#   make UV= ...                      uses pip even where uv is installed

export PYTHON ?=
export UV ?= uv

VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test lint ruff-check ruff-format types mypy pyright schema coverage \
	bench bench-quick soak soak-long torture format requirements clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## build .venv with the pinned requirements and this project

$(READY): pyproject.toml requirements/dev.txt
	@sh scripts/setup.sh $(VENV)
	@touch $@

demo: $(READY) ## run examples/demo.py
	@$(RUN) examples/demo.py

# One failing check does not hide the next: all of them run, and any failure fails `test`.
test: $(READY) ## everything a change must pass: lint, types, schema, tests at 100% coverage
	@$(MAKE) --no-print-directory --keep-going lint types schema coverage

lint: ruff-check ruff-format ## ruff: rules and formatting

ruff-check: $(READY)
	$(RUN) -m ruff check

ruff-format: $(READY)
	$(RUN) -m ruff format --check

types: mypy pyright ## mypy and pyright, both strict

mypy: $(READY)
	$(RUN) -m mypy

# Named, because pyright would rather have a pyrightconfig.json from any folder above.
pyright: $(READY)
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(RUN) -m pyright --project pyproject.toml --pythonpath $(RUN)

schema: $(READY) ## migrate an empty database, then compare it with the tables in the code
	@directory=$$(mktemp -d) && trap 'rm -rf "$$directory"' EXIT && set -ex && \
	$(RUN) -m alembic -x db="$$directory/fresh.db" upgrade head && \
	$(RUN) -m alembic -x db="$$directory/fresh.db" check

coverage: $(READY) ## the tests alone, with their coverage
	$(RUN) -m coverage erase
	$(RUN) -m coverage run -m pytest -n auto --dist worksteal
	$(RUN) -m coverage combine --quiet
	$(RUN) -m coverage report

bench: $(READY) ## how fast, against whom: about an hour (BENCH=--keep writes docs/performance.md)
	PYTHONPATH=benchmarks $(RUN) -m bench $(BENCH)

bench-quick: $(READY) ## the same in about two minutes (the first time, the peers are installed too)
	PYTHONPATH=benchmarks $(RUN) -m bench --quick $(BENCH)

soak: $(READY) ## a thousand conversations for ten minutes, and what they used
	TURNLOG_SOAK_SECONDS=$${TURNLOG_SOAK_SECONDS:-600} $(RUN) -m pytest tests/soak -s -v

soak-long: $(READY) ## a thousand conversations for an hour, and whether anything grows
	PYTHONPATH=benchmarks $(RUN) -m bench.soak

torture: $(READY) ## every proof of docs/reliability.md, at length: an hour or two
	sh scripts/torture.sh $(RUN)

format: $(READY) ## let ruff fix and format what it can
	$(RUN) -m ruff check --fix
	$(RUN) -m ruff format

# Keeps the pins that still fit; `make requirements UPGRADE=--upgrade` moves all of them.
requirements: ## pin pyproject.toml's dependencies in requirements/dev.txt (needs uv)
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --custom-compile-command "make requirements" \
		--group dev --extra simulator pyproject.toml -o requirements/dev.txt $(UPGRADE)

clean: ## remove .venv, caches, coverage data and builds
	rm -rf $(VENV) .bench .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* \
		htmlcov build dist
	find engine transports migrations tests -name __pycache__ -type d -prune -exec rm -rf {} +
