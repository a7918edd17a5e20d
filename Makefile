# farmsync: each target sets up what it needs. `make demo` and `make test` are the two to know.

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& echo $$python && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test check lint format bench clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name does; do \
		printf '  make %-8s %s\n' "$$name" "$$does"; done

demo: $(READY) ## a farm with wrong clocks switches to new data at one instant (SITE=path: your own; KEEP=1: leave it up)
	@SITE="$(SITE)" KEEP="$(KEEP)" $(BIN)/python -m demo

test: $(READY) ## all tests (ARGS="-k name" for some)
	$(BIN)/pytest -n 3 -p no:cacheprovider $(ARGS)

check: lint test ## ruff, mypy and all tests

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --no-cache --check .
	$(BIN)/mypy --cache-dir $(VENV)/mypy

format: $(READY) ## bring the code into its form
	$(BIN)/ruff check --no-cache --fix .
	$(BIN)/ruff format --no-cache .

bench: $(READY) ## every benchmark beside its peer (ONLY=name for one)
	$(BIN)/python -m bench $(ONLY)

clean: ## remove what these targets made
	rm -rf $(VENV) build dist farmsync.egg-info twisted/plugins/dropin.cache

$(READY): setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo 'expected Python 3.11 or later with its venv module, found none;' \
		'on Debian and Ubuntu: apt-get install python3 python3-venv' >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat -e '.[dev]'
	@touch $@
