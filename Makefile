# Requires Python 3.11 or newer and make; everything else is installed into $(VENV).
VENV ?= $(if $(VIRTUAL_ENV),$(VIRTUAL_ENV),.venv)
PYTHON ?= python3
RUN := $(VENV)/bin/python -m
STAMP := $(VENV)/.jobsvc-installed
DEMO_STAMP := $(VENV)/.jobsvc-demo-installed
# The demo installs an ffmpeg only if the machine has none.
DEMO := $(if $(shell command -v ffmpeg),.,.[demo])

# Each test process imports all tests: 8 s from bytecode, 17 s without. Tests start several hundred programs more.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-renderers test-quick fuzz check bench format

demo: $(DEMO_STAMP)
	$(RUN) jobsvc demo

# More processes than cores, because tests also wait. On two cores, 3 processes take 17 minutes. More are faster,
# but the more there are, the more likely a test fails because the machine is busy.
TEST_PROCESSES ?= 3
test: $(STAMP)
	$(RUN) coverage erase
	$(RUN) coverage run -m pytest -n $(TEST_PROCESSES) --dist worksteal -m "not alone"
	$(RUN) coverage run -m pytest -m alone
	$(RUN) coverage combine --quiet
	$(RUN) coverage report
	$(RUN) tests.checks.coverage_floors

# Renders with Blender of Debian, and with bpy in a virtual environment of its own (1.5 GB).
BPY := $(VENV)/bpy
test-renderers: $(STAMP)
	command -v blender >/dev/null || apt-get install --yes --no-install-recommends blender
	test -x $(BPY)/bin/python || $(PYTHON) -m venv $(BPY)
	$(BPY)/bin/python -m pip install --quiet bpy==5.0.1
	JOBSVC_TEST_BPY=$(abspath $(BPY))/bin/python $(RUN) pytest tests/runner/test_real_renderers.py tests/runner/test_blender_add_on.py

# Tests of single modules that do not start the service, without coverage.
QUICK := $(addprefix tests/,domain settings observe storage index/catalogue index/queries web/headers)
test-quick: $(STAMP)
	$(RUN) pytest -n 2 --dist worksteal -m "not service" --ignore tests/storage/filesystem/test_sshfs.py $(QUICK)

# Sends random requests to every variant of the connection, then through proxies: FUZZ_COUNT=1000000 FUZZ_SEED=7 make fuzz
FUZZ_COUNT ?= 100000
FUZZ_SEED ?=
FUZZ_BEHIND_COUNT ?= 5000
fuzz: $(STAMP)
	$(RUN) tests.fuzz --count $(FUZZ_COUNT) $(if $(FUZZ_SEED),--seed $(FUZZ_SEED)) --processes $(shell nproc)
	for proxy in nginx haproxy caddy; do $(RUN) tests.fuzz --behind $$proxy --count $(FUZZ_BEHIND_COUNT) || exit; done

# Client code runs on Windows too. A cache of its own: mypy discards results for another platform.
PORTABLE := jobsvc/client jobsvc/cli/client
check: $(STAMP)
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(RUN) mypy --platform win32 --cache-dir .mypy_cache/win32 $(PORTABLE)
	$(VENV)/bin/lint-imports

bench: $(STAMP)
	$(RUN) benchmarks

format: $(STAMP)
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml | $(VENV)/bin/python
	$(RUN) pip install --quiet --editable '.[dev]'
	touch $@ $(DEMO_STAMP)

$(DEMO_STAMP): pyproject.toml | $(VENV)/bin/python
	$(RUN) pip install --quiet --editable '$(DEMO)'
	touch $@
