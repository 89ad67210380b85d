# make demo   fold two trained networks, verify, benchmark, write reports (no torch needed)
# make test   lint, types, import contracts, then the tests
# make lint   the first three of these
# make suite  fold every model of ONNX's backend suite, as it is and wrapped: minutes
# make fuzz   fold drawn graphs: make fuzz COUNT=1000 SEED=1 SECONDS=600
# make train  train the networks of the demo again, fold and verify them: two minutes
# make clean  remove .venv and what was built
#
# Each target makes .venv when it is absent and installs the versions of constraints.txt.
# PYTHON=python3.12 picks another interpreter. Training, and a few tests, use torch on the CPU. On
# Linux pip's default torch is a CUDA build of several GB, so only a CPU build is taken; where pip
# knows none (PIP_EXTRA_INDEX_URL and PIP_FIND_LINKS tell it of one), the tests that need torch
# are skipped. TORCH=torch takes whatever build there is; TORCH= goes without.

PYTHON ?= python3
TORCH ?= torch==2.13.0$(if $(filter Linux,$(shell uname -s)),+cpu)
VENV := .venv
BIN := $(VENV)/bin
# -qq leaves errors only.
INSTALL := $(BIN)/python -m pip --disable-pip-version-check install -qq -c constraints.txt
BASE := $(VENV)/.base.stamp
DEV := $(VENV)/.dev.stamp

# Tests start the command hundreds of times: compiled modules are kept, as those of an installed
# package are, on machines too that were told to keep none (to compile bnfold's takes 0.3 s).
export PYTHONDONTWRITEBYTECODE :=

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo test lint suite fuzz train clean

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "bnfold needs Python 3.11 or newer: make PYTHON=python3.12 …" >&2; exit 1; }
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(BASE): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing bnfold"
	@$(INSTALL) hatchling editables
	@$(INSTALL) --no-build-isolation -e '.[cpu,report]'
	@touch $@

$(DEV): $(BASE)
	@echo "installing what the tests need"
	@$(if $(strip $(TORCH)),$(INSTALL) '$(TORCH)' || echo "going on without torch" >&2)
	@$(INSTALL) --no-build-isolation -e '.[cpu,dev,report]'
	@touch $@

demo: $(BASE)
	@$(BIN)/python -m models.demo

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

test: lint
	$(BIN)/pytest -n 2 --dist worksteal

# A run that was stopped goes on where it was, unless code was changed since.
suite: $(DEV)
	$(BIN)/python -m tests.onnx_suite $(if $(TURNS),--turns $(TURNS)) $(if $(OUTPUT),--output $(OUTPUT))

fuzz: $(DEV)
	$(BIN)/python -m tests.fuzz --count $(or $(COUNT),1000) --seed $(or $(SEED),0) \
	  $(if $(FIRST),--first $(FIRST)) $(if $(SECONDS),--seconds $(SECONDS))

train: $(DEV)
	$(BIN)/python -m models.train --output build/train --overwrite --publish models

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
