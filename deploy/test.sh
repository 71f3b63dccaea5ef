#!/usr/bin/env bash
# All that CI runs, cheapest first; stops at the first failure and says how long each step took.
set -euo pipefail
cd "$(dirname "$0")/.."

done_steps=()

report() {
  printf '\n'
  printf '%s\n' "${done_steps[@]}"
}

step() {
  local name=$1 began=$SECONDS status=0
  shift
  printf '\n=== %s: %s\n' "$name" "$*"
  "$@" || status=$?
  done_steps+=("$(printf '%5d s  %s' $((SECONDS - began)) "$name")")
  if [ "$status" != 0 ]; then
    report
    printf 'FAILED: %s. Again: %s\n' "$name" "$*" >&2
    exit 1
  fi
}

export RUSTDOCFLAGS='-D warnings'

step format cargo fmt --all --check
step tidy cargo xtask tidy
step layers cargo xtask layers
step clippy cargo clippy --workspace --all-targets --locked -- -D warnings
step deny deploy/deny.sh
step tests cargo test --workspace --locked --no-fail-fast
step docs cargo doc --workspace --locked --no-deps --quiet

report
printf 'all passed in %d s\n' "$SECONDS"
