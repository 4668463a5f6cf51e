# Two targets do everything on a machine with Python 3.11+ and make: `make plan` (ARGS="…" are its flags) and `make test`.
# The first Python that runs and is new enough; a name on the PATH alone may be a stub of a version manager.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
ARGS ?= --qps 200 --min-quality 0.8
DONE := $(VENV)/.installed
DEV_DONE := $(VENV)/.dev-installed

.PHONY: plan test lint clean
.DEFAULT_GOAL := plan

plan: $(DONE)
	@$(VENV)/bin/plan $(ARGS)

test: $(DEV_DONE)
	$(VENV)/bin/python -m pytest -n auto

lint: $(DEV_DONE)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "needs Python 3.11 or newer on the PATH, or named with PYTHON=…"; exit 2; }
	@$(PYTHON) -m venv $(VENV)

$(DONE): $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Setting up $(VENV) …" >&2
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(DEV_DONE): $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Setting up $(VENV) for tests …" >&2
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(DONE) $@

clean:
	rm -rf $(VENV) build dist
