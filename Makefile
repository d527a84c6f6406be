# Two commands do everything: `make demo` and `make test`. Both build .venv on their first run.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: demo test check setup stop clean help
.DEFAULT_GOAL := help

help:
	@echo "make demo    set up, then train, register, serve and talk to a model on a local cluster"
	@echo "make test    set up, then run every check and test"
	@echo "make check   ruff, mypy, import-linter and the architecture tests"
	@echo "make stop    stop the platform"
	@echo "make clean   stop it and remove .venv, caches and the platform's data"

setup:
	@$(PYTHON) mlaas/bootstrap.py

demo: setup
	@$(BIN)/mlaas demo

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/architecture

test: check
	$(BIN)/pytest tests

stop:
	@if [ -x $(BIN)/mlaas ]; then $(BIN)/mlaas down; fi

clean: stop
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf "$${MLAAS_HOME:-$$HOME/.mlaas}"
