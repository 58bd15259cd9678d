PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
INSTALLED_TO_TRAIN := .venv/installed-to-train

.PHONY: train test quick slow mutants lint types docs lock clean

train: $(INSTALLED_TO_TRAIN)
	$(BIN)/python -m experiments.prepare digits
	$(BIN)/python -m experiments.train digits

test: $(INSTALLED) lint types
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

QUICK := tests/paths/test_paths.py tests/paths/test_conversions.py tests/guidance/test_guidance.py
QUICK += tests/solvers/test_solvers.py tests/losses

quick: $(INSTALLED) lint types
	$(BIN)/python -m pytest -n 2 --dist worksteal --quick -m "not slow" $(QUICK)

slow: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

MUTANTS ?= --number 200 --seed 0
COSMIC_RAY := build/mutants/cosmic-ray

mutants: $(INSTALLED) $(COSMIC_RAY)/installed
	nice $(COSMIC_RAY)/bin/python tests/mutants.py $(MUTANTS)

$(COSMIC_RAY)/installed:
	$(PYTHON) -m venv $(COSMIC_RAY)
	$(COSMIC_RAY)/bin/python -m pip install --quiet --disable-pip-version-check cosmic-ray==8.7.0
	touch $@

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/pyrefly check

docs: $(INSTALLED)
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env -d build/doctrees docs build/docs
	@echo "wrote build/docs/index.html"

lock:
	uv pip compile setup.cfg --extra dev --universal --python-version 3.11 --no-header --no-annotate -o constraints.txt

$(INSTALLED): EXTRAS := [dev]
$(INSTALLED) $(INSTALLED_TO_TRAIN): requirements.txt constraints.txt setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: cfgjax needs Python 3.11 or newer; name one with make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.$(EXTRAS)'
	touch $@

clean:
	rm -rf .venv build *.egg-info
