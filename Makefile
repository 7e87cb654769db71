# Every target works in a fresh clone: it creates .venv and installs its requirements there.
# Prerequisites: python3 (3.11 or later) and make; a C compiler for the compiled build only.

PYTHON ?= python3
BIN := .venv/bin
SOURCES := $(shell find src/endwell -name '*.py' -o -name '*.pxd' -o -name '*.pyx')
# The files whose coverage is measured: all modules without I/O. Those of the top layer do I/O.
TOP := src/endwell/__main__.py,src/endwell/live.py,src/endwell/testing.py,src/endwell/uvicorn.py
CORE := src/endwell/*.py,src/endwell/http/*,src/endwell/wire/*,src/endwell/protocol/*
# The tests that run with coverage. Coverage would slow down the others, which measure times.
CORE_TESTS := $(wildcard tests/test_*.py) tests/wire tests/protocol
# The other tests, in groups of about equal duration.
PROCESS_TESTS := tests/server/process
SERVER_TESTS := tests/server --ignore=$(PROCESS_TESTS)
PEER_TESTS := tests/cli tests/client tests/sync
ASGI_TESTS := tests/asgi
# $(call every,N,I,FOLDER): of the files of a folder, each Nth one, beginning with file I.
every = $(shell find $(3) -name 'test_*.py' | sort | awk 'NR % $(1) == $(2) % $(1)')
HOSTILE_TESTS_1 := $(call every,2,1,tests/hostile)
HOSTILE_TESTS_2 := tests/hostile $(addprefix --ignore=,$(HOSTILE_TESTS_1))
CONTRACT_TESTS_1 := $(call every,3,1,tests/contract)
CONTRACT_TESTS_2 := $(call every,3,2,tests/contract)
CONTRACT_TESTS_3 := tests/contract $(addprefix --ignore=,$(CONTRACT_TESTS_1) $(CONTRACT_TESTS_2))
OTHER_TESTS := $(addprefix --ignore=,$(CORE_TESTS) tests/server tests/hostile $(PEER_TESTS) $(ASGI_TESTS) tests/contract)
# The longest first.
CONTRACT_GROUPS := contract-1 contract-2 contract-3
GROUPS := $(CONTRACT_GROUPS) process peers server hostile-1 hostile-2 others asgi core
# The groups of what `make test` leaves out: nothing in `process`, little in most others.
REST_GROUPS := $(CONTRACT_GROUPS) hostile-1 hostile-2 elsewhere
# The browser tests, in groups of about equal duration.
BROWSER_GROUPS := dashboard page elsewhere
PAGE_TESTS := tests/browser/test_page.py tests/browser/test_presence.py
DASHBOARD_TESTS := tests/browser/test_dashboard.py
# Groups that run at once. They mostly wait, so there are more of them than processors.
JOBS ?= 8
# Seconds of fuzzing in total, and the targets (empty: all).
SECONDS ?= 600
TARGETS ?=

.PHONY: build demo quick test test-all test-rest test-programs test-browser test-deploy test-network test-buses fuzz check docs types pictures site
.PHONY: conformance conformance-quick interop-legacy bench instructions clean
.DELETE_ON_ERROR:

build: .venv/built

# Without a previous build, the demo runs as plain Python, because compiling takes a minute or more.
# WORKERS=2 serves in two processes.
demo: $(if $(wildcard .venv/built),.venv/built,.venv/ready)
	@test -e .venv/built || echo "endwell is not compiled, and runs as plain Python; 'make build' compiles it"
	$(BIN)/endwell demo $(if $(WORKERS),--workers $(WORKERS))

# The compiled build is tested on uvloop, the plain build on asyncio's own loop.
COMPILED := ENDWELL_LOOP=uvloop $(BIN)/python -m pytest
PLAIN := ENDWELL_PURE=1 $(BIN)/python -m pytest
IS_COMPILED := test -n "`$(BIN)/python -c 'import endwell; print(*endwell.compiled())'`"
# A group that fails does not stop the others: one run shows all failures.
AT_ONCE = $(MAKE) --no-print-directory --keep-going --jobs=$(JOBS) --output-sync=target

# The tests without I/O, and the contract tests of both faces: to run while editing.
QUICK := $(addprefix quick-,core $(CONTRACT_GROUPS))
quick: .venv/built
	@$(AT_ONCE) $(QUICK)

# Each behaviour once, in one build: the compiled one if there is a compiler.
test: .venv/built
	@$(AT_ONCE) $(GROUPS:%=once-%)

# Each behaviour in every combination, in both builds, with the coverage of the core.
test-all: .venv/built
	@$(AT_ONCE) $(GROUPS:%=compiled-%) $(GROUPS:%=plain-%)

# What .ci/run runs after `make check` and `make test`, the longest parts first. Of the compiled build, test-rest runs
# what `make test` has not run.
test-rest: .venv/built .venv/checkers
	@$(AT_ONCE) $(CONTRACT_GROUPS:%=plain-%) $(CONTRACT_GROUPS:%=rest-%) instructions conformance-quick \
	$(addprefix plain-,$(filter-out $(CONTRACT_GROUPS),$(GROUPS))) \
	$(addprefix rest-,$(filter-out $(CONTRACT_GROUPS),$(REST_GROUPS))) site

# The tests with browsers, Redis, NATS and proxies. Fewer at once: these programs have time limits of their own.
test-programs: JOBS = 3
test-programs: .venv/built
	@$(AT_ONCE) buses-asyncio buses-uvloop $(BROWSER_GROUPS:%=browser-%) test-network test-deploy interop-legacy

.PHONY: $(QUICK) $(GROUPS:%=once-%) $(GROUPS:%=compiled-%) $(GROUPS:%=plain-%) $(REST_GROUPS:%=rest-%)
%-core: TESTS = $(CORE_TESTS)
%-server: TESTS = $(SERVER_TESTS)
%-process: TESTS = $(PROCESS_TESTS)
%-hostile-1: TESTS = $(HOSTILE_TESTS_1)
%-hostile-2: TESTS = $(HOSTILE_TESTS_2)
%-peers: TESTS = $(PEER_TESTS)
%-contract-1: TESTS = $(CONTRACT_TESTS_1)
%-contract-2: TESTS = $(CONTRACT_TESTS_2)
%-contract-3: TESTS = $(CONTRACT_TESTS_3)
%-asgi: TESTS = $(ASGI_TESTS)
%-others: TESTS = $(OTHER_TESTS)
rest-elsewhere: TESTS = --ignore=tests/hostile --ignore=tests/contract

$(QUICK) $(GROUPS:%=once-%):
	@if $(IS_COMPILED); then $(COMPILED) --once $(TESTS); else $(PLAIN) --once $(TESTS); fi

$(GROUPS:%=compiled-%):
	@if $(IS_COMPILED); then $(COMPILED) $(TESTS); \
	else echo "endwell is not compiled (no C compiler?): only the plain build is tested"; fi

$(REST_GROUPS:%=rest-%):
	$(COMPILED) --rest $(TESTS)

plain-core:
	ENDWELL_PURE=1 $(BIN)/coverage run -m pytest $(TESTS)
	$(BIN)/coverage report --include='$(CORE)' --omit='$(TOP)' --fail-under=98

$(filter-out plain-core,$(GROUPS:%=plain-%)):
	$(PLAIN) $(TESTS)

# Needs browsers (chromium, firefox-esr), npm, and root (to cut a network).
test-browser: .venv/built tools/browser/node_modules/installed
	@$(AT_ONCE) $(BROWSER_GROUPS:%=browser-%)

.PHONY: $(BROWSER_GROUPS:%=browser-%)
browser-dashboard: TESTS = $(DASHBOARD_TESTS)
browser-page: TESTS = $(PAGE_TESTS)
browser-elsewhere: TESTS = tests/browser $(addprefix --ignore=,$(DASHBOARD_TESTS) $(PAGE_TESTS))
$(BROWSER_GROUPS:%=browser-%): .venv/built tools/browser/node_modules/installed
	$(BIN)/python -m pytest $(TESTS)

# Needs nginx, haproxy, systemd-analyze and systemd-socket-activate; for clients tinyproxy, squid, danted, microsocks.
test-deploy: .venv/built
	$(BIN)/python -m pytest tests/deploy

# Needs root and ip (iproute2), to cut networks, and redis-server.
test-network: .venv/built
	$(BIN)/python -m pytest tests/network

# Needs redis-server, redis-sentinel and nats-server.
BUSES := ENDWELL_REDIS=1 ENDWELL_CLUSTER=1 ENDWELL_NATS=1 $(BIN)/python -m pytest tests/redis tests/nats tests/rooms \
	tests/server/dashboard/test_workers.py
test-buses: .venv/built
	@$(AT_ONCE) buses-asyncio buses-uvloop

.PHONY: buses-asyncio buses-uvloop
buses-asyncio:
	$(BUSES)

buses-uvloop:
	ENDWELL_LOOP=uvloop $(BUSES)

# Inputs that reach new code are added to tests/fuzz/corpus. A failing input becomes a file find-TARGET-... here.
fuzz: .venv/built
	ENDWELL_PURE=1 nice $(BIN)/python -m tests.fuzz.run --keep --seconds $(SECONDS) $(TARGETS)

check: .venv/built .venv/checkers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_sizes.py
	$(BIN)/python tools/check_words.py src tests examples benchmarks tools README.md CONTRIBUTING.md CHANGELOG.md docs
	$(BIN)/python tools/make_docs.py --check
	$(BIN)/python tools/browser_constants.py --check
	$(BIN)/python -m tools.browser_page --check

docs: .venv/built .venv/checkers
	$(BIN)/python tools/make_docs.py
	$(BIN)/python tools/browser_constants.py
	$(BIN)/python -m tools.endings_page
	$(BIN)/python -m tools.browser_page

# Writes build/site. Fails on a broken link, on a public name without an entry, and on a code block of a page
# or a docstring that fails.
site: .venv/built .venv/checkers
	$(BIN)/python tools/site/run_blocks.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	$(BIN)/python tools/site/check.py

# Writes endwell.d.ts. Not part of `docs`, because it needs npm; test-browser checks the file.
types: .venv/built tools/browser/node_modules/installed
	$(BIN)/python tools/browser_types.py

# Writes docs/assets/dashboard-*.png. Needs chromium.
pictures: .venv/built
	$(BIN)/python -m tests.browser.pictures

conformance: .venv/built
	$(BIN)/python -m tests.conformance.autobahn

conformance-quick: .venv/built
	$(BIN)/python -m tests.conformance.autobahn --quick

# Uses the peers of docs/howto/legacy.md; skips those that are not installed.
interop-legacy: .venv/built
	$(BIN)/python tests/interop/legacy.py

bench: .venv-bench/installed
	.venv-bench/bin/python benchmarks/run.py

# Needs valgrind and a C compiler. Fails if a path needs more instructions than benchmarks/instructions.json says.
instructions: .venv/built
	$(BIN)/python benchmarks/instructions.py

clean:
	rm -rf .venv .venv-bench tools/browser/node_modules build dist .coverage .hypothesis .*_cache src/*.egg-info
	find src -name '*.so' -delete
	rm -f src/endwell/not-compiled

%/bin/pip:
	sh tools/make_venv.sh '$(PYTHON)' $*

# The requirements of the demo.
.venv/ready: pyproject.toml | .venv/bin/pip
	# Install Cython into .venv, so that later builds do not need the network.
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	| $(BIN)/pip install --quiet --requirement /dev/stdin
	ENDWELL_PURE=1 $(BIN)/pip install --quiet --no-build-isolation --editable .
	touch $@

.venv/installed: .venv/ready
	ENDWELL_PURE=1 $(BIN)/pip install --quiet --no-build-isolation --editable '.[test]'
	touch $@

.venv/checkers: .venv/installed
	ENDWELL_PURE=1 $(BIN)/pip install --quiet --no-build-isolation --editable '.[dev]'
	touch $@

.venv/built: .venv/installed setup.py $(SOURCES)
	@echo "compiling endwell (takes about a minute; 'make demo' works without it)"
	$(BIN)/python setup.py --quiet build_ext --inplace
	touch $@

tools/browser/node_modules/installed: tools/browser/package.json tools/browser/package-lock.json
	npm ci --prefix tools/browser --no-audit --no-fund
	touch $@

# The other libraries have a separate environment, which uses this endwell and its compiled modules.
.venv-bench/installed: benchmarks/requirements.txt .venv/built | .venv-bench/bin/pip
	ENDWELL_PURE=1 .venv-bench/bin/pip install --quiet --requirement benchmarks/requirements.txt --editable .
	touch $@
