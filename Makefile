# The verbs of this project. All but `help` set up .venv first, which takes no time when nothing changed.
#
# Needs: Python >= 3.11 and make. Turns: PYTHON=/path/to/python, TORCH_INDEX=url (scripts/setup.py says what they do).

.DEFAULT_GOAL := help
.PHONY: help setup bootstrap up demo check test soak bench docs

bin := .venv/bin
pythons := $(or $(PYTHON),python3.13 python3.12 python3.11 python3 python)
unexport PYTHONPATH PYTHONHOME
# Without kept bytecode each process compiles torch and transformers anew: 17 CPU-seconds, again and again.
unexport PYTHONDONTWRITEBYTECODE

help:  ## say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# The first test is the quick one: the environment's own Python sees that nothing changed.
setup:  ## make .venv with everything that is needed (the same: bootstrap)
	@$(bin)/python -I -S scripts/setup.py --fresh 2>/dev/null && exit 0; \
	for python in $(pythons); do \
	  $$python -I -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	    && exec $$python -I scripts/setup.py; \
	done; \
	echo "No Python >= 3.11 that can make virtual environments was found (tried: $(pythons))."; \
	echo "  Debian, Ubuntu   apt install python3 python3-venv"; \
	echo "  Fedora           dnf install python3"; \
	echo "  macOS            brew install python@3.13"; \
	echo "  anywhere         make setup PYTHON=/path/to/python3.11"; \
	exit 1

bootstrap: setup

up: setup  ## serve http://localhost:8080
	@$(bin)/tunesmith up

demo: setup  ## the main job from end to end: data in, a model that answers out
	@$(bin)/python -m demo

check: setup  ## format, lint, types, import contracts, generated code
	$(bin)/ruff format --check
	$(bin)/ruff check
	$(bin)/mypy
	$(bin)/mypy --strict scripts/setup.py scripts/published_client.py
	$(bin)/mypy --config-file tests/mypy.ini tests bench demo scripts
	$(bin)/lint-imports
	$(bin)/python scripts/unasync.py --check
	$(bin)/python scripts/docs.py --check

test: setup  ## run the tests; at most 15 minutes on two cores
	$(bin)/pytest --ignore=tests/soak -n logical --maxprocesses 8 --dist loadgroup $(ARGS)

soak: setup  ## the long proofs: many kills, long fuzzing, the wheel installed from nothing
	$(bin)/pytest tests/soak $(ARGS)

bench: setup  ## training beside TRL, the API beside a bare application; bench/README.md has the rest
	$(bin)/python -m bench.train
	$(bin)/python -m bench.start
	$(bin)/python -m bench.api $(ARGS)

docs: setup  ## write docs/reference from OpenAPI, the command line and the settings
	$(bin)/python scripts/docs.py
