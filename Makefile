# The one entry point. `make` alone lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.lensway-env
# A checkout that only runs the demo gets a smaller environment; `make env` completes it.
DEMO_STAMP := $(if $(wildcard $(STAMP)),$(STAMP),$(VENV)/.lensway-demo)
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header

.DEFAULT_GOAL := help
.PHONY: help env check test unit test-deps demo demo-data bench prove mutants chaos screenshots dist images lock format

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

env: $(STAMP) ## build .venv from the lock file, nothing else

$(STAMP): requirements.lock pyproject.toml
	@$(call build_environment,requirements.lock)
	@touch $@

$(VENV)/.lensway-demo: requirements-demo.lock pyproject.toml
	@$(call build_environment,requirements-demo.lock)
	@touch $@

define build_environment
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "lensway needs Python 3.11 or newer as $(PYTHON); set PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) lacks the venv module; install it (Debian: apt-get install python3-venv)" >&2; exit 2; }
	@echo "building $(VENV) from $(1) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(1)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
endef

check: $(STAMP) ## linters, types, room contracts, docs checks
	@$(BIN)/python -m tools.check

test-deps: $(STAMP) ## install the system packages that the tests need, only what is missing
	@$(BIN)/python -m tools.system_packages

test: test-deps ## the whole suite; ARGS goes to pytest
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(ARGS)

unit: $(STAMP) ## every test that needs no process, database or browser, in under 20 s
	@$(BIN)/python -m pytest -p tools.unit --numprocesses 2 --dist worksteal -q $(ARGS)

demo: $(DEMO_STAMP) ## the main job on real data; ARGS=--once exits after it
	@$(BIN)/python -m demo $(ARGS)

demo-data: $(DEMO_STAMP) ## the demo's tables as an SQL file for deploy/compose.yaml
	@$(BIN)/python -m demo.dump $(ARGS)

bench: $(STAMP) ## benchmarks beside their references; ARGS=quick in two minutes
	@$(BIN)/python -m benchmarks $(ARGS)

prove: test-deps ## the long proofs; appends to docs/proofs.md
	@$(BIN)/python -m proofs $(ARGS)

mutants: test-deps ## plant known bugs and look which test notices each; ARGS picks them by words of their names
	@$(BIN)/python -m tools.mutants $(ARGS)
	@$(BIN)/python -m tools.planted_bridges $(ARGS)

chaos: test-deps ## the chaos run for a few minutes, with its verdict
	@$(BIN)/python -m proofs chaos $(ARGS)

screenshots: test-deps ## the Console's pages in every state; ARGS is the folder, a temporary one by default
	@$(BIN)/python -m tools.screenshots $(ARGS)

dist: $(STAMP) ## wheel, sdist, SBOM and their sums in dist/, the same bytes from the same commit
	@$(BIN)/python -m tools.dist $(ARGS)

images: $(STAMP) ## build the images with buildah and run each as an unknown user on a read-only root; needs root
	@$(BIN)/python -m tools.images $(ARGS)

lock: $(STAMP) ## write requirements.lock and its subsets anew from pyproject.toml
	@$(COMPILE) --all-extras --group dev pyproject.toml --output-file requirements.lock >/dev/null
	@$(COMPILE) --constraint requirements.lock --extra server --extra postgres --group demo pyproject.toml --output-file requirements-demo.lock >/dev/null
	@$(COMPILE) --constraint requirements.lock --all-extras pyproject.toml --output-file requirements-extras.lock >/dev/null
	@$(COMPILE) --constraint requirements.lock --group build --output-file deploy/requirements-build.lock >/dev/null
	@$(COMPILE) --constraint requirements.lock --extra runner --extra postgres pyproject.toml --output-file deploy/requirements-runner.lock >/dev/null
	@$(COMPILE) --constraint requirements.lock --extra server --extra postgres --extra arrow pyproject.toml --output-file deploy/requirements-server.lock >/dev/null

format: $(STAMP) ## format and fix what can be fixed
	@$(BIN)/ruff format -q . ; $(BIN)/ruff check -q --fix .
