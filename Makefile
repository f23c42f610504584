# Two commands on a fresh machine with git, make and Python 3.11: `make demo` and `make test`.
PYTHON ?= python3.11
ifeq (, $(shell command -v $(PYTHON) 2>/dev/null))
PYTHON := python3
endif
VENV := .venv
BIN := $(VENV)/bin

# Without bytecode every command compiles the whole package anew: 2 s each time, in the tests a hundred times.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test check bench lock compile clean

help:  ## what each target does
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# uv installs from the lock in seconds; pip alone brings uv.
$(VENV)/.uv:
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11 is needed, this is {v.major}.{v.minor}: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@touch $@

$(VENV)/.installed: requirements.lock pyproject.toml | $(VENV)/.uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock pyproject.toml | $(VENV)/.uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements-dev.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@ $(VENV)/.installed

setup: $(VENV)/.installed  ## install what the product needs into .venv
setup-dev: $(VENV)/.installed-dev  ## the same, with what developing it needs

demo: setup  ## simulate a shop, run last night's job, show what fired, open the Dagster UI
	$(BIN)/metrics demo $(ARGS)

test: setup-dev  ## all tests that this machine can run
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

check: setup-dev  ## formatting, types, import contracts, SQL, generated files, alert rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/metrics compile --check
	$(BIN)/metrics library lint
	$(BIN)/metrics rules lint
	cd dbt_project && METRICS_BUILD_PATH=target/lint.duckdb ../$(BIN)/sqlfluff lint models

bench: setup-dev  ## measure: docs/performance.md
	$(BIN)/python -m benchmarks $(ARGS)

compile: setup  ## write the dbt models that follow from the metric definitions
	$(BIN)/metrics compile

lock: setup-dev  ## renew the two lock files
	$(BIN)/uv pip compile --quiet pyproject.toml --group dev --python-version 3.11 --generate-hashes --no-header --no-annotate -o requirements-dev.lock
	$(BIN)/uv pip compile --quiet pyproject.toml -c requirements-dev.lock --python-version 3.11 --generate-hashes --no-header --no-annotate -o requirements.lock

clean:  ## remove the installation in .metrics and every cache
	rm -rf .metrics .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dbt_project/target dbt_project/logs
