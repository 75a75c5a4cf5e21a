# make demo: everything from nothing to a segmentation.   make test: everything that must hold.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONNOUSERSITE := 1

.PHONY: setup demo check format test test-slurm bench clean
.DEFAULT_GOAL := demo

setup: .venv/.ready

.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; got $$($(PYTHON) --version). Name another: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

demo: setup
	snakemake --profile profiles/default
	@echo; echo "Scores:  results/segmentations/demo/scores.json"; echo "Report:  results/segmentations/demo/report.html"

check: setup
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	snakefmt --check --compact-diff workflow
	snakemake --profile profiles/default --lint
	python -m pytest -q tests/test_in_sync.py

format: setup
	ruff format .
	ruff check --fix .
	snakefmt workflow
	spoco-blocks schema > workflow/schemas/config.schema.json

# The last line runs where a Slurm is there or can be installed (as root, on Debian or Ubuntu), and says so where not.
test: check
	python -m pytest
	python -m pytest -m slurm tests/slurm/test_happy_path.py -k cgroup

# Everything that may happen to jobs. Installs Slurm where it is missing: as root, on Debian or Ubuntu. Prints a table: event, blocks redone, result.
test-slurm: setup
	python -m pytest -m slurm tests/slurm -s

bench: setup
	python -m bench clustering
	python -m bench mutex
	python -m bench engine
	python -m bench demo

clean:
	rm -rf .venv results logs .snakemake .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info
