# What there is to do; `make` alone lists it. A fresh machine needs make and a Python from 3.11 to 3.13, and no preparation.
.DEFAULT_GOAL := help
SHELL := /bin/sh
.DELETE_ON_ERROR:
.PHONY: help demo test test-adapters test-cluster test-containers chaos fuzz soak check check-deploy bench bench-peers luck up down up-local down-local clean setup format generate lock test-setup servers
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
# A stamp tells that a lock is installed; it goes with .venv, and a newer lock undoes it.
DEMO := .venv/.installed-demo
TEST := .venv/.installed-test
SETUP := pyproject.toml deploy/setup/install

help: ## list what there is to do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(DEMO) ## see a real small model decide, then load and outages with a simulator; ARGS="..." takes options, ARGS=--help lists them
	@$(BIN)/aquiline demo $(ARGS)

test: test-setup ## everything that is checked: make check, make check-deploy, and all tests, with real Kafka and Redis; JOBS=1 for less at a time
	@$(MAKE) check
	@$(MAKE) check-deploy
	$(BIN)/pytest -n $(or $(JOBS),2) --no-loadscope-reorder

test-adapters: ## test the adapters of examples/ against the real freqtrade and NautilusTrader, each in an environment of its own (1.5 GB)
	@deploy/setup/adapters

test-cluster: $(TEST) ## apply every Kubernetes overlay to a real API server and scheduler, without containers; the first run builds them (Go 1.24)
	@deploy/setup/system cluster
	@STORE=1 STORED_BY="make test-cluster" $(BIN)/python -m tests.cluster

test-containers: test-setup ## build the images and run the Compose file on a real Docker Engine, one of its own where none answers (docs/compose.md)
	@docker info >/dev/null 2>&1 || deploy/setup/system containers
	@CONTAINERS=1 STORE=1 STORED_BY="make test-containers" $(BIN)/pytest tests/containers -q -s

chaos: test-setup ## kill worker, Redis, broker, engine and members under load, and judge by the topics; ROUNDS=25 is 100 kills of the worker, SEED=1 others
	@STORE=1 STORED_BY="make chaos ROUNDS=$(or $(ROUNDS),1)" ROUNDS=$(or $(ROUNDS),1) CHAOS_SEED=$(or $(SEED),0) $(BIN)/pytest tests/chaos -q -s

fuzz: test-setup ## send the worker 100,000 malformed records of every input topic and 20,000 malformed engine answers; SEED=1 draws others
	@STORE=1 FUZZ_RECORDS=100000 FUZZ_ANSWERS=20000 FUZZ_SEED=$(or $(SEED),0) $(BIN)/pytest tests/integration/fusion/test_fuzz.py -q --timeout 0

soak: test-setup ## play HOURS=24 hours of market time for 50 symbols at speed on real Kafka and Redis, and watch sums and memory
	@STORE=1 STORED_BY="make soak HOURS=$(or $(HOURS),24)" HOURS=$(or $(HOURS),24) $(BIN)/pytest tests/soak -q -s

check: $(TEST) ## format, lint, types, import direction, generated files and locks
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m schemas.generate --check
	$(BIN)/python -m services.core.settings_reference --check
	$(BIN)/python -m services.core.metrics_reference --check
	$(BIN)/python -m services.inference.capabilities_reference --check
	deploy/setup/check-locks

check-deploy: test-setup ## what is deployed, without a container engine: compose file, Dockerfiles, Kubernetes overlays; CHECKS="k8s" runs some
	$(BIN)/python -m deploy.check $(CHECKS)

bench: test-setup ## measure, and store the figures in benchmarks/results/
	@$(BIN)/python -m benchmarks $(ARGS)

bench-peers: test-setup ## measure beside workers on other stream libraries, each in an environment of its own; ARGS=--quick for a short look
	@$(BIN)/python -m benchmarks.peers $(ARGS)

luck: test-setup ## how often the report takes luck for skill, and finds an edge, stored in benchmarks/results/luck.json
	@$(BIN)/python -m benchmarks luck $(ARGS)

up: ## start it with Docker Compose: PROFILES="default", "gpu", "default observability"
	@deploy/setup/compose up $(PROFILES)

down: ## end what `make up` started, of every profile; ARGS=--volumes deletes its data too
	@deploy/setup/compose down $(ARGS)

up-local: servers ## start Kafka, Redis and the simulator on this machine, without containers
	@$(BIN)/python -m deploy.local up

down-local: $(DEMO) ## end them
	@$(BIN)/python -m deploy.local down

clean: ## delete what was made here: caches, the virtual environment, the demo's files
	@if [ -d .local ] && [ -x $(BIN)/python ]; then $(BIN)/python -m deploy.local down; fi
	rm -rf .venv .cache .local .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	rm -f demo-report.json demo-signals.jsonl demo-audit.jsonl demo-log.jsonl.gz backtest.html
	rm -rf backtest
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

format: $(TEST) ## format the code and mend what ruff can
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

generate: $(TEST) ## write the generated files anew: schemas, docs/messages.md, docs/configuration.md, docs/metrics.md, the PrometheusRule
	$(BIN)/python -m schemas.generate
	$(BIN)/python -m services.core.settings_reference
	$(BIN)/python -m services.core.metrics_reference
	$(BIN)/python -m services.inference.capabilities_reference
	$(BIN)/python -m deploy.prometheus_rule

lock: ## resolve the packages of pyproject.toml; ARGS=--upgrade takes the newest of everything
	@deploy/setup/lock $(ARGS)

setup: $(TEST) ## only install what tests need

test-setup: $(TEST) servers
	@$(BIN)/aquiline engine local --fetch-only >/dev/null || echo "setup: the tests of the local engine are skipped without its weights"

servers: $(DEMO)
	@deploy/setup/system
	@$(BIN)/python -m deploy.local fetch

$(DEMO): deploy/locks/demo.txt $(SETUP)
	@deploy/setup/install demo
	@touch $@

# The larger lock holds all of the smaller one.
$(TEST): deploy/locks/test.txt $(SETUP)
	@deploy/setup/install test
	@touch $(DEMO) $@
