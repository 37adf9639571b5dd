# Two commands are enough to begin: `make demo` and `make test`. `make help` lists the rest.

CARGO ?= cargo
SHELL := /bin/bash
PYTHON_TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/headwater/python/bin/python

DISTRIBUTED := $(filter distributed,$(ENGINES))

.DEFAULT_GOAL := help
.PHONY: help demo build test test-fast lint fmt deny bench clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## a real PostgreSQL billing database under load, and its invoices as fresh JSON: watch it for as long as you like (ENGINES=distributed: over a real Kafka and MongoDB)
	@scripts/need.sh build
	@scripts/need.sh $(if $(DISTRIBUTED),engines,servers)
	$(CARGO) build --release --quiet -p headwater
	$(if $(DISTRIBUTED),scripts/with-engines.sh) target/release/headwater demo $(ARGS)

build: ## the release binary, target/release/headwater
	@scripts/need.sh build
	$(CARGO) build --release -p headwater

test: ## every test, against real servers (installs them if they are missing)
	@scripts/need.sh build
	@scripts/need.sh tests
	HEADWATER_PYTHON=$(PYTHON_TOOLS) scripts/test.sh

test-fast: ## unit and contract tests only, without the end-to-end suite
	@scripts/need.sh build
	@scripts/need.sh servers
	$(CARGO) test --workspace --exclude headwater-tests

lint: ## formatting, clippy with warnings as errors, licences and sources of dependencies
	@scripts/need.sh build
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --features headwater/failpoints -- -D warnings
	scripts/deny.sh

fmt: ## formats everything
	$(CARGO) fmt --all

bench: ## every figure beside its limit, into target/bench/report.json; one of them: make bench FIGURE=freshness
	@scripts/need.sh build
	@scripts/need.sh bench
	$(CARGO) build --release -p headwater -p headwater-bench
	target/release/headwater-bench $(if $(FIGURE),--figure $(FIGURE)) $(ARGS)

clean: ## removes what was built
	$(CARGO) clean
