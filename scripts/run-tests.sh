#!/usr/bin/env bash
# Runs the tests: cargo-nextest where it is installed, cargo test where not. Arguments go to it, as in `scripts/run-tests.sh celery`.
# The black-box tests drive target/debug/kiln, which is built here first.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build -p kiln
# All of them: then the disks' formats are meddled with for a moment as well (`make fuzz` does it for longer).
if [ $# -eq 0 ]; then
    cargo run --quiet -p kiln-pool --example fuzz -- 5
fi
if ! cargo nextest --version >/dev/null 2>&1; then
    exec cargo test --workspace "$@"
fi
# nextest leaves out the examples in the documentation.
cargo test --quiet --doc --workspace
cargo nextest run --workspace "$@"
