#!/usr/bin/env bash
# The long tests of clusters: real processes that are killed, paused, cut off and filled up, and simulated ones. Goes on after a failure,
# and ends with a list of what ran: with how many cases, of which seed, and how long. Takes at most 40 minutes on two cores, not counting the build.
#
# SAGITTA_SEED chooses another run. What needs root, iptables or libfaketime fails where that is missing, unless SAGITTA_MUST_RUN is 0.
# `deploy/chaos.sh points retries` runs these steps alone.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

export SAGITTA_SEED=${SAGITTA_SEED:-42}
export SAGITTA_MUST_RUN=${SAGITTA_MUST_RUN:-1}

only=("$@")
lines=()
failed=()
output=$(mktemp)
trap 'rm -f "$output"' EXIT

wanted() {
  local name
  [ ${#only[@]} = 0 ] && return
  for name in "${only[@]}"; do
    [ "$name" = "$1" ] && return
  done
  return 1
}

# Runs a step's command; every test of it tells what it ran in a line that begins with its seed.
step() {
  local name=$1 began=$SECONDS verdict=passed
  shift
  wanted "$name" || return 0
  printf '\n=== %s: %s\n' "$name" "$*"
  env "$@" 2>&1 | tee "$output" || verdict=FAILED
  # A step whose tests were renamed runs none of them, and says that all is well.
  grep -q '^test result: ok. [1-9]' "$output" || verdict=FAILED
  [ "$verdict" = passed ] || failed+=("$name: $*")
  lines+=("$(printf '%5d s  %-12s %s' $((SECONDS - began)) "$name" "$verdict")")
  while IFS= read -r line; do
    lines+=("                      $line")
  done < <(grep -oE '(seed [0-9]+: .*|SKIPPED: .*)' "$output")
}

# A step of the tests of real processes: name, settings, and which tests, if they are not called as the step.
cluster() {
  local name=$1 settings=() tests=()
  shift
  for word in "$@"; do
    case $word in
      *=*) settings+=("SAGITTA_$word") ;;
      *) tests+=("$word::") ;;
    esac
  done
  [ ${#tests[@]} -gt 0 ] || tests=("$name::")
  step "$name" "${settings[@]}" "$binary" --nocapture --include-ignored --test-threads=1 "${tests[@]}"
}

# The test's binary is run by itself, so that a source that is edited meanwhile changes nothing.
cargo build --workspace --locked --bins || exit 1
cargo test --workspace --locked --test cluster --no-run 2>&1 | tee "$output" || exit 1
binary=$(sed -n 's/.*Executable.*(\(.*\))$/\1/p' "$output")
began=$SECONDS

cluster points KILLS=20 WRITES=20000
cluster retries KILLS=20 RETRIES=5000
cluster history FAULTS=20 OPERATIONS=20000
cluster catalog FAULTS=18 OPERATIONS=2000
cluster merge QUERIES=2000
cluster partitions PARTITIONS=12
cluster failover FAILOVERS=5
cluster full_disk FILLS=4
cluster states whole_state
cluster heal
cluster operations ROUNDS=20
cluster others clocks entrance gone partial recover returns strangers
step simulation make simulate

printf '\n'
printf '%s\n' "${lines[@]}"
printf '%5d s  of seed %s\n' $((SECONDS - began)) "$SAGITTA_SEED"
if [ ${#failed[@]} -gt 0 ]; then
  printf 'FAILED. Again: %s\n' "${failed[@]}" >&2
  exit 1
fi
