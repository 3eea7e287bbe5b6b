# Set-up, checks, tests, benchmarks: on a fresh machine with Python 3.11 and make, any target works as it stands.
# `make help` lists them.

VENV ?= .venv
IS_FIT := 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for p in python3.11 python3 python3.13 python3.12 python; do \
	"$$p" -c $(IS_FIT) 2>/dev/null && echo "$$p" && break; done)
ARGS ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
APART := $(VENV)-fixtures

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow check docs bench fixtures clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="	" read -r name what; do \
		printf '  make %-8s %s\n' "$$name" "$$what"; done

install: $(INSTALLED)  ## create the environment in .venv; every other target does so by itself

$(INSTALLED): pyproject.toml constraints.txt
	@"$(or $(PYTHON),false)" -c $(IS_FIT) || { echo "ckpt-rules needs Python 3.11 or newer with its venv module, and \
	$(or $(PYTHON),no Python on the PATH) is not that; name one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "creating the environment in $(VENV): a minute or two"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --constraint constraints.txt --upgrade pip
	@$(BIN)/python -m pip install -qq --constraint constraints.txt --build-constraint constraints.txt \
		--editable '.[torch,testing]' --group dev
	@touch $@

demo: $(INSTALLED)  ## train a small model, save, verify: passes; damage copies, verify: fails, and says why
	$(BIN)/python examples/demo.py

test: $(INSTALLED)  ## run the tests but the slow ones; make test ARGS='-k scheduler' runs some
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m "not slow" $(ARGS)

test-slow: $(INSTALLED)  ## run the slow tests
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m slow $(ARGS)

check: $(INSTALLED)  ## lint, types, import contracts, drift of generated files, and the wheel in a clean environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=benchmarks:examples/ckpt-rules-acme $(BIN)/mypy .ci/*.py benchmarks/*.py examples/ckpt-rules-acme/ckpt_rules_acme
	$(BIN)/lint-imports
	$(BIN)/python .ci/docs.py --check
	$(BIN)/python .ci/wheel_test.py

docs: $(INSTALLED)  ## write the generated parts of README.md and docs/
	$(BIN)/python .ci/docs.py

bench: $(INSTALLED)  ## measure against the budgets; builds 1.5 GB of checkpoints under $CKPT_BENCH_DIR (or /tmp) once
	$(BIN)/python benchmarks/run.py $(ARGS)

fixtures: $(INSTALLED)  ## make the committed checkpoints of libraries that CI does without; ARGS="zero2 moe" makes some
	@$(BIN)/python -m pip install -qq --constraint constraints.txt --group fixtures
	$(BIN)/python -W ignore tests/layouts/deepspeed/make_fixtures.py $(ARGS)
	$(BIN)/python -W ignore tests/layouts/dcp/make_fixtures.py
	$(BIN)/python -W ignore tests/layouts/sharded/make_fixtures.py $(ARGS)
	$(BIN)/python -W ignore tests/layouts/jax/make_fixtures.py
	$(BIN)/python -W ignore tests/layouts/trainer/make_fixtures.py
	$(BIN)/python -W ignore tests/layouts/lightning/make_fixtures.py $(ARGS)
	$(BIN)/python -W ignore tests/layouts/loaders/make_fixtures.py
	@$(PYTHON) -m venv --without-pip $(APART)
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		"$$($(APART)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/first.pth"
	@$(BIN)/python -m pip --python $(APART) install -qq --no-deps --constraint constraints.txt \
		--build-constraint constraints.txt --group fixtures-apart
	$(APART)/bin/python -W ignore tests/layouts/one_file/make_fixtures.py
	$(APART)/bin/python -W ignore tests/layouts/torchtune/train_torchtune.py
	$(APART)/bin/python -W ignore tests/layouts/torch_checkpointing/train_torch_checkpointing.py

clean:  ## remove the environment, caches and everything built
	rm -rf $(VENV) $(APART) build dist htmlcov .coverage .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis runs
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
