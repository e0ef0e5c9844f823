# Each target is one line that calls `steady`; `.venv` is made when it is missing or the pins change.
PYTHON ?= python3
PROFILE ?= laptop
DEVICE ?= auto
ONLY ?=
SOURCE ?= published
# On Linux, pip takes torch's CUDA build (several GB). For CPU wheels: TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
BIN := .venv/bin
STEADY := $(BIN)/steady
export PROFILE DEVICE ONLY

.DEFAULT_GOAL := help
.PHONY: help reproduce test test-all book serve plan claims verify lint format bench publish clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "make %-10s %s\n", $$1, $$2}'

reproduce: .venv/ready ## Train what is missing, judge the claims, build the book (PROFILE, DEVICE, ONLY)
	@$(STEADY) reproduce

test: .venv/ready ## Run the tests
	@$(BIN)/python -m pytest -q -m "not slow"

test-all: .venv/ready ## Run the tests, the slow ones too
	@$(BIN)/python -m pytest -q

book: .venv/ready ## Build the book from published results (SOURCE=reproduced: from yours)
	@$(STEADY) book --source $(SOURCE)

serve: .venv/ready ## Serve the built book on this machine
	@$(STEADY) serve

plan: .venv/ready ## What a profile will cost, before it starts
	@$(STEADY) plan

claims: .venv/ready ## The verdicts
	@$(STEADY) claims --source $(SOURCE)

verify: .venv/ready ## Your verdicts and numbers against the published ones; fails when a verdict flips
	@$(STEADY) verify

bench: .venv/ready ## Time the engine side by side with the loops people write
	@$(STEADY) bench

publish: .venv/ready ## Make your results of a profile the published ones
	@$(STEADY) publish

lint: .venv/ready ## Style, types, notebooks without outputs, citation file and workflows
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/python tests/notebooks_are_clean.py
	@$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

format: .venv/ready ## Mend style
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

clean: ## Remove what builds made; results and data stay
	@rm -rf _build generated conf.py .pytest_cache .ruff_cache .mypy_cache .hypothesis && find src tests -name __pycache__ -prune -exec rm -rf {} +

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"Steady Descent needs Python 3.11 or newer, $(PYTHON) is {sys.version.split()[0]}; name another: make PYTHON=python3.12 …")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) lacks the venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Setting up .venv (once; a minute or two where wheels are near)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c constraints.txt -e '.[dev]'
	@touch .venv/ready
