# Everything is set up in .venv, from the hashed lock, the first time it is needed and again when the lock changes.
PYTHON ?= python3
SECONDS ?= 30
BIN := .venv/bin
READY := .venv/.ready
export MIDI OUT

.PHONY: help app continue test lint lock clean

help:
	@echo "make app                    open the page"
	@echo "make continue MIDI=in.mid   continue a MIDI file [OUT=out.mid] [SECONDS=30]"
	@echo "make test                   run the tests"
	@echo "make lint                   check style and types"
	@echo "make lock                   pin the newest requirements that pyproject.toml allows"

app: $(READY)
	$(BIN)/python -m app

continue:
	@test -n "$$MIDI" || { echo "Say which MIDI file to continue: make continue MIDI=path/to/file.mid" >&2; exit 2; }
	@$(MAKE) --no-print-directory $(READY)
	$(BIN)/perceiver-ar continue "$$MIDI" -o "$${OUT:-$${MIDI%.*}-continued.mid}" --seconds "$(SECONDS)"

test: $(READY)
	@$(BIN)/python tests/chromium.py
	@# Two processes for what mostly compiles; the page is then tested with the machine to itself.
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not browser"
	$(BIN)/python -m pytest -m browser

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

lock: $(READY)
	$(BIN)/uv pip compile pyproject.toml --output-file requirements.lock --upgrade --quiet --universal \
	  --python-version 3.11 --fork-strategy fewest --all-extras --generate-hashes --no-annotate --no-header

clean:
	rm -rf .venv

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed, and $(PYTHON) is not: name one with make PYTHON=/path/to/python3.11" >&2; \
	  exit 2; }
	@echo "Setting up .venv, which takes a few minutes and is done once ..."
	@# Debian's Python has no venv of its own with pip in it until python3-venv is installed.
	@$(PYTHON) -m venv .venv >/dev/null 2>&1 || $(PYTHON) -m venv --clear --without-pip .venv
	@pip="$(BIN)/python -m pip"; $$pip --version >/dev/null 2>&1 || pip="$(PYTHON) -m pip --python $(BIN)/python"; \
	export PIP_DISABLE_PIP_VERSION_CHECK=1; \
	$$pip install --quiet --require-hashes -r requirements.lock && $$pip install --quiet --no-deps -e .
	@touch $@
