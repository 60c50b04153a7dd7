# Everything a newcomer runs. Needs Python 3.11 or later, make and git; the rest is installed into
# .venv from requirements.lock and torch-cpu.lock, and installed anew when they change.
#     make toxicity PYTHON=python3.12      # another Python than python3 (after `make clean`)
#     make report CONFIG=config/scale/short.yaml      # laid over the default configuration
#     make install TORCH_INDEX=               # torch from the ordinary index, with all that a GPU needs

PYTHON ?= python3
CORES ?= all
CONFIG ?=
# Without a GPU, PyTorch's own index has a torch that is gigabytes smaller.
NO_GPU := $(if $(shell command -v nvidia-smi 2>/dev/null),,$(filter Linux,$(shell uname -s)))
TORCH_INDEX ?= $(if $(NO_GPU),https://download.pytorch.org/whl/cpu)
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps
TINY := tests/tmp/tiny
LAID_OVER := $(if $(CONFIG),--configfile $(CONFIG))

# The rules call `quark` by its name.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# An old PYTHONPATH would come before the pinned packages.
unexport PYTHONPATH

.PHONY: help install toxicity report try mlflow docs pictures test tiny test-faults test-slurm test-slurm-faults test-slurm-nodes simulate-slurm check format clean
.DEFAULT_GOAL := help

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "make %-17s %s\n", $$1, $$2}'

install: .venv/quark  ## install the pinned packages into .venv, nothing else

toxicity: .venv/quark  ## run the toxicity experiment and print its table
	$(BIN)/snakemake --cores $(CORES) $(LAID_OVER) -- results/tables/toxicity.csv
	@cat results/tables/toxicity.md

report: .venv/quark  ## run the toxicity experiment and gather its pages in results/report.html
	$(BIN)/snakemake --cores $(CORES) $(LAID_OVER) -- results/report/toxicity.html
	$(BIN)/snakemake --report results/report.html $(LAID_OVER) -- results/report/toxicity.html

try: .venv/quark  ## continue your own prompts with the base model and a trained Quark, no run needed
	@test -d resources/models/smollm2-135m || \
	    $(BIN)/snakemake --cores $(CORES) --quiet all $(LAID_OVER) -- resources/models/smollm2-135m
	$(BIN)/quark try --place 5 $(if $(CONFIG),--config $(CONFIG))

mlflow: .venv/quark  ## open the runs that were logged at http://127.0.0.1:5000
	MLFLOW_DISABLE_TELEMETRY=true $(BIN)/mlflow ui --host 127.0.0.1 --workers 1 \
	    --backend-store-uri sqlite:///results/mlflow.db

docs: .venv/quark  ## build the documentation into site/
	$(BIN)/zensical build --strict --clean

pictures: .venv/quark  ## draw the figures of README from the committed tables
	$(BIN)/python docs/pictures.py

test: .venv/quark  ## run the tests
	$(BIN)/python -m pytest

# In a directory of its own, so that it never mixes with real results. The links let the
# configuration's paths, which are relative to the working directory, hold there too.
tiny: .venv/quark  ## run the whole pipeline on a tiny random model
	rm -rf $(TINY)
	mkdir -p $(TINY)/tests
	for part in Snakefile config profiles workflow tests/inputs; do \
	    ln -s "$(CURDIR)/$$part" $(TINY)/$$part || exit 1; done
	cd $(TINY) && snakemake results/tables/toxicity.csv --cores 2 --configfile config/scale/test.yaml
	@cat $(TINY)/results/tables/toxicity.md

test-faults: .venv/quark  ## break a hundred runs of the tiny pipeline and compare what comes out
	$(BIN)/python tests/faults/run.py --tries 100 --out tests/tmp/faults.csv

test-slurm-faults: .venv/quark  ## the same for runs through SLURM (root)
	CHECKPOINTS=last tests/slurm/with $(BIN)/python tests/faults/run.py --slurm --tries 12 --out tests/tmp/faults-slurm.csv

test-slurm: .venv/quark  ## run the tiny pipeline through SLURM, which it installs and starts (root)
	tests/slurm/with tests/slurm/pipeline

test-slurm-nodes: .venv/quark  ## train on two nodes of SLURM and compare with one (root)
	NODES=2 tests/slurm/with $(BIN)/python tests/slurm/nodes.py

simulate-slurm: .venv/quark  ## run the paper's graph through SLURM with jobs that sleep and nodes that fail (root)
	CHECKPOINTS=last NODES=4 tests/slurm/with $(BIN)/python tests/slurm/simulate.py

check: .venv/quark  ## check format, lint, types and workflow, then run the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy quark/
	$(BIN)/snakefmt --check workflow Snakefile
	$(BIN)/snakemake --lint
	$(BIN)/python -m pytest

format: .venv/quark  ## format the code and repair what ruff can repair
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/snakefmt workflow Snakefile

clean:  ## remove .venv, caches and the tiny run; results and resources stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis quark.egg-info tests/tmp
	find quark tests -name __pycache__ -prune -exec rm -rf {} +

# The two marks are written last, so an installation that broke off counts as none. The locks are
# complete, hence --no-deps, and pip refuses a file whose hash is not there. It takes an installed
# torch as it is, so the CPU build, which has other hashes, comes first, and what only CUDA needs is
# then left out.
.venv/packages: requirements.lock torch-cpu.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "$(PYTHON) is missing or older than 3.11; name another: make PYTHON=python3.12 ..." >&2; \
	    exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	    echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu:" \
	        "apt install python3-venv" >&2; exit 1; }
	@echo "Installing the pinned packages into .venv (some minutes, once) ..."
	@$(PYTHON) -m venv --clear .venv
	@cp requirements.lock .venv/
	@if [ -n "$(TORCH_INDEX)" ]; then \
	    if $(INSTALL) --timeout 5 --retries 1 --require-hashes \
	        --index-url $(TORCH_INDEX) -r torch-cpu.lock 2> /dev/null; \
	    then sed -E '/^(cuda|nvidia|triton)/,/[^\\]$$/d' requirements.lock > .venv/requirements.lock; \
	    else echo "$(TORCH_INDEX) did not give the torch of torch-cpu.lock:" \
	        "torch comes from the ordinary index" >&2; fi; fi
	@$(INSTALL) --require-hashes -r .venv/requirements.lock
	@touch $@

.venv/quark: .venv/packages pyproject.toml
	@$(INSTALL) --no-build-isolation --editable .
	@touch $@
