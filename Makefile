# make run: set up, then train the default predictor on the embedded benchmark; make test: set up, then test.
# make tables: make the runs of the embedded benchmarks' tables that are missing (hours on a CPU), then all tables.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: run test tables setup lint clean

run: setup
	$(BIN)/python run.py

test: setup
	$(BIN)/python -m pytest

tables: setup
	$(BIN)/narbench tables run digits201 --only-missing
	$(BIN)/narbench tables run ortcpu --only-missing
	$(BIN)/narbench tables

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV)
