# Each target does all its own set-up: a virtual environment in .venv, made with $(PYTHON).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# PyTorch is only for recording and training; on the newest Pythons the pinned build may be large,
# so EXTRAS=test leaves it out: its tests are then skipped.
EXTRAS ?= test,torch,trainers

.NOTPARALLEL:
.PHONY: demo test slow lint notebooks docs benchmarks clean

# what was installed is noted in the environment, so that nothing is installed twice
$(VENV)/.installed-%: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[$*]"
	touch "$@"

demo: $(VENV)/.installed-report
	$(BIN)/bayesphase demo

test: $(VENV)/.installed-$(EXTRAS)
	$(BIN)/python -m pytest -n auto -m "not slow"

slow: $(VENV)/.installed-$(EXTRAS)
	$(BIN)/python -m pytest -n auto -m slow

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebooks: $(VENV)/.installed-notebook,torch,trainers
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python notebooks/execute.py

docs: notebooks $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

# against every peer there is, in an environment of their own: they need an older PyMC
$(VENV)-benchmarks/.installed: pyproject.toml constraints.txt tests/benchmarks/constraints.txt
	$(PYTHON) -m venv $(VENV)-benchmarks
	grep -v '^pymc==6' constraints.txt > $(VENV)-benchmarks/constraints.txt
	$(VENV)-benchmarks/bin/python -m pip install --quiet -c $(VENV)-benchmarks/constraints.txt \
		-c tests/benchmarks/constraints.txt -e ".[benchmarks]"
	touch $@

benchmarks: $(VENV)-benchmarks/.installed
	$(VENV)-benchmarks/bin/python -m tests.benchmarks

clean:
	rm -rf $(VENV) $(VENV)-newer $(VENV)-benchmarks build demo docs/_build docs/generated docs/notebooks/*.ipynb
	find bayesphase -name '*.nb[ic]' -delete
