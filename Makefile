# Every target makes the virtual environment when it is missing or older than the lists of packages.
#
# PYTHON         the interpreter to build the environment with (3.11 or newer)
# TORCH_INSTALL  how pip is asked for torch: any of pip's arguments, such as the index of CPU builds
# MODEL, DEVICE  passed to `make study` and `make bench` where given
# ARGS           more options of `make bench` and `make bench-full`
# WORKERS        processes that share a study
# NOISY          folder of the second checkpoint, for `make study`

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo "$$p"; break; }; done)
TORCH_INSTALL ?= torch==2.13.0
NOISY ?= data/pocket-noisy
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Fresh allocations cost page faults that can halve the speed of small CPU machines; keep freed memory instead.
export MALLOC_MMAP_THRESHOLD_ := 4294967296
export MALLOC_TRIM_THRESHOLD_ := 4294967296
export OMP_NUM_THREADS ?= $(shell nproc 2>/dev/null || echo 2)
export TOKENIZERS_PARALLELISM := false
export PYTHONUNBUFFERED := 1

# On a CPU the embedded model learns fastest in one process with one thread per core.
WORKERS ?= $(if $(MODEL)$(DEVICE),1,$(shell nproc 2>/dev/null || echo 1))
STUDY_ARGS := $(strip $(if $(MODEL),--model $(MODEL)) $(if $(DEVICE),--device $(DEVICE)))

.PHONY: help venv demo test test-postgres check format accept bench bench-full bench-gpu study study-smoke study-full figures clean

help:
	@echo "make demo     set everything up and show the main job"
	@echo "make test     the whole test suite, one process"
	@echo "make test-postgres  the store's tests on a private PostgreSQL server, where its programs are installed"
	@echo "make check    ruff, pyright, import contracts"
	@echo "make accept   the clauses of docs/acceptance.md: built, missing, missed by how much"
	@echo "make bench    what serving and learning cost, as ratios: 8 minutes; bench-full: every row, hours"
	@echo "make bench-gpu  the same on a GPU in 10 minutes; without one a smoke test with tiny shapes"
	@echo "make study    learning curves and controls of simulated users; study-smoke: seconds, study-full: everything"
	@echo "make figures  every recorded figure, missed ones first"
	@echo "make format   let ruff format and sort the tree"
	@echo "make clean    remove caches and outputs (keeps .venv and data/)"

venv: $(READY)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python"; exit 2; }
	@date +%s > .venv-started
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH_INSTALL)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	@echo $$(( $$(date +%s) - $$(cat .venv-started) )) > $(READY) && rm .venv-started

demo: $(READY)
	@$(BIN)/python scripts/setup_figure.py $(READY)
	$(BIN)/personalize demo --figures .

test: $(READY)
	@mkdir -p runs
	$(BIN)/python -m pytest -q --junitxml=runs/junit.xml

test-postgres: $(READY)
	scripts/postgres_tests

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

accept: $(READY)
	$(BIN)/python scripts/accept.py --write

bench: $(READY)
	$(BIN)/python -m personalize.evaluation.bench --max-minutes 7.5 $(STUDY_ARGS) $(ARGS)

bench-full: $(READY)
	$(BIN)/python -m personalize.evaluation.bench --size full $(STUDY_ARGS) $(ARGS)

bench-gpu: $(READY)
	$(BIN)/python -m personalize.evaluation.bench.gpu --max-minutes 8 $(if $(DEVICE),--device $(DEVICE))

study: $(READY)
	$(BIN)/python -m personalize.evaluation.study --max-minutes 80 --workers $(WORKERS) --figures . $(STUDY_ARGS)
	@test -z "$(STUDY_ARGS)" || exit 0; test -d "$(NOISY)" || { echo "no pocket-noisy in $(NOISY): its rows are not run"; exit 0; }; \
	$(BIN)/python -m personalize.evaluation.study --size noisy --model "$(NOISY)" --max-minutes 15 --workers $(WORKERS) --figures .

study-smoke: $(READY)
	rm -rf runs/study-smoke
	$(BIN)/python -m personalize.evaluation.study --size smoke --workers $(WORKERS) --out runs/study-smoke/results.jsonl $(STUDY_ARGS)

study-full: $(READY)
	$(BIN)/python -m personalize.evaluation.study --size full --workers $(WORKERS) --figures . $(STUDY_ARGS)

figures: $(READY)
	$(BIN)/python scripts/figures.py

clean:
	rm -rf .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist runs demo-output
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
