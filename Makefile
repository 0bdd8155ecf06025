PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check wheel venv clean

demo: $(STAMP)
	$(BIN)/delta-attnmask demo

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The wheel in an empty environment, away from the checkout: does it bring all that it needs?
wheel: $(STAMP)
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	home=$$(mktemp -d) && trap 'rm -rf "$$home"' EXIT && $(PYTHON) -m venv "$$home/venv" && \
	"$$home/venv/bin/pip" install --quiet --disable-pip-version-check dist/*.whl && \
	cd "$$home" && venv/bin/delta-attnmask demo --limit 80 --out demo

venv: $(STAMP)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV)
