# Needs only make and Python 3.11 or newer. `make help` lists the verbs.

VENV := .venv
BIN := $(VENV)/bin

# The first Python that runs and is new enough; override with `make PYTHON=/path/to/python`.
ifndef PYTHON
PYTHON := $(shell for p in python3.11 python3 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
endif

ENV_ID ?= CartPole-v1
ARGS ?=

PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# The tests run in two processes; more threads in each would only get in each other's way.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

.DEFAULT_GOAL := help
.PHONY: help train test test-slow format clean

help:
	@echo "make train      install, then train DQN on $(ENV_ID); results go to runs/"
	@echo "                (another environment or more options: make train ENV_ID=LunarLander-v3 ARGS='...')"
	@echo "make test       format check, lint, types and all fast tests"
	@echo "make test-slow  the slow tests: learning runs"
	@echo "make format     format the source"
	@echo "make clean      remove $(VENV), caches and build products; runs/ stays"

train: $(VENV)/.installed-train
	$(BIN)/nexus train $(ENV_ID) $(ARGS)
	@echo "The results are in runs/; the newest is runs/$$(ls -t runs | head -n 1)"

test: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/.installed-dev
	$(PYTEST) -m slow

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# The stamps make pip run again only when one of these files has changed.
$(VENV)/.installed-%: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "nexus needs Python 3.11 or newer; name one with: make $(MAKECMDGOALS) PYTHON=/path/to/python"; exit 1; }
	@test -x $(BIN)/pip || { echo "Creating $(VENV)"; "$(PYTHON)" -m venv --clear $(VENV); }
	@echo "Installing nexus and its dependencies into $(VENV) (PyTorch is large: minutes the first time)"
	@$(PIP_INSTALL) --editable '.[$(EXTRA)]'
	@touch $@

$(VENV)/.installed-train: EXTRA := plot
$(VENV)/.installed-dev: EXTRA := dev
