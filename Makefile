# Needs python3 >= 3.11 (with venv and pip) and nothing else; everything goes into .venv.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
BIN := .venv/bin
READY := .venv/.ready
RANDOM := features/test_point_in_time features/test_states features/test_pushing features/test_historical features/test_saved_rows \
    features/test_request_rows features/test_getter features/test_expressions core/test_exact

.PHONY: help setup demo test check torture bench format lock clean

help:  ## this screen
	@printf 'Tidemill: the MLOps loop in one Python package\n\n'
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## make .venv from the lock (at once when nothing changed)
	@:

$(READY): pyproject.toml requirements.lock scripts/set-up
	@scripts/set-up
	@touch $@

demo: setup  ## replay a year of flights: a model kept in the loop against the same model left alone
	@scripts/apt-packages libgomp1
	@cd examples/flights && ../../$(BIN)/tidemill replay

test: setup  ## all tests but torture and those of `make check` (under 10 minutes)
	@scripts/apt-packages libgomp1 chromium
	@scripts/mlflow-client
	@scripts/protocol-clients
	@$(BIN)/python -m pytest -q -n 2 --ignore tests/architecture

check: setup  ## format, lint, types, import contracts, budgets
	@$(BIN)/ruff format --check --output-format concise . || { echo 'mend with: make format'; exit 1; }
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/architecture

torture: setup  ## kills, soaks and long simulations
	@scripts/apt-packages libgomp1
	@scripts/protocol-clients
	@scripts/mlflow-torch
	@$(BIN)/python -m pytest -q -n 2 -m torture
	@scripts/with-torch -m pytest -q -m torture tests/models/test_torch.py
	@TIDEMILL_EXAMPLES=20 $(BIN)/python -m pytest -q -n 2 $(RANDOM:%=tests/%.py)

bench: setup  ## every benchmark in benchmarks/
	@scripts/apt-packages libgomp1
	@for file in benchmarks/*.py; do printf '\n== %s\n' "$$file"; $(BIN)/python "$$file"; done

format: setup  ## format, and mend what ruff can mend
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

lock: setup  ## write requirements.lock after a change of dependencies (UPGRADE=--upgrade: newest of all)
	@$(BIN)/uv pip compile --quiet pyproject.toml --extra all --extra flights --group dev --universal $(UPGRADE) \
	    --no-emit-index-url --no-annotate --no-header --generate-hashes --output-file requirements.lock
	@$(BIN)/uv pip compile --quiet tests/clients/requirements.in --universal --python-version 3.11 $(UPGRADE) \
	    --no-emit-index-url --no-annotate --no-header --generate-hashes --output-file tests/clients/requirements.lock
	@for client in triton kserve mlserver schemathesis; do \
	    $(BIN)/uv pip compile --quiet tests/conformance/oip/clients/$$client.in --universal --python-version 3.11 $(UPGRADE) --no-emit-index-url \
	        --no-annotate --no-header --generate-hashes --output-file tests/conformance/oip/clients/$$client.lock; \
	done

clean:  ## remove .venv, caches and build output (a project's .tidemill stays)
	@rm -rf .venv .venv-mlflow .venv-mlflow-torch .venv-protocol dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
