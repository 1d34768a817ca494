# IAM bridge. The two commands: `make demo` and `make test`. Each does all its set-up.
SHELL := /bin/sh
VENV := .venv
RUN := $(VENV)/bin
MODULE := pam_module/build/pam_iam.so
PIP := $(RUN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo test lint check-pure others bench setup module system clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    the whole story on an embedded IAM: accounts, a login by token, refusals, a leaver, a ban"
	@echo "make test    set everything up and run all tests"
	@echo "make bench   measure, each figure beside something else (BENCH=name runs one)"
	@echo "make lint    ruff and mypy"
	@echo "make clean   remove what the others made"

system:
	@scripts/system-packages

$(VENV)/stamp: pyproject.toml scripts/pick-python
	@python=$$(scripts/pick-python) && "$$python" -m venv --clear $(VENV)
	@echo "python packages: installing into $(VENV) (once; about half a minute)"
	@$(PIP) install -e '.[demo,test,lint]'
	@touch $@

$(MODULE): $(wildcard pam_module/*.c pam_module/*.tsv pam_module/*.awk pam_module/*.map) pam_module/Makefile
	@if command -v gcc >/dev/null && [ -e /usr/include/security/pam_modules.h ]; then $(MAKE) --silent --no-print-directory -C pam_module; \
	else echo "the PAM module is not built: install gcc and libpam0g-dev" >&2; fi

setup: system
	@$(MAKE) --silent --no-print-directory $(VENV)/stamp
	@$(MAKE) --silent --no-print-directory $(MODULE)

demo: setup
	@$(RUN)/iam-bridge demo

lint: $(VENV)/stamp
	$(RUN)/ruff check
	$(RUN)/ruff format --check
	$(RUN)/mypy

test: setup lint
	@scripts/run-tests

bench: setup
	@$(RUN)/python -m tests.bench $(BENCH)

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* *.egg-info
	$(MAKE) -C pam_module clean
