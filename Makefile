# make watch   see the shipped agent drive       make demo   from nothing to a driving agent       make test   all checks       make help   the rest
# Needs python3 (3.11 or newer), make and a network connection, but no other system package: the wheels contain all libraries.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help env watch demo test docs pictures notebooks clean

help:
	@echo "make watch   see the shipped agent play (TASK=car-racing, take-cover or bin-packing), without any training"
	@echo "make demo    train the quick preset end to end and show it next to the shipped agent (about 11 minutes on 2 cores)"
	@echo "make test    style, types and tests"
	@echo "make pictures  record the moving pictures of the README and docs again"
	@echo "make notebooks  run the notebooks of docs/notebooks and keep what they show (about 10 minutes on 2 cores)"
	@echo "make docs    build the documentation into site/"
	@echo "make env     only create or update the environment in $(VENV)"
	@echo "make clean   remove the environment and the caches; runs are kept"
	@echo "PYTHON=...   the Python to build the environment with (now: $(PYTHON))"

env: $(READY)

# The file $(READY) is written last, so that an interrupted installation is repeated.
$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) was not found; install it (Debian, Ubuntu: sudo apt install python3 python3-venv) or run make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"error: worldmodels needs Python 3.11 or newer, $(PYTHON) is {v[0]}.{v[1]}; install a newer one and run, for example, make PYTHON=python3.12")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) cannot create environments; install its venv package (Debian, Ubuntu: sudo apt install python3-venv, or python3.N-venv for another Python) and run make again"; exit 1; }
	@test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1 || { echo "creating $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
	@rm -f $(READY)
	@echo "installing the pinned packages into $(VENV) (a few minutes the first time)"
	@# torch and the build backend first, so that the second step cannot choose another torch and builds the package
	@# with the pinned backend.
	@$(PIP) install --quiet -c constraints.txt torch hatchling editables
	@$(PIP) install --quiet -c constraints.txt --no-build-isolation -e '.[all,dev]'
	@# Compiled once and cached, so that the first command need not wait for it.
	@$(BIN)/python -c 'from worldmodels.tasks.car_racing.env import compile_drawing; compile_drawing()' >/dev/null 2>&1 || true
	@touch $(READY)

watch: $(READY)
	$(BIN)/worldmodels watch $(TASK)

demo: $(READY)
	$(BIN)/worldmodels demo

test: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict src
	@# A file of tests per process, as many processes as cores, each with one thread: threads of several would wait for
	@# each other.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

# The moving pictures of README and docs, by the shipped agents. The same command makes the same films.
pictures: $(READY)
	$(BIN)/worldmodels record car-racing --seed 1 --steps 400 --out docs/images/driving.gif
	$(BIN)/worldmodels record take-cover --seed 1 --steps 280 --every 5 --out docs/images/take-cover.gif
	$(BIN)/worldmodels record bin-packing --seed 1 --steps 50 --out docs/images/bin-packing.gif
	$(BIN)/worldmodels dream record car-racing --seed 1 --steps 300 --out docs/images/dream.gif

# Notebooks with their outputs, for readers without a Python at hand. They work in runs/, where their runs stay.
notebooks: $(READY)
	mkdir -p runs/notebooks
	for source in docs/notebooks/*.py; do \
	    notebook=$$(basename $$source .py).ipynb && \
	    $(BIN)/jupytext --quiet --to ipynb --output runs/notebooks/$$notebook $$source && \
	    $(BIN)/jupyter-execute --inplace runs/notebooks/$$notebook && \
	    cp runs/notebooks/$$notebook docs/notebooks/ || exit 1; \
	done

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "open site/index.html; for its search: $(BIN)/python -m http.server --directory site"

clean:
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
