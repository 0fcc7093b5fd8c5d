# The only commands a newcomer needs. `make help` lists them.

CARGO ?= cargo
BIN := target/debug
# Tests that make namespaces and processes run one after the other; the rest use both cores.
E2E_THREADS ?= 1
# Length of `make soak`.
MINUTES ?= 15

.DEFAULT_GOAL := help
.PHONY: help demo test check bench hostile soak fuzz build deps clean crds

help: ## List the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-7s %s\n", $$1, $$2}'

demo: deps build ## Watch two nodes of pods go from plaintext to mutual TLS and requests to a canary (half a minute after the build)
	@KUBECTL="$$(tools/kubectl.sh)" $(BIN)/demo

test: deps build ## Every test: unit, component, and journeys in the sandbox with real traffic
	tools/test.sh $(E2E_THREADS)

check: ## Formatting, lints as errors, file sizes, dependencies and licences
	$(CARGO) fmt --all --check
	tools/file-sizes.sh
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	tools/deny.sh

bench: deps ## Measure the proxies and the control plane (BENCH="--only bulk,l7,control --rounds 1")
	$(CARGO) build --release -p ztunnel -p waypoint -p istiod -p bench
	target/release/bench $(BENCH)

hostile: deps ## Every kind of hostile peer for 10 s each, and what its neighbours notice, release build
	$(CARGO) build --release -p ztunnel -p hostile --bins
	target/release/hostile --seconds 10

soak: deps ## Two node proxies under load for MINUTES (15) while everything around them changes, release build
	$(CARGO) build --release -p ztunnel -p soak --bins
	target/release/soak --minutes $(MINUTES)
	PROPERTY_SEEDS=$${PROPERTY_SEEDS:-20000} $(CARGO) test --release -p istiod --lib incremental_equals

fuzz: deps ## Search every decoder for bytes that break it, 5 minutes each
	tools/fuzz.sh 300

build: ## Build every program (debug)
	$(CARGO) build --workspace --bins

crds: ## Write the CRDs under deploy/ anew from the types in mesh/api
	$(CARGO) run -p mesh-api --example crds

deps: ## Install the system packages that building and testing need, if missing
	@tools/deps.sh

clean: ## Remove everything that was built
	$(CARGO) clean
