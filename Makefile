# The only commands a newcomer needs. `make help` lists them.

CARGO ?= cargo
BIN := target/debug
# Tests that make namespaces and processes run one after the other; the rest use both cores.
E2E_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test check bench build deps clean crds

help: ## List the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-7s %s\n", $$1, $$2}'

demo: deps build ## Watch two nodes of pods go from plaintext to mutual TLS (about 20 s after the build)
	@KUBECTL="$$(tools/kubectl.sh)" $(BIN)/demo

test: deps build ## Every test: unit, component, and journeys in the sandbox with real traffic
	tools/test.sh $(E2E_THREADS)

check: ## Formatting, lints as errors, file sizes, dependencies and licences
	$(CARGO) fmt --all --check
	tools/file-sizes.sh
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	tools/deny.sh

bench: deps ## Measure the node proxy against a direct connection, release build
	$(CARGO) build --release --workspace --bins
	target/release/bench

build: ## Build every program (debug)
	$(CARGO) build --workspace --bins

crds: ## Write the CRDs under deploy/ anew from the types in mesh/api
	$(CARGO) run -p mesh-api --example crds

deps: ## Install the system packages that building and testing need, if missing
	@tools/deps.sh

clean: ## Remove everything that was built
	$(CARGO) clean
