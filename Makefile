# What a person types. Python 3.11 or later and make are all that must be there.
PYTHON ?= python3
BIN := .venv/bin
BOOTSTRAP := $(PYTHON) zenskar/sandbox/bootstrap.py
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help run check test test-kafka kafka chaos chaos-database lint format features bench requirements clean distclean venv venv-dev

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1 | \2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-20s%s\n", $$1, $$2}'

run: venv ## Start everything, show the main job once, and say where everything is (Ctrl-C stops all of it)
	@exec $(BIN)/python -m zenskar.sandbox run

check: venv ## The same, once: show the main job, stop, exit 0 when it worked
	@exec $(BIN)/python -m zenskar.sandbox run --once

test: venv-dev ## The whole suite, on a PostgreSQL, a Redis and a Kafka of its own
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-kafka: venv-dev kafka ## The Kafka tests against a real Apache Kafka 4, or the broker in KAFKA_BOOTSTRAP_SERVERS
	@TEST_KAFKA_BOOTSTRAP_SERVERS="$(KAFKA_BOOTSTRAP_SERVERS)" $(BIN)/python -m pytest -m "kafka and not chaos"

kafka: venv ## Fetch Apache Kafka 4 with Maven into .kafka/ (needs Java 17; not with KAFKA_BOOTSTRAP_SERVERS set)
	@test -n "$(KAFKA_BOOTSTRAP_SERVERS)" || $(BIN)/python -m zenskar.sandbox.kafka_broker fetch

chaos: venv-dev kafka ## The slow proofs under fault injection, against a real broker
	@TEST_KAFKA_BOOTSTRAP_SERVERS="$(KAFKA_BOOTSTRAP_SERVERS)" $(BIN)/python -m pytest -m chaos --timeout 900

chaos-database: venv-dev ## Of them those of the database alone; SANDBOX_POSTGRES=machine or wheel says on which PostgreSQL
	@$(BIN)/python -m pytest tests/chaos/dbresilience -m chaos --timeout 300 -s

lint: venv-dev ## ruff, mypy, import-linter, complete migrations, deployment checks
	@$(BIN)/python -m tests.lint

format: venv-dev ## Let ruff format and fix what it can
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

features: venv-dev ## Each row of the feature table with the tests that prove it, and the rows that have none
	@$(BIN)/python -m pytest -p tests.features --collect-only -m "" --features

bench: venv-dev ## Measure: medians of interleaved runs, as a table and JSON
	@$(BIN)/python -m benchmarks

requirements: venv-dev ## Compile requirements*.in into the pinned files with hashes (needs uv)
	@$(BOOTSTRAP) compile

venv:
	@$(BOOTSTRAP) install

venv-dev:
	@$(BOOTSTRAP) install --dev

clean: ## Forget what make run kept: its data, its admin and its API key
	@$(PYTHON) zenskar/sandbox/bootstrap.py clean

distclean: clean ## And the virtual environment, Apache Kafka and all caches
	@rm -rf .venv .kafka .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache staticfiles
