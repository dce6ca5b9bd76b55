# make run    the example: this machine, watched for ten seconds
# make test   the suite, on both cores; it is split over the processors, JOBS=0: over none
#             (ARGS="tests/pool/test_pool.py -x" goes to pytest)
# make test-slow
#             the tests that build the package, run every benchmark at toy size, every piece of
#             code in the documentation, and the programs of others
# make test-uvloop
#             the tests that have to do with loops, on aloops that run uvloop
# make soak SECONDS=600
#             everything at once for so long, with an account of it, on both cores
# make lint   ruff, cython-lint, mypy, stubtest, and the checks of what runs at GitHub
# make coverage
#             the suite once more, with an account of the lines and branches that it runs
# make docs   the documentation, into docs/_build/html; a warning or a broken link fails
# make dist   sdist and wheel, into dist, checked
# make test-all
#             the suite on every interpreter there is, compiled and pure, with a table at
#             the end; NEOTASKER_PYTHONS=/path/to/python:... adds interpreters, and with
#             NEOTASKER_ALL=1 one that is missing is a failure
# make clean  removes all that was made
# make test-freethreaded FREETHREADED=python3.13t
# make soak-freethreaded FREETHREADED=python3.13t SECONDS=600
#             the same on an interpreter without the GIL, in an environment of its own
# make test-sanitized
#             the tests of core and pool on a compiled core that gcc's sanitizers watch, for
#             bad addresses and undefined behaviour
# make test-debug DEBUG_PYTHON=python3.11d
#             the same on an interpreter that was built with Py_DEBUG
#
# Needs nothing but Python 3.11 or newer with venv; PYTHON=... chooses another one.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
SECONDS ?= 600
FREETHREADED ?= python3.13t
DEBUG_PYTHON ?= python3.11d
# Over how many processes the suite is split.
JOBS ?= auto
SPLIT = --numprocesses $(JOBS) --dist worksteal
# What is installed beside the package to test it, as dependency groups.
TEST_GROUPS ?= test test-extras
CORE_TESTS := tests/core tests/pool
LOOP_TESTS := tests/loops tests/workers tests/jobs tests/lifecycle tests/compat

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
CORE := $(wildcard neotasker/*.pyx neotasker/core/*.pxi neotasker/core/*.h)

# The stamps carry the interpreter and the build switches: others make a new environment.
FLAVOUR := $(shell $(PYTHON) -c 'import os, sys; \
    print(sys.implementation.cache_tag + getattr(sys, "abiflags", ""), \
    *(k[16:] + v for k in ("NEOTASKER_BUILD_PURE", "NEOTASKER_BUILD_REQUIRE", \
    "NEOTASKER_BUILD_SYMBOLS") if (v := os.environ.get(k))), sep="-")')
MADE := $(VENV)/.made-$(FLAVOUR)
INSTALLED := $(VENV)/.installed
TESTABLE := $(VENV)/.testable
LINTABLE := $(VENV)/.lintable
COVERABLE := $(VENV)/.coverable
DOCUMENTABLE := $(VENV)/.documentable
DISTRIBUTABLE := $(VENV)/.distributable
MATRIX := $(VENV)/.matrix
WORKFLOWS := $(wildcard .github/workflows/*.yml)

.PHONY: run test test-slow test-uvloop test-freethreaded test-sanitized test-debug test-all \
    soak soak-freethreaded \
    lint coverage docs dist clean

run: $(INSTALLED)
	$(BIN)/python -m neotasker run examples/host_monitor.py --for 10

test: $(TESTABLE)
	$(BIN)/python -m pytest -m "not slow" $(SPLIT) $(ARGS)

test-slow: $(TESTABLE)
	$(BIN)/python -m pytest -m slow $(SPLIT) $(ARGS)

test-all: $(MATRIX)
	$(BIN)/nox -- $(ARGS)

test-uvloop: $(TESTABLE)
	$(BIN)/python -m pytest -m "not slow" $(SPLIT) --uvloop $(LOOP_TESTS) $(ARGS)

soak: $(INSTALLED)
	$(BIN)/python tests/stress/soak.py --both --seconds $(SECONDS) $(ARGS)

# No wheel of uvloop exists for it, and of hypothesis only the pure one.
test-freethreaded soak-freethreaded:
	$(FREETHREADED) -c 'import sys; assert not sys._is_gil_enabled(), "this interpreter has a GIL"'
	PIP_ONLY_BINARY=hypothesis $(MAKE) $(@:-freethreaded=) VENV=.venv-freethreaded \
	    PYTHON=$(FREETHREADED) TEST_GROUPS=test

# Both from a wheel, not editable: what they compile must not take the place of the core in
# the tree. The interpreter is not built with the sanitizers: they are loaded before it, its own
# leaks are none of ours, and its memory is malloc's, so that they see each object. Not split
# over processes: slow as all is, the tests would have too little time.
SANITIZERS := -fsanitize=address,undefined -fno-sanitize-recover=undefined
test-sanitized:
	$(PYTHON) -m venv --clear .venv-sanitized
	.venv-sanitized/bin/python -m pip --quiet install --upgrade 'pip>=25.1'
	CC=gcc CFLAGS="$(SANITIZERS) -fno-omit-frame-pointer" LDFLAGS="$(SANITIZERS)" \
	    NEOTASKER_BUILD_REQUIRE=1 NEOTASKER_BUILD_SYMBOLS=1 \
	    .venv-sanitized/bin/python -m pip --quiet install . --group test
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc \
	    NEOTASKER_BUILD_REQUIRE=1 \
	    .venv-sanitized/bin/pytest -m "not slow" -k "not pure" $(CORE_TESTS) $(ARGS)

test-debug:
	$(DEBUG_PYTHON) -c 'import sys; assert hasattr(sys, "gettotalrefcount"), "no debug build"'
	$(DEBUG_PYTHON) -m venv --clear .venv-debug
	.venv-debug/bin/python -m pip --quiet install --upgrade 'pip>=25.1'
	PIP_ONLY_BINARY=hypothesis NEOTASKER_BUILD_REQUIRE=1 NEOTASKER_BUILD_SYMBOLS=1 \
	    .venv-debug/bin/python -W ignore -m pip --quiet install . --group test
	NEOTASKER_BUILD_REQUIRE=1 .venv-debug/bin/pytest -m "not slow" -k "not pure" \
	    $(CORE_TESTS) $(ARGS)

lint: $(TESTABLE) $(LINTABLE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/cython-lint neotasker # calls pycodestyle by name
	$(BIN)/mypy --strict
	$(BIN)/mypy --strict tests/build/typed_program.py
	$(BIN)/python -m mypy.stubtest neotasker --allowlist tests/build/stubtest_allowed.txt
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows $(WORKFLOWS)
	$(BIN)/check-jsonschema --builtin-schema custom.github-workflows-require-timeout $(WORKFLOWS)
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms \
	    $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	$(BIN)/zizmor --offline --quiet .github

# The report takes both cores together. The compiled one has no lines; the pure one has.
coverage: $(COVERABLE)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -m "not slow" $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

docs: $(DOCUMENTABLE)
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet docs docs/_build/html
	$(BIN)/python docs/check_links.py docs/_build/html

dist: $(DISTRIBUTABLE)
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl

$(MADE):
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

# An editable install sees changes of *.py by itself; the core is compiled again.
$(INSTALLED): $(MADE) pyproject.toml setup.py $(CORE)
	rm -f neotasker/_core$$($(BIN)/python -c 'import sysconfig as s; print(s.get_config_var("EXT_SUFFIX"))')
	$(PIP) install --editable .
	@$(BIN)/python -c 'import neotasker; print("installed, with the", "compiled core" if neotasker.COMPILED else "pure core only")'
	@touch $@

$(TESTABLE): $(INSTALLED)
	$(PIP) install $(TEST_GROUPS:%=--group %)
	@touch $@

$(LINTABLE): $(MADE) pyproject.toml
	$(PIP) install --group lint
	@touch $@

$(COVERABLE): $(INSTALLED)
	$(PIP) install --group coverage
	@touch $@

$(DOCUMENTABLE): $(MADE) pyproject.toml
	$(PIP) install --group docs
	@touch $@

$(MATRIX): $(MADE) pyproject.toml
	$(PIP) install --group matrix
	@touch $@

$(DISTRIBUTABLE): $(MADE) pyproject.toml
	$(PIP) install --group dist
	@touch $@

clean:
	rm -rf $(VENV) .venv-* .nox build dist docs/_build *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -f neotasker/_core.*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
