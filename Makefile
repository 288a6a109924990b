# Everything a developer runs. Needs python3 (3.10 or later), make and git; nothing else is installed outside .venv.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
LOCK   := requirements/dev.txt

PYTEST_ARGS ?=
# Test files run side by side, since most of what they do is to wait for processes. WORKERS=0 for a debugger.
WORKERS     ?= auto
DEMO_ARGS   ?=
BENCH_ARGS  ?=
TORTURE_ARGS ?=
OUTAGE_ARGS ?=
NOX_ARGS   ?=
COMPOSE     ?= docker compose
# `make lock` keeps the pins that still fit; `make lock UPGRADE=1` takes the newest of everything.
UPGRADE     ?=

COMPILE = UV_CUSTOM_COMPILE_COMMAND="make lock" $(PY) -m uv pip compile --quiet --universal --python-version 3.10 \
  --generate-hashes --no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade)

# Quiet: warnings and errors only.
PIP := $(PY) -m pip --quiet --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test torture ray-torture collector-check collector-torture binaries stack stack-native docs lint format types bench lock matrix dist clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(VENV)/.ready  ## make .venv with everything pinned in requirements/dev.txt, and this package in it

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "$(PYTHON) must be Python 3.10 or later: make setup PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "making $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV) \
	  || { rm -rf $(VENV); echo "$(PYTHON) has no venv module (Debian: apt-get install python3-venv)" >&2; exit 1; }

# The stamp lives in the environment that it speaks of: whoever removes one removes the other.
$(VENV)/.ready: pyproject.toml $(LOCK) | $(VENV)/bin/python
	@echo "installing $(LOCK)"
	@$(PIP) install --require-hashes -r $(LOCK)
	@$(PIP) install --no-deps --no-build-isolation -e .
	@$(PY) -m pip --disable-pip-version-check check >/dev/null || $(PY) -m pip check
	@touch $@

demo: setup  ## run the subtitle pipeline on real speech; it says where to look
	@$(PY) -m examples.subtitles $(DEMO_ARGS)

test: setup binaries  ## run the tests (PYTEST_ARGS="-k name -x" WORKERS=0)
	@$(PY) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# The real collector, Jaeger and a compose parser, built once into a cache outside the tree. Where they cannot be built,
# the tests that need them skip and say why; in CI (STAGEIO_CI=1) that is a failure.
binaries: setup  ## build or fetch what tests run: collector, Jaeger, promtool, Kafka, Prefect (needs Go and Maven, once)
	@$(PY) -m collector.build.build && $(PY) -m collector.build.broker || [ "$$STAGEIO_CI" != 1 ]
	@$(PY) -m tests.prefect_environment || [ "$$STAGEIO_CI" != 1 ]

stack:  ## collector, Jaeger, Prometheus, Loki and Grafana in containers
	@$(COMPOSE) -f docker-compose.otel.yml up --detach
	@echo "export OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318    # Grafana: http://localhost:3000"

stack-native: binaries  ## collector and Jaeger without containers, with the same configuration
	@$(PY) -m collector.native

torture: setup binaries  ## kill, fill and lie for some minutes (TORTURE_ARGS="--trials 1000 --seed 7")
	@$(PY) -m tests.torture $(TORTURE_ARGS)

ray-torture: setup binaries  ## 200 jobs on three raylets; workers and one raylet are killed
	@STAGEIO_RAY_JOBS=200 $(PY) -m pytest -q -s -n 0 tests/test_ray_torture.py

collector-check: setup binaries  ## read, validate and start the collector's configurations (part of make test)
	@$(PY) -m collector.check
	@$(PY) -m pytest -q tests/test_collector_config.py tests/test_gateway.py tests/test_kafka_tier.py

collector-torture: setup binaries  ## kill gateways and consumers, 20 times each (OUTAGE_ARGS="--trials 5")
	@$(PY) -m tests.outage $(OUTAGE_ARGS)

docs: setup  ## build the documentation, strictly, into build/site (its search needs a server: mkdocs serve)
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet --site-dir build/site
	@echo "build/site/index.html"

lint: setup  ## ruff: rules and formatting
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

format: setup  ## let ruff mend what it can
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

types: setup  ## mypy, strict, over the package
	@$(PY) -m mypy

bench: setup  ## measure what a stage and a log line cost (BENCH_ARGS)
	@$(PY) -m bench $(BENCH_ARGS)

lock: | $(VENV)/bin/python  ## write requirements/*.txt anew from pyproject.toml (UPGRADE=1: newest of all)
	@$(PIP) install uv
	@$(COMPILE) --extra dev --output-file $(LOCK) pyproject.toml
	@$(COMPILE) --output-file requirements/prefect.txt pyproject.toml requirements/prefect.in

matrix: setup  ## the packages, their types and size, and other Pythons and SDKs (NOX_ARGS="-s types")
	@$(PY) -m nox $(NOX_ARGS)

dist: setup  ## build sdist and wheel into dist/
	@rm -rf dist
	@$(PY) -m build --no-isolation --outdir dist . >/dev/null
	@ls dist

clean:  ## remove .venv, caches and what was built (out/ stays)
	@rm -rf $(VENV) dist build .nox .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
