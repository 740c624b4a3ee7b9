# make help
VENV := .venv
BIN := $(VENV)/bin
# The first Python from 3.11 to 3.13 on the path; PYTHON=... names another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $$p && break; done)

.PHONY: help train test test-all lint
help: ## what there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1\t\2/' | expand -t 18

train: $(VENV)/installed ## trains; ARGS="data=lesson seed=3" passes overrides on
	$(BIN)/python train.py $(ARGS)

test: $(VENV)/installed-dev ## runs the tests; ARGS="tests/unit -k mlp" some of them
	$(BIN)/python -m pytest $(ARGS)

test-all: test ## the same, then the long ones: compilers, kills, many processes
	$(BIN)/python -m pytest -m long

lint: $(VENV)/installed-dev ## runs the linters
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "neurona needs Python 3.11, 3.12 or 3.13: install one, or name it with PYTHON=..." >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make a virtual environment: on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 1; }
	@echo "installing the pinned versions into $(VENV) (a minute) ..."
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
