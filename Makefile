# make run    the example: this machine, watched for ten seconds
# make test   the whole suite, on both cores        (ARGS="tests/test_x.py -x" goes to pytest)
# make lint   ruff and mypy
# make clean  removes all that was made
#
# Needs nothing but Python 3.11 or newer with venv; PYTHON=... chooses another one.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
CORE := $(wildcard neotasker/*.pyx neotasker/*.pxd neotasker/*.h)

# The stamps carry the interpreter and the build switches: others make a new environment.
FLAVOUR := $(shell $(PYTHON) -c 'import os, sys; \
    print(sys.implementation.cache_tag + getattr(sys, "abiflags", ""), \
    *(k[16:] + v for k in ("NEOTASKER_BUILD_PURE", "NEOTASKER_BUILD_REQUIRE") \
    if (v := os.environ.get(k))), sep="-")')
MADE := $(VENV)/.made-$(FLAVOUR)
INSTALLED := $(VENV)/.installed
TESTABLE := $(VENV)/.testable
LINTABLE := $(VENV)/.lintable

.PHONY: run test lint clean

run: $(INSTALLED)
	$(BIN)/python -m neotasker run examples/host_monitor.py --for 10

test: $(TESTABLE)
	$(BIN)/python -m pytest $(ARGS)

lint: $(LINTABLE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict

$(MADE):
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

# An editable install sees changes of *.py by itself; the core is compiled again.
$(INSTALLED): $(MADE) pyproject.toml setup.py $(CORE)
	rm -f neotasker/_core.*.so
	$(PIP) install --editable .
	@$(BIN)/python -c 'import neotasker; print("installed, with the", "compiled core" if neotasker.COMPILED else "pure core only")'
	@touch $@

$(TESTABLE): $(INSTALLED)
	$(PIP) install --group test --group test-extras
	@touch $@

$(LINTABLE): $(MADE) pyproject.toml
	$(PIP) install --group lint
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -f neotasker/_core.*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
