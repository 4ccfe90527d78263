# `make` alone lists the targets. PYTHON=… picks an interpreter, WORKERS=… the number of test processes.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
# Fast checks of what is written beside the code; they are part of `make test` too.
DOC_TESTS := $(wildcard tests/test_docs.py tests/test_project.py tests/test_deploy.py tests/test_packaging.py tests/test_architecture.py)

export PYTHON

.PHONY: help demo test check format bench soak wheel constraints clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-12s %s\n", $$1, $$2 }'

# Stamps: an environment is made once, and again when what it is made from changes.
$(VENV)/.stamp-run $(VENV)/.stamp-dev $(VENV)/.stamp-bench: $(VENV)/.stamp-%: pyproject.toml constraints/build.txt constraints/%.txt tools/prepare
	@tools/prepare venv $*

demo: $(VENV)/.stamp-run ## a backend and the gateway with its own issuer, with curls to paste
	@$(BIN)/gateway demo

test: $(VENV)/.stamp-dev ## every test but the soak tests, against a real Redis; COMPILED=1 for the compiled package
	@tools/prepare redis
	@tools/prepare postgres
	@tools/prepare browser
ifdef COMPILED
	@tools/prepare compiled
	@cd build/compiled && ../../$(BIN)/pytest -q -n $(WORKERS) $(PYTEST_ARGS)
else
	@$(BIN)/pytest -q -n $(WORKERS) $(PYTEST_ARGS)
endif

check: $(VENV)/.stamp-dev ## lint, format, types, import direction, documentation
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/pytest -q $(DOC_TESTS)

format: $(VENV)/.stamp-dev ## apply the formatter and the safe fixes of the linter
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.stamp-bench ## CPU per checked request, beside the peers; QUICK=1 ends within a minute
	@tools/prepare bench
	@tools/prepare edge
	@$(BIN)/python -m tests.benchmarks $(if $(filter-out 0,$(QUICK)),--quick)

soak: $(VENV)/.stamp-dev ## the long tests: gigabytes, thousands of connections, config swaps under load
	@tools/prepare redis
	@tools/prepare postgres
	@$(BIN)/pytest -q -m soak $(PYTEST_ARGS)

wheel: $(VENV)/.stamp-dev ## build dist/*.whl; GATEWAY_COMPILE=1 for one with a compiled request path
	@$(BIN)/python -m hatchling build -t wheel

constraints: ## pin every dependency anew, with hashes, for all supported Pythons
	@tools/prepare constraints

clean: ## remove the environment, builds and caches
	@rm -rf $(VENV) .venv.lock build dist .benchmarks .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find gateway tests -name __pycache__ -type d -prune -exec rm -rf {} +
