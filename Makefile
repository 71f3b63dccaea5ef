# The two commands are `make demo` and `make test`. Both build with the same profile into the same folder, so that
# RocksDB and FAISS compile once.

SHELL := bash
.DEFAULT_GOAL := help

export PATH := /usr/lib/ccache:$(PATH)
# One compiler for each core, whatever a caller's MAKEFLAGS say.
export CARGO_BUILD_JOBS ?= $(shell nproc)
unexport MAKEFLAGS

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

.PHONY: setup
setup: ## Install what the build needs and this machine lacks
	@deploy/setup.sh

.PHONY: demo
demo: setup ## Start a server, load real embeddings, search in them; leaves the server running
	@deploy/demo.sh

.PHONY: demo-stop
demo-stop: ## Stop the demo's server and remove its data
	@deploy/demo.sh stop

.PHONY: cluster-demo
cluster-demo: setup ## Start a cluster of six processes, kill and revive nodes, check every answer; leaves it running
	@deploy/cluster-demo.sh

.PHONY: cluster-demo-stop
cluster-demo-stop: ## Stop the cluster of the demo and remove its data
	@deploy/cluster-demo.sh stop

.PHONY: release
release: setup ## Build `sagittad` and `sagitta` as they are deployed, into target/release
	cargo build --release --workspace --locked --bin sagittad --bin sagitta

.PHONY: test
test: setup ## Everything that CI runs
	@deploy/test.sh

.PHONY: quick
quick: ## The tests that need no C++ build
	cargo test --locked

.PHONY: simulate
simulate: ## Run whole clusters in one thread over a simulated network, replayable by SAGITTA_SEED
	RUSTFLAGS='--cfg tokio_unstable' CARGO_TARGET_DIR="$${CARGO_TARGET_DIR:-target}/simulation" \
	  cargo test --locked --package sagitta-simulation -- --nocapture --test-threads=2

.PHONY: chaos
chaos: setup ## Kill, pause, cut off and fill up clusters, real and simulated, for at most 40 minutes; lists what ran
	@deploy/chaos.sh

.PHONY: bench
bench: ## Measure what the server adds to its index, in CPU time; see benches/README.md
	cargo build --workspace --locked --bin sagittad --bin overhead
	"$${CARGO_TARGET_DIR:-target}/debug/overhead"

.PHONY: bench-writes
bench-writes: ## Measure writes that three nodes keep against the disks' own limit; see benches/README.md
	cargo build --workspace --locked --bin sagittad --bin overhead --bin replicated
	"$${CARGO_TARGET_DIR:-target}/debug/replicated"

.PHONY: bench-moves
bench-moves: ## Measure what searches and writes feel of a replica that moves; see benches/README.md
	cargo build --workspace --locked --bin sagittad --bin moving
	"$${CARGO_TARGET_DIR:-target}/debug/moving"

.PHONY: bench-hops
bench-hops: ## Measure what a query costs a coordinator and the shard nodes, in CPU time; see benches/README.md
	cargo build --release --workspace --locked --bin sagittad --bin overhead --bin hops
	"$${CARGO_TARGET_DIR:-target}/release/hops"

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all

.PHONY: lint
lint: ## Clippy, tidy and layers
	cargo xtask tidy
	cargo xtask layers
	cargo clippy --workspace --all-targets --locked -- -D warnings

.PHONY: deny
deny: ## Check licences, bans, sources and advisories of what we depend on
	@deploy/deny.sh

.PHONY: doc
doc: ## Build the crates' documentation
	cargo doc --workspace --locked --no-deps
