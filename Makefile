# Every target is one line that runs `steady`, or a checker, from .venv, which is made when it is missing or its pins change.
# Settings reach commands through the environment and are never pasted into a line that a shell reads, nor expanded by make.
SETTINGS := PROFILE DEVICE ONLY WORKERS CELL_HOURS SOURCE SAVE MINUTES OUT AGAIN PYTHON TORCH_INDEX
PASSED := STEADY_HOME STEADY_DEBUG DASK_SCHEDULER_ADDRESS CUDA_VISIBLE_DEVICES
PROFILE ?= auto
DEVICE ?= auto
SOURCE ?= published
PYTHON ?= python3
# TORCH_INDEX, an extra pip index. On Linux pip takes PyTorch's CUDA build, several GB; CPU wheels are far smaller:
#   make reproduce TORCH_INDEX=https://download.pytorch.org/whl/cpu
SET := $(SETTINGS) $(foreach name,$(PASSED),$(if $(filter undefined,$(origin $(name))),,$(name)))
$(foreach name,$(SET),$(eval override $(name) := $$(value $(name))))
export $(SET)

# A word on the command line that is no setting is refused: make itself would take it, and go on without a word.
quoted = '$(subst ','\'',$(1))'
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
UNKNOWN := $(firstword $(filter-out $(SETTINGS) $(PASSED),$(GIVEN)))
NEAREST = $(shell python3 -c 'import difflib, sys; print(*difflib.get_close_matches(sys.argv[1].upper(), sys.argv[2:], 1, 0))' \
  $(call quoted,$(UNKNOWN)) $(SETTINGS) $(PASSED))
$(if $(UNKNOWN),$(error there is no setting $(UNKNOWN); the nearest is $(NEAREST), and all are: $(SETTINGS)))

BIN := .venv/bin
STEADY := $(BIN)/steady

.DEFAULT_GOAL := help
.PHONY: help reproduce gpu test test-all book serve plan claims verify bench publish lint format clean

help: ## Show this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/\1|\2/p' Makefile | awk -F'|' '{ printf "make %-10s %s\n", $$1, $$2 }'
	@echo 'Settings, after the target: PROFILE=auto|smoke|laptop|desk|full DEVICE=auto|cpu|cuda ONLY=experiment[/task] WORKERS=4 PYTHON=python3.12'
	@echo 'PROFILE=auto is laptop, and on a machine with a GPU the profile that is published.'
	@echo 'On Linux without a GPU: TORCH_INDEX=https://download.pytorch.org/whl/cpu spares several GB at the first call.'

reproduce: .venv/ready ## Train what is missing, judge the claims, build the book (PROFILE, DEVICE, ONLY, WORKERS)
	@$(STEADY) reproduce

gpu: .venv/ready ## On a GPU box: its tests, speed, widths, then as much of profile full as fits (MINUTES=9, OUT, AGAIN=1)
	@$(STEADY) gpu

# A file's tests share what is costly, such as a study's plan, and so a process.
test: .venv/ready ## Run the tests
	@$(BIN)/python -m pytest -q -n logical --maxprocesses 8 --dist loadfile -m 'not slow'

test-all: .venv/ready ## Run the tests, the slow ones too
	@$(BIN)/python -m pytest -q -n logical --maxprocesses 8 --dist loadfile

book: .venv/ready ## Build the book from published results (SOURCE=reproduced PROFILE=…: from yours)
	@$(STEADY) book --source="$$SOURCE"

serve: .venv/ready ## Serve the built book on this machine
	@$(STEADY) serve

plan: .venv/ready ## Say what a profile costs before it starts: networks, time, memory, disk (PROFILE, DEVICE, ONLY)
	@$(STEADY) plan

claims: .venv/ready ## Show the verdicts (SOURCE=reproduced PROFILE=…: yours)
	@$(STEADY) claims --source="$$SOURCE"

verify: .venv/ready ## Compare your results with the published ones; fail when a published verdict flips (PROFILE)
	@$(STEADY) verify

bench: .venv/ready ## Time the engine side by side with what people would otherwise use (DEVICE, ONLY=case, SAVE=1)
	@$(BIN)/python -c 'import jax' 2>/dev/null || \
	  { echo 'Installing JAX, a peer of the benchmark (a minute, once) ...'; \
	  $(BIN)/python -m pip install -qq --no-input --disable-pip-version-check -c constraints.txt -e '.[bench]'; } || \
	  echo 'JAX could not be installed; the benchmark goes on without that peer, and says so.' >&2
	@$(STEADY) bench --only="$$ONLY" $${SAVE:+--save}

publish: .venv/ready ## Make your results the published ones (PROFILE, ONLY)
	@$(STEADY) publish

lint: .venv/ready ## Check style, types, notebooks without outputs, citation file and workflows
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check . && $(BIN)/mypy && $(BIN)/python tests/notebooks_are_clean.py
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.citation-file-format CITATION.cff
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml

format: .venv/ready ## Mend style where it can be mended by itself
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

clean: ## Remove what builds made; results, data and .venv stay
	@if [ -x $(STEADY) ]; then $(STEADY) clean; else echo 'Nothing to clean: there is no .venv, so nothing was built.'; fi

# The stamp is written last: a set-up that failed or was killed is taken up again by the next call.
.venv/ready: pyproject.toml constraints.txt
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(MAKE) --no-print-directory .venv
	@echo 'Installing the pinned packages into .venv (a few minutes, once) ...'
	@$(BIN)/python -m pip install -qq --no-input --disable-pip-version-check \
	  $${TORCH_INDEX:+--extra-index-url="$$TORCH_INDEX"} -c constraints.txt -e '.[dev]' || \
	  { echo "The installation failed. To see more: $(BIN)/python -m pip install -c constraints.txt -e '.[dev]'" >&2; exit 1; }
	@touch $@

.PHONY: .venv
.venv:
	@command -v "$$PYTHON" >/dev/null || \
	  { echo "There is no $$PYTHON here. Name a Python 3.11 or newer: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@"$$PYTHON" -c 'import os, sys; v = sys.version_info[:2]; v >= (3, 11) or sys.exit("Steady Descent needs Python 3.11 or newer, %s is %d.%d. Name another: make PYTHON=python3.12" % (os.environ["PYTHON"], *v))'
	@"$$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$$PYTHON cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@if [ "$$(uname -s)" = Linux ] && [ -z "$$TORCH_INDEX" ] && ! command -v nvidia-smi >/dev/null; then \
	  echo 'No GPU seen. Unless pip is set up otherwise it now fetches the CUDA build of PyTorch, several GB;'; \
	  echo 'to spare that, stop here and add TORCH_INDEX=https://download.pytorch.org/whl/cpu to the command.'; fi
	@"$$PYTHON" -m venv --clear .venv
