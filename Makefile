# Two commands do all the set-up: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
SECONDS_EACH ?= 60

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

.PHONY: setup
setup: packages venv man ## system packages and the Python environment

.PHONY: packages
packages:
	@missing=$$(grep -vxFf <(dpkg-query -W -f '$${db:Status-Abbrev}|$${Package}\n' 2>/dev/null \
	    | sed -n 's/^ii *|//p') packages/debian.txt || true); \
	if [ -n "$$missing" ]; then \
	    echo "installing:" $$missing; \
	    $(SUDO) apt-get -qq update && \
	    $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing; \
	fi

.PHONY: venv
venv: .venv/.stamp

.venv/.stamp: requirements/dev.txt pyproject.toml
	/usr/bin/python3 -m venv .venv
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: man
man: .venv/share/man/.stamp ## man pages of all commands, which man finds beside the commands

.venv/share/man/.stamp: .venv/.stamp pyproject.toml $(wildcard src/insula/tools/*.py)
	$(PYTHON) -m insula.tools.man .venv/share/man/man1
	@touch $@

.PHONY: demo
demo: setup ## the whole thing, shown: qubes of several colours on one desktop
	.venv/bin/insula up
	.venv/bin/insula template build debian-12
	$(PYTHON) -m insula.tools.demo

.PHONY: check
check: setup ## ruff, mypy, import-linter
	.venv/bin/ruff format --check src tests
	.venv/bin/ruff check src tests
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache

.PHONY: test
test: test-unit test-jail test-net test-desktop test-vm ## everything that CI runs

.PHONY: test-unit
test-unit: setup ## tests without a virtual machine
	.venv/bin/pytest tests/unit tests/storm

.PHONY: test-jail
test-jail: setup ## what a process in a jail can and cannot do
	.venv/bin/pytest tests/jail

.PHONY: test-net
test-net: setup ## packet filters and links, with real packets in network namespaces
	unshare --mount --net $(if $(filter 0,$(shell id -u)),,--user --map-root-user) \
	    sh -c 'mount -t tmpfs tmpfs /run && exec .venv/bin/pytest tests/net'

.PHONY: test-desktop
test-desktop: setup ## tests with real X servers
	.venv/bin/pytest tests/desktop

.PHONY: test-vm
test-vm: setup ## tests with real virtual machines
	.venv/bin/pytest tests/vm

.PHONY: kvm
kvm: setup ## the tests with virtual machines, on KVM
	@if $(PYTHON) -m insula.daemon.engine.qemu.detect | grep -q '"usable": true'; then \
	    INSULA_ENGINE=kvm .venv/bin/pytest tests/vm; \
	else \
	    echo "SKIPPED: NOTHING WAS TESTED ON KVM, which cannot be used here:"; \
	    $(PYTHON) -m insula.daemon.engine.qemu.detect; \
	fi

.PHONY: soak
soak: setup ## a hundred clones that draw nothing alike; a daemon that is killed 2000 times
	INSULA_TEST_KILLS=2000 .venv/bin/pytest tests/storm --timeout 3600
	INSULA_TEST_CLONES=100 .venv/bin/pytest tests/vm/test_clones.py --timeout 1200 -k 'seed_alone or share_no_ids'

.PHONY: fuzz
fuzz: setup ## the parsers, SECONDS_EACH for each
	@$(PYTHON) -c 'import atheris' 2>/dev/null || $(PYTHON) -m pip install --quiet \
	    --disable-pip-version-check --require-hashes -r requirements/fuzz.txt
	$(PYTHON) -m tests.fuzz $(SECONDS_EACH) $(TARGETS)

.PHONY: bench
bench: setup ## the figures, measured on this machine
	$(PYTHON) -m tests.bench $(FIGURES)

.PHONY: lock
lock: setup ## pin the dependencies of requirements/*.in, with hashes
	@$(PYTHON) -c 'import piptools' 2>/dev/null || $(PYTHON) -m pip install --quiet pip-tools
	@for set in base dev fuzz; do \
	    (cd requirements && ../$(PYTHON) -m piptools compile --quiet --generate-hashes \
	        --allow-unsafe --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
	        --output-file $$set.txt $$set.in); \
	done

.PHONY: clean
clean: ## remove what set-up and tests made in this folder
	rm -rf .venv build out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -prune -exec rm -rf {} +
