# Every verb works in a fresh clone: it makes .venv and installs into it what it needs.
# Wanted beforehand: python3 (3.11 or later), make; a C compiler only for the compiled build.

PYTHON ?= python3
BIN := .venv/bin
SOURCES := $(shell find src/endwell -name '*.py' -o -name '*.pxd')
# What has to be covered by tests: all that has no I/O.
CORE := src/endwell/*.py,src/endwell/wire/*,src/endwell/protocol/*
# By these; tracing the others would slow down what they measure.
CORE_TESTS := tests/words tests/wire tests/protocol
# The others in two halves, by the time that they take.
SERVER_TESTS := tests/cli tests/hostile tests/server
FACE_TESTS := $(addprefix --ignore=,$(CORE_TESTS) $(SERVER_TESTS))
# How long to fuzz, in sum, and what (nothing: everything).
SECONDS ?= 600
TARGETS ?=

.PHONY: build demo test test-compiled test-compiled-core test-compiled-server test-compiled-faces
.PHONY: test-pure test-pure-core test-pure-server test-pure-faces
.PHONY: test-browser test-deploy test-network fuzz check docs conformance conformance-quick interop-legacy bench clean
.DELETE_ON_ERROR:

build: .venv/built

demo: .venv/built
	$(BIN)/endwell demo

# All at once: most of a test's time is waiting.
test: .venv/built
	@$(MAKE) --no-print-directory --jobs=6 --output-sync=target test-compiled test-pure

# The compiled build runs on uvloop, the pure one on asyncio's own loop.
test-compiled: test-compiled-core test-compiled-server test-compiled-faces
test-compiled-core: TESTS := $(CORE_TESTS)
test-compiled-server: TESTS := $(SERVER_TESTS)
test-compiled-faces: TESTS := $(FACE_TESTS)
test-compiled-core test-compiled-server test-compiled-faces: .venv/built
	@if test -n "`$(BIN)/python -c 'import endwell; print(*endwell.compiled())'`"; \
	then ENDWELL_LOOP=uvloop $(BIN)/python -m pytest $(TESTS); \
	else echo "nothing is compiled here (no C compiler?): only the pure build is tested"; fi

test-pure: test-pure-core test-pure-server test-pure-faces
test-pure-core: .venv/built
	ENDWELL_PURE=1 $(BIN)/coverage run -m pytest $(CORE_TESTS)
	$(BIN)/coverage report --include='$(CORE)' --fail-under=98
test-pure-server: TESTS := $(SERVER_TESTS)
test-pure-faces: TESTS := $(FACE_TESTS)
test-pure-server test-pure-faces: .venv/built
	ENDWELL_PURE=1 $(BIN)/python -m pytest $(TESTS)

# Real browsers (chromium, firefox-esr), npm, and root for a network that can be cut.
test-browser: .venv/built tools/browser/node_modules/installed
	$(BIN)/python -m pytest tests/browser

# nginx, haproxy, and of systemd its systemd-analyze and systemd-socket-activate.
test-deploy: .venv/built
	$(BIN)/python -m pytest tests/deploy

# Root, and ip (iproute2), for networks that can be cut.
test-network: .venv/built
	$(BIN)/python -m pytest tests/network

# What reaches something new is added to tests/fuzz/corpus; a find is a file find-TARGET-... here.
fuzz: .venv/built
	ENDWELL_PURE=1 nice $(BIN)/python -m tests.fuzz.run --keep --seconds $(SECONDS) $(TARGETS)

check: .venv/built
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_sizes.py
	$(BIN)/python tools/make_docs.py --check
	$(BIN)/python tools/browser_constants.py --check
	$(BIN)/python -m tools.browser_page --check

docs: .venv/built
	$(BIN)/python tools/make_docs.py
	$(BIN)/python tools/browser_constants.py
	$(BIN)/python -m tools.endings_page
	$(BIN)/python -m tools.browser_page

conformance: .venv/built
	$(BIN)/python tests/conformance/autobahn.py

conformance-quick: .venv/built
	$(BIN)/python tests/conformance/autobahn.py --quick

# Needs the peers of docs/legacy.md; what is not installed is left out.
interop-legacy: .venv/built
	$(BIN)/python tests/interop/legacy.py

bench: .venv-bench/installed
	.venv-bench/bin/python benchmarks/run.py

clean:
	rm -rf .venv .venv-bench tools/browser/node_modules build dist .coverage .hypothesis .*_cache src/*.egg-info
	find src -name '*.so' -delete

%/bin/pip:
	sh tools/make_venv.sh '$(PYTHON)' $*

.venv/installed: pyproject.toml | .venv/bin/pip
	# The compiler stays in .venv, so that a changed source is built again without the network.
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	| $(BIN)/pip install --quiet --requirement /dev/stdin
	ENDWELL_PURE=1 $(BIN)/pip install --quiet --no-build-isolation --editable '.[dev]'
	touch $@

.venv/built: .venv/installed setup.py $(SOURCES)
	$(BIN)/python setup.py --quiet build_ext --inplace --parallel 2
	touch $@

tools/browser/node_modules/installed: tools/browser/package.json tools/browser/package-lock.json
	npm ci --prefix tools/browser --no-audit --no-fund
	touch $@

# The peers have an environment of their own; endwell is the same one, with what is compiled above.
.venv-bench/installed: benchmarks/requirements.txt .venv/built | .venv-bench/bin/pip
	ENDWELL_PURE=1 .venv-bench/bin/pip install --quiet --requirement benchmarks/requirements.txt --editable .
	touch $@
