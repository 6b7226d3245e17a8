# make run [RUNS=~/outputs] [PORT=7860] · make test · make lint · make bench
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PORT ?= 7860

.PHONY: run test lint bench clean

run: $(VENV)/.installed
	$(BIN)/python -m cmp $(if $(RUNS),--runs "$(RUNS)") serve --port $(PORT)

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy cmp/core cmp/disk cmp/workbench cmp/errors.py cmp/settings.py cmp/jobs

bench: $(VENV)/.installed-dev
	@for script in $(filter-out bench/report.py,$(wildcard bench/*.py)); do $(BIN)/python $$script || exit 1; done

# The stamps make a second call start at once; changing the requirements installs again.
$(VENV)/.installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed; name one: make run PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	$(BIN)/python scripts/get_browser.py
	@touch $@

clean:
	rm -rf $(VENV) test-results .pytest_cache .mypy_cache .ruff_cache
