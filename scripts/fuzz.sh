#!/usr/bin/env bash
# Runs the fuzz targets for long, by hand: scripts/fuzz.sh [seconds each, 600] [target …].
# Needs `rustup toolchain install nightly` and `cargo install cargo-fuzz`. `make test` runs the same functions on the
# compiler of the project, over inputs bred at random, for a minute each (query-api/src/fuzz.rs).
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-600}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(filter cursor projection graphql)
if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    echo "cargo-fuzz with a nightly compiler is needed: rustup toolchain install nightly; cargo install cargo-fuzz" >&2
    exit 1
fi
for target in "${targets[@]}"; do
    echo "$target: ${seconds} s"
    cargo +nightly fuzz run "$target" -- -max_total_time="$seconds" -max_len=4096
done
