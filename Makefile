# Two commands: `make run` shows Holdfast at work, `make test` runs every test.
# Both make their own environment in .venv and need nothing but Python 3.11 or newer.

PY ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export UV_PYTHON_DOWNLOADS := never

.PHONY: run demo test lint types check bench storm lock clean sim

# Serves ./state on http://127.0.0.1:8787 until Ctrl-C; ARGS="--port 9000 --model …" for more.
run: $(READY)
	@$(BIN)/holdfast serve --store state $(ARGS)

# Three processes, one session, one of them killed in mid-sentence.
demo: $(READY)
	@$(BIN)/python -m holdfast.lab.first_light

# So many files at a time; JOBS=0 runs one test after the other.
JOBS ?= auto
test: $(READY)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy
	$(BIN)/mypy --strict tests/typing

check: test lint types

bench: $(READY)
	$(BIN)/holdfast bench all

# Eight processes are killed again and again: SECONDS=600 for ten minutes of it.
SECONDS ?= 60
storm: $(READY)
	@$(BIN)/python tests/support/storm.py all --seconds $(SECONDS)

# The pinned set first (with hashes), then ourselves without dependencies.  uv is only an
# accelerator: where it cannot be had, pip does the same.
$(READY): pyproject.toml requirements.lock
	$(PY) -m venv $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check uv 2>/dev/null || true
	@if [ -x $(BIN)/uv ]; then \
	  $(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements.lock && \
	  $(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e . ; \
	else \
	  $(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock && \
	  $(BIN)/pip install -q --disable-pip-version-check --no-deps -e . ; \
	fi
	@touch $@

# As many simulated storms as fit in 30 minutes on two processors; ARGS="--minutes 1 --least 0".
sim: $(READY)
	@$(BIN)/python -m holdfast.testing.sim --minutes 30 --workers 2 --least 100000 $(ARGS)

lock: $(READY)
	$(BIN)/uv pip compile -q --no-header --universal --generate-hashes --extra dev \
	  pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
