VENV    ?= .venv
PYTHON  ?= python3
BIN     := $(VENV)/bin
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TESTS   ?= tests
PROFILE ?= compact

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PYDEVD_DISABLE_FILE_VALIDATION = 1

.PHONY: help setup demo quick test slow lint export clean readme hero figures docs check weights

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 10

setup: $(VENV)/.stamp  ## virtual environment in .venv with the pinned packages; once

# Without an NVIDIA driver the CPU build of torch goes in first (0.2 GB), so that no CUDA libraries (3 GB) follow.
# Where that build does not exist (macOS) or is out of reach, the package index decides.
$(VENV)/.stamp: settings.ini setup.py pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@torch=$$(sed -n 's/^torch==//p' constraints.txt); \
	if command -v nvidia-smi >/dev/null 2>&1; then echo "setup: NVIDIA driver found; torch comes from the package index"; \
	else echo "setup: torch $$torch for the CPU"; \
	  $(BIN)/pip install --no-deps --retries 0 --timeout 20 --extra-index-url $(TORCH_INDEX) "torch==$$torch+cpu" \
	  || echo "setup: no CPU build available; torch comes from the package index"; fi
	$(BIN)/pip install -c constraints.txt -e ".[dev]"
	@touch $@

demo: setup  ## compress, decode and measure real files: a figure and the numbers behind it (minutes)
	$(BIN)/stanhlic reproduce stanh/rd_kodak --profile compact --force

quick: setup  ## house rules and units, on every change (a minute)
	$(BIN)/python -m pytest -m "not long" $(TESTS)

test: setup  ## all tests, notebooks included (minutes); TESTS=tests/test_cli.py for some
	$(BIN)/python -m pytest $(TESTS)

slow: setup  ## all tests and those that take minutes each
	$(BIN)/python -m pytest --slow $(TESTS)

lint: setup  ## ruff over package, tests and tools
	$(BIN)/ruff check

export: setup  ## notebooks -> stanhlic/
	$(BIN)/nbdev-export

clean: setup  ## strip notebooks of counts and metadata
	$(BIN)/nbdev-clean

readme: setup  ## run nbs/index.ipynb -> README.md; the numbers behind the figures -> RESULTS.md
	$(BIN)/python tools/results.py
	$(BIN)/python tools/readme.py --run

hero: setup  ## the picture on the front page, from the shipped weights
	$(BIN)/python -m stanhlic.lab.hero

figures: setup  ## every table and figure of nbs/papers/papers.yaml, from the shipped weights
	$(BIN)/stanhlic reproduce --profile compact

weights: setup  ## train every model that ships, from nothing, one run a stage (days on a CPU; resumes where it was)
	@$(BIN)/python -c "import snakemake" 2>/dev/null || $(BIN)/pip install -c constraints.txt -e ".[cluster]"
	$(BIN)/snakemake --snakefile workflow/Snakefile --cores 2 --rerun-triggers input --config profile=$(PROFILE) -- weights

docs: setup  ## the site, from the notebooks, in docs/_build/html
	@$(BIN)/python -c "import furo, latex2mathml, myst_nb, onnxruntime" 2>/dev/null || $(BIN)/pip install -q -c constraints.txt -e ".[docs]"
	@$(BIN)/python docs/build.py

check: export clean lint  ## what must be in step before a commit
	$(BIN)/python tools/readme.py
	$(BIN)/python -m pytest tests/test_house_rules.py
