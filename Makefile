# What is typed every day. `make help` lists it.

.DEFAULT_GOAL := help
.PHONY: help build demo test test-deps test-fs test-long fuzz chaos bench bench-fs lint fmt settings

CHAOS_ROUNDS ?= 20
FUZZ_SECONDS ?= 60
BENCH ?= log kafka amqp chain

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the release binary, target/release/kiln
	cargo build --release -p kiln

demo: build ## four virtual nodes, 5,000 lines of syslog, 200 tasks: the whole chain at work
	./target/release/kiln demo $(ARGS)

test-deps: ## what the tests need: stock clients (by apt-get, as root) and Python's (in target/venv)
	./scripts/setup-test-deps.sh

test: test-deps ## everything: units, stock clients against the built binary, tidy
	./scripts/run-tests.sh $(ARGS)

test-fs: test-deps ## the mounted filesystem: system calls and stock programs on one to three mounts, killed servers, full targets
	./scripts/run-tests.sh -E 'binary(fs_programs) | binary(fs_changelog) | binary(fs_jobstats) | (package(kiln-fs) & binary(mount))' $(ARGS)

test-long: test-deps ## the same with long property tests and 20 rounds of kill -9
	PROPTEST_CASES=4096 KILN_CHAOS_ROUNDS=$(CHAOS_ROUNDS) ./scripts/run-tests.sh $(ARGS)

fuzz: ## bytes that somebody has meddled with for what reads a pool's disks; FUZZ_SECONDS=60
	cargo run --release -p kiln-pool --example fuzz -- $(FUZZ_SECONDS)

chaos: ## rounds of kill -9 at random moments of the demo; CHAOS_ROUNDS=20, KILN_CHAOS_SEED=n
	cargo build -p kiln
	KILN_CHAOS_ROUNDS=$(CHAOS_ROUNDS) cargo test -p kiln-tests --test chaos -- --nocapture

bench: ## the log and the brokers, with the disk's own rates and a peer beside each where Debian has one; BENCH=log
	cargo build --release -p kiln -p kiln-bench
	for bench in $(BENCH); do ./target/release/kiln-bench $$bench $(ARGS) || exit 1; done

bench-fs: ## the filesystem beside GlusterFS, MooseFS and the ext4 underneath, as root; ARGS="ext4 kiln --runs 1"
	cargo build --release -p kiln
	./bench/fs/run $(ARGS)

lint: ## formatting, clippy without warnings, tidy
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo run -q -p xtask -- tidy

fmt: ## format everything
	cargo fmt --all

settings: ## write kiln.toml and docs/configuration.md from the table of settings
	cargo run -q -p xtask -- settings
