# Each target sets up what it needs; nothing is done again until pyproject.toml or constraints.txt changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --no-input -c constraints.txt
ARGS ?=
FUZZ_SECONDS ?= 600

# What bmtl/evaluation, bmtl/targets and their tests import: no torch, so that the set-up takes seconds on any Python.
ARVIZ1_VENV := .venv-arviz1
ARVIZ1_PYTHON ?=
ARVIZ1_PACKAGES := numpy scipy pandas xarray netCDF4 arviz arviz-base 'arviz-stats[xarray]' 'arviz-plots[matplotlib]' \
	matplotlib scikit-learn scoringrules pytest pytest-xdist hypothesis

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: $(VENV)/.installed ## Compare balancers on real molecules and write runs/demo (ARGS=--quick for a short one)
	@$(BIN)/bmtl demo $(ARGS)

.PHONY: test
test: $(VENV)/.installed-dev ## Run the tests
	@# One thread each: two workers on small networks are faster than two threads.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(ARGS)

.PHONY: rows
rows: $(VENV)/.installed-dev ## Train rows of the documentation's tables again, and compare (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m rows tests/examples $(ARGS)

.PHONY: coverage
coverage: $(VENV)/.installed-dev ## Run the tests, a third slower, with line coverage of bmtl, which must reach 90 %
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --cov --cov-report=term-missing:skip-covered $(ARGS)

.PHONY: lint
lint: $(VENV)/.installed-dev ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: docs
docs: $(VENV)/.installed-dev ## Build the documentation in build/docs; a warning is an error
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -b html -W --keep-going -q docs build/docs
	@echo "Built build/docs/index.html"

.PHONY: bench
bench: $(VENV)/.installed-dev ## Run every benchmark (ARGS=--quick for a short one)
	@set -e; for script in $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py)); do \
		echo "== $$script"; $(BIN)/python "$$script" $(ARGS); \
	done

.PHONY: gpu
gpu: $(VENV)/.installed-dev ## Check a CUDA device and write gpu.json; says "skipped" without one (ARGS=--quick for a short one)
	@$(BIN)/python benchmarks/gpu.py --json gpu.json $(ARGS)

.PHONY: fuzz
fuzz: $(VENV)/.installed-dev ## Run the property tests with fresh seeds for a time (ARGS=tests/..., FUZZ_SECONDS=600)
	@end=$$(( $$(date +%s) + $(FUZZ_SECONDS) )); \
	while [ $$(date +%s) -lt $$end ]; do \
		seed=$$(od -An -N4 -tu4 /dev/urandom | tr -d ' '); echo "== --hypothesis-seed=$$seed"; \
		OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m hypothesis --hypothesis-profile=fuzz --hypothesis-seed=$$seed $(ARGS) \
			|| exit 1; \
	done

.PHONY: test-arviz1
test-arviz1: ## Run the tests of targets and evaluation on ArviZ 1.x, with the first Python 3.12 or newer that is found
	@set -e; found=$$($(FIND_PYTHON_ARVIZ1)); \
	if [ -z "$$found" ]; then \
		echo "test-arviz1: skipped, no Python 3.12 or newer on PATH, under pyenv or uv (set ARVIZ1_PYTHON=/path/to/python)"; \
		exit 0; \
	fi; \
	$(MAKE) --no-print-directory PYTHON="$$found" $(ARVIZ1_VENV)/.installed; \
	echo "test-arviz1: $$($(ARVIZ1_VENV)/bin/python -c 'import arviz_base, platform; print("Python", platform.python_version(), "with arviz-base", arviz_base.__version__)')"; \
	OMP_NUM_THREADS=1 $(ARVIZ1_VENV)/bin/python -m pytest -n 2 tests/targets tests/evaluation tests/test_standard_library.py $(ARGS)

# Each candidate is run: a version manager's shim is on PATH even where its interpreter is not enabled.
define FIND_PYTHON_ARVIZ1
for candidate in $(ARVIZ1_PYTHON) python3.12 python3.13 python3.14 python3 \
	$$(ls -d "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.1[2-9]*/bin/python 2>/dev/null) \
	$$(uv python find --no-python-downloads '>=3.12' 2>/dev/null); do \
	if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; then echo "$$candidate"; break; fi; \
done
endef

.PHONY: clean
clean: ## Remove caches and builds; environments and runs stay
	rm -rf build dist .coverage .coverage.* htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -path './.venv*' -prune -o -type d -name __pycache__ -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## Remove the environments too
	rm -rf $(VENV) $(ARVIZ1_VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing bmtl into $(VENV) (about a minute the first time) ..."
	@$(BIN)/python $(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing bmtl with its development tools into $(VENV) (about a minute the first time) ..."
	@$(BIN)/python $(PIP_INSTALL) -e '.[dev,distributed,frames,gp,graph,molecules,rl,vision]'
	@touch $(VENV)/.installed $@

$(ARVIZ1_VENV)/.installed: constraints.txt Makefile | $(ARVIZ1_VENV)/bin/python
	@echo "Installing ArviZ 1.x into $(ARVIZ1_VENV) ..."
	@$(ARVIZ1_VENV)/bin/python $(PIP_INSTALL) $(ARVIZ1_PACKAGES)
	@touch $@

$(VENV)/bin/python $(ARVIZ1_VENV)/bin/python:
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "bmtl needs Python 3.11 or newer, and there is no $(PYTHON) on PATH. Name one: make PYTHON=/path/to/python" >&2; \
		exit 1; \
	}
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "bmtl needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=/path/to/python" >&2; \
		exit 1; \
	}
	@echo "Creating $(patsubst %/bin/python,%,$@) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv $(patsubst %/bin/python,%,$@)
