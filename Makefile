# `make demo` and `make test` do all the set-up themselves; a second call starts at once.

SHELL := /bin/sh
SUPPORTED := import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3.14 python3 python; do \
	"$$p" -c '$(SUPPORTED)' 2>/dev/null && { echo "$$p"; break; }; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
STAMP := .venv/.set-up

.PHONY: setup demo test lint format bench clean

setup: $(STAMP)

# uv brings the large wheels several times as fast as pip; where it is not to be had, pip does the same.
# The stamp is written last, so that a set-up that was broken off is done again.
$(STAMP): pyproject.toml constraints.txt
	@"$(PYTHON)" -c '$(SUPPORTED)' 2>/dev/null || { echo "evomask needs Python 3.11 to 3.14 with its venv module:" \
		"install one, or run make PYTHON=/path/to/python" >&2; exit 2; }
	"$(PYTHON)" -m venv --clear .venv
	$(PIP) uv && \
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --constraint constraints.txt --editable '.[dev]' || \
	$(PIP) --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/evomask demo

# One thread a process: two processes of tests share two cores.
test: setup
	OMP_NUM_THREADS=1 MPLBACKEND=Agg $(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term --cov-fail-under=85

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(PIP) --editable '.[bench]'
	for name in hierarchy overhead step; do $(BIN)/evomask bench $$name || exit 1; done

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis .coverage .coverage.*
