# Each target sets up what it needs; nothing is done again until pyproject.toml or constraints.txt changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --no-input -c constraints.txt
ARGS ?=

# What bmtl/evaluation and its tests import: no torch, so that the set-up takes seconds on any Python.
ARVIZ1_VENV := .venv-arviz1
ARVIZ1_PYTHON ?= python3.12 python3.13 python3.14 python3
ARVIZ1_PACKAGES := numpy scipy pandas xarray netCDF4 arviz arviz-base 'arviz-stats[xarray]' 'arviz-plots[matplotlib]' \
	matplotlib pytest hypothesis

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: $(VENV)/.installed ## Compare balancers on real molecules and write runs/demo (ARGS=--quick for a short one)
	@$(BIN)/bmtl demo $(ARGS)

.PHONY: test
test: $(VENV)/.installed-dev ## Run the tests; line coverage of bmtl must reach 90 %
	@# One thread each: two workers on small networks are faster than two threads.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --cov --cov-report=term-missing:skip-covered $(ARGS)

.PHONY: lint
lint: $(VENV)/.installed-dev ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: bench
bench: $(VENV)/.installed-dev ## Run every benchmark
	@set -e; for script in $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py)); do \
		echo "== $$script"; $(BIN)/python "$$script" $(ARGS); \
	done

.PHONY: test-arviz1
test-arviz1: ## Run the evaluation tests on ArviZ 1.x, where Python 3.12 or newer is at hand
	@# Run each candidate: a version manager's shim is on PATH even where its interpreter is not enabled.
	@set -e; found=; for candidate in $(ARVIZ1_PYTHON); do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; then \
			found="$$candidate"; break; \
		fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "test-arviz1: skipped, no working Python 3.12 or newer on PATH (set ARVIZ1_PYTHON=/path/to/python to name one)"; \
		exit 0; \
	fi; \
	$(MAKE) --no-print-directory PYTHON="$$found" $(ARVIZ1_VENV)/.installed; \
	echo "test-arviz1: $$($(ARVIZ1_VENV)/bin/python -c 'import arviz_base, platform; print("Python", platform.python_version(), "with arviz-base", arviz_base.__version__)')"; \
	OMP_NUM_THREADS=1 $(ARVIZ1_VENV)/bin/python -m pytest tests/evaluation $(ARGS)

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
	@$(BIN)/python $(PIP_INSTALL) -e '.[dev,distributed,gp,rl]'
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
