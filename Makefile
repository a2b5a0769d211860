# A machine needs Python 3.11 and make; everything else is fetched into $(VENV).
VENV ?= $(if $(VIRTUAL_ENV),$(VIRTUAL_ENV),.venv)
PYTHON ?= python3
RUN := $(VENV)/bin/python -m
STAMP := $(VENV)/.jobsvc-installed

.PHONY: demo test check bench format

demo: $(STAMP)
	$(RUN) jobsvc demo

test: $(STAMP)
	$(RUN) pytest --cov --cov-report=
	$(RUN) coverage report
	$(RUN) tests.coverage_floors

check: $(STAMP)
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(VENV)/bin/lint-imports

bench: $(STAMP)
	$(RUN) benchmarks

format: $(STAMP)
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

$(STAMP): pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --editable '.[dev]'
	touch $@
