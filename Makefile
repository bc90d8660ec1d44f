# make quickstart: install what is pinned and run the whole way once, from raw pages to a model that can be talked to.
# make test:       install with the test tools and run the tests.

PYTHON ?= python3
BIN = .venv/bin
export OMP_NUM_THREADS = 1
export TOKENIZERS_PARALLELISM = false

.PHONY: quickstart test check install install-dev

quickstart: install
	$(BIN)/glassbox run recipes/quickstart.yaml
	$(BIN)/glassbox verify quickstart

test: install-dev
	$(BIN)/pytest

check: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install: .venv/installed
install-dev: .venv/installed-dev

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[serve]"
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@
