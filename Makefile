# Two commands: `make quickstart` does the main job on this machine, `make test` checks the product.
# Both install what they need into .venv first; uv is used because it installs several times faster.
PYTHON ?= python3
VENV ?= .venv
OUT ?= quickstart
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
# uv does not read pip's settings: hand over the one that names a folder of local wheels.
UV := UV_FIND_LINKS="$${UV_FIND_LINKS:-$${PIP_FIND_LINKS:-}}" $(BIN)/uv pip install -q --python $(BIN)/python -c $(CONSTRAINTS)

# Else every process of a machine that sets it (containers often do) compiles all it imports again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart test lint types unit lowest clean

quickstart: $(VENV)/.user
	$(BIN)/hwprof quickstart --out $(OUT)

test: lint types unit

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

unit: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile

# The oldest versions that pyproject.toml admits. Beside a newer Python they are deprecated in parts.
lowest:
	UV_RESOLUTION=lowest-direct PYTEST_ADDOPTS="-W ignore::DeprecationWarning" $(MAKE) unit VENV=.venv-lowest CONSTRAINTS=/dev/null

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || { echo "$(PYTHON) is $$($(PYTHON) -V 2>&1); expected 3.11 to 3.14, which constraints.txt pins; name one with: make PYTHON=python3.13 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt uv

$(VENV)/.user: pyproject.toml constraints.txt | $(BIN)/uv
	@echo "installing hwprof into $(VENV) (once)"
	$(UV) -e '.[search,report]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/uv
	@echo "installing hwprof and its tests into $(VENV) (once)"
	$(UV) -e '.[dev]'
	@touch $@ $(VENV)/.user

clean:
	rm -rf $(VENV) .venv-lowest build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
