# Two commands do all the set-up: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

.PHONY: setup
setup: packages venv ## system packages and the Python environment

.PHONY: packages
packages:
	@missing=$$(grep -vxFf <(dpkg-query -W -f '$${db:Status-Abbrev}|$${Package}\n' 2>/dev/null \
	    | sed -n 's/^ii *|//p') packages/debian.txt || true); \
	if [ -n "$$missing" ]; then \
	    echo "installing:" $$missing; \
	    $(SUDO) apt-get -qq update && \
	    DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get -qq install -y --no-install-recommends $$missing; \
	fi

.PHONY: venv
venv: .venv/.stamp

.venv/.stamp: requirements/dev.txt pyproject.toml
	/usr/bin/python3 -m venv .venv
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: check
check: setup ## ruff, mypy, import-linter
	.venv/bin/ruff format --check src tests
	.venv/bin/ruff check src tests
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache

.PHONY: test
test: test-unit ## everything that CI runs

.PHONY: test-unit
test-unit: setup ## tests without a virtual machine
	.venv/bin/pytest tests/unit

.PHONY: clean
clean: ## remove what set-up and tests made in this folder
	rm -rf .venv build out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -prune -exec rm -rf {} +
