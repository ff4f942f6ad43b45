# Everything there is to type: make setup | check | test | test-all | demo | bench | docs | clean
# Needs Python 3.11 or newer, git and make; another interpreter: make setup PYTHON=python3.12
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
export HF_HUB_DISABLE_TELEMETRY := 1
# One thread a worker, as many workers as cores (four at most, for their memory), which take over from one another in
# long runs of tests: what the tests of a file share is made twice at most. Bytecode is kept, whatever the shell says:
# the suite starts hundreds of processes, and each would compile the package again.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --maxprocesses=4 --dist worksteal

.PHONY: help setup check test test-all demo bench docs clean

help: ## these lines
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1	/'

setup: $(READY) ## virtual environment with the locked packages; again only after a change of the lock

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("voxlab needs Python 3.11 or newer, %s is %s. Try: make setup PYTHON=python3.12" % (sys.executable, sys.version.split()[0]) if sys.version_info < (3, 11) else 0)'
	@echo "virtual environment: .venv"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@echo "packages of requirements.lock: a download of gigabytes the first time"
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@echo "pesq: compiled here"
	$(BIN)/uv pip install --quiet --python $(BIN)/python pesq==0.0.4 2>/dev/null || echo "no C compiler: reports will do without PESQ"
	@touch $@

check: setup ## format, lint, types and the quick tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(PYTEST) -q -m "not slow and not gpu and not weights"

test: setup ## the suite; no GPU, no published weights, no network, no long training
	$(PYTEST) -m "not gpu and not weights and not training" --durations=15

test-all: setup ## everything with coverage, also long training and what needs a GPU or published weights
	$(PYTEST) --cov --cov-report=term:skip-covered

demo: setup ## all five tasks on synthetic corpora on the CPU; prints the page to look at
	recipes/tour/run.sh outputs/demo/tour

bench: setup ## every benchmark, about twenty minutes; the figures go into benchmarks/README.md
	$(BIN)/python benchmarks/refresh.py

docs: setup ## the documentation as a site: site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo site/index.html

clean: ## remove the environment, caches, the site and the demo; never outputs of runs, data or converted files
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov build dist site outputs/demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
