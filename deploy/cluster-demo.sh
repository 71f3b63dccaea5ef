#!/usr/bin/env bash
# The demo of a cluster: builds, starts three coordinators and three shard nodes of its own, loads 4,000 real embeddings with three
# replicas, kills nodes with kill -9 while it searches and writes, revives them, and fails if any answer is not right. Then a fourth shard
# node joins, fills up by itself, and is drained and removed.
# Leaves the cluster running; `deploy/cluster-demo.sh stop` ends it and removes its data.
set -euo pipefail
cd "$(dirname "$0")/.."

# Node N listens on this port plus 10 N, and for other nodes on the one after it.
base=${SAGITTA_DEMO_PORT:-6400}
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
home=target/cluster-demo
sample=tests/data/text384-4k
# How long anything may take to come about before we look into the logs.
patience_seconds=60

export PATH=$target/debug:$PATH

api() { echo "127.0.0.1:$((base + 10 * $1))"; }
peer() { echo "http://127.0.0.1:$((base + 10 * $1 + 1))"; }

# Prints a command as a reader would type it, then runs it.
show() {
  printf '\n$ %s\n' "${*@Q}" | sed "s/'\([A-Za-z0-9_.,:=/%-]*\)'/\1/g"
  "$@"
}

# The process of a node, if it runs; a recycled process id is not ours.
pid_of() {
  local pid
  pid=$(cat "$home/$1.pid" 2>/dev/null) || return 1
  [ "$(basename "$(readlink "/proc/$pid/exe" 2>/dev/null)" | cut -d' ' -f1)" = sagittad ] && echo "$pid"
}

stop() {
  local node pid stopped=
  for node in 1 2 3 4 5 6 7; do
    pid=$(pid_of $node) && kill -TERM "$pid" && stopped=yes
  done
  for node in 1 2 3 4 5 6 7; do
    while pid_of $node >/dev/null; do sleep 0.1; done
  done
  rm -rf "$home"
  [ -z "$stopped" ] || echo "cluster-demo: stopped the cluster"
}

fail() {
  echo "cluster-demo: $1; the nodes said:" >&2
  tail -n 20 "$home"/*.log >&2
  exit 1
}

# Tries a command until it succeeds.
await() {
  local tries=$((patience_seconds * 5)) what=$1
  shift
  until "$@" >/dev/null 2>&1; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || fail "$what"
    sleep 0.2
  done
}

# Starts a node in the background. Its folder remembers the cluster; a node that comes back needs no --join, and is given it all the same.
start_node() {
  local node=$1 roles=coordinator join=()
  [ "$node" -le 3 ] || roles=shard
  [ "$node" = 1 ] || join=(--join "$(peer 1),$(peer 2),$(peer 3)")
  local command=(sagittad serve --data "$home/$node" --listen "$(api "$node")" --peer-listen "127.0.0.1:$((base + 10 * node + 1))"
    --roles "$roles" --memory 512MiB "${join[@]}")
  printf '\n$ %s &\n' "${command[*]}"
  : >"$home/$node.out"
  setsid "${command[@]}" >"$home/$node.out" 2>>"$home/$node.log" </dev/null &
  echo $! >"$home/$node.pid"
  # The shell shall not report what we kill.
  disown
}

await_node() { await "node $1 did not start" grep -q ready "$home/$1.out"; }

# Whether a coordinator has heard that all replicas, three of each of the two shards, have applied what the leader has. A search asks any of
# them, unless it names a consistency: one that has just come back may answer with what it had.
caught_up() {
  [ "$(sagitta --endpoint "http://$1" -o json shard list --collection docs | grep -c '"lag_entries": 0')" = 6 ]
}

# Whether a node shows a line in JSON.
node_shows() { sagitta -o json node show "$1" | grep -q "$2"; }

# Whether no operation is under way.
settled() { sagitta -o json operation list | grep -q '"operations": \[\]'; }

# Makes the first node found the cluster. The token lets the others in.
found() {
  start_node 1
  await "node 1 does not listen" grep -q "sagitta cluster init" "$home/1.log"
  printf '\n$ sagitta --endpoint http://%s cluster init\n' "$(api 1)"
  local said
  said=$(sagitta --endpoint "http://$(api 1)" -o json cluster init) || fail "no cluster was founded"
  SAGITTA_JOIN_TOKEN=$(grep -o 'sgj_[0-9a-f]*' <<<"$said" | head -n 1)
  export SAGITTA_JOIN_TOKEN
  echo "founded; its join token is given to the other nodes by SAGITTA_JOIN_TOKEN"
  await_node 1
}

# A collection gets three replicas only once three shard nodes are up. The founder says when a node is.
all_up() { [ "$(grep -c 'now=up' "$home/1.log")" -ge 5 ]; }

kill_node() {
  show kill -9 "$(pid_of "$1")"
  while pid_of "$1" >/dev/null; do sleep 0.1; done
}

# Counts by a coordinator; a person sees the command, and the answer is compared.
expect_count() {
  local found
  show sagitta --endpoint "http://$1" count docs
  found=$(sagitta --endpoint "http://$1" -o json count docs | tr -dc 0-9)
  [ "$found" = "$2" ] || fail "$found points instead of $2"
}

# Searches and counts by a coordinator, and fails unless every hit is one that brute force finds and every point is there.
check() {
  local found
  local recall=(sagitta --endpoint "http://$1" recall docs --queries "$sample.query.f32.npy" --ground-truth "$sample.gt.ids.npy" -k 10)
  show "${recall[@]}"
  found=$("${recall[@]}" -o json)
  grep -Eq '"minimum": 1\.0,' <<<"$found" || fail "the recall is not 1: $found"
  expect_count "$1" "$2"
}

if [ "${1:-}" = stop ]; then
  stop
  exit
fi

echo "cluster-demo: building (RocksDB and FAISS take a while, once)"
cargo build --workspace --locked --bin sagittad --bin sagitta

stop
mkdir -p "$home"
echo "cluster-demo: three coordinators (1 to 3) and three shard nodes (4 to 6); their data and logs are in $home"
found
for node in 2 3 4 5 6; do start_node $node; done
for node in 2 3 4 5 6; do await_node $node; done

export SAGITTA_ENDPOINT
SAGITTA_ENDPOINT=http://$(api 1)
await "not all nodes are up" all_up

printf '\n# Every point on three nodes: replication 3 is what a collection gets where there are three shard nodes.\n'
show sagitta collection create docs --dim 384 --metric cosine --shards 2 \
  --field source=keyword --field lang=keyword --field words=integer --field year=integer
show sagitta import docs "$sample.base.f16.npy" --payload "$sample.payload.jsonl.gz"
show sagitta search docs --like 42 -k 3 --payload source,text
check "$(api 2)" 4000

printf '\n# Shard node 4 dies. The two others have every point.\n'
kill_node 4
check "$(api 1)" 4000

printf '\n# Coordinator 1 dies, which founded the cluster and has led it since. The others elect a new leader; either of them answers.\n'
kill_node 1
SAGITTA_ENDPOINT=http://$(api 2)
check "$(api 2)" 4000
check "$(api 3)" 4000

printf '\n# Writes go on with two nodes down: the ten points with the fewest ids are deleted, and written again.\n'
show sagitta delete docs 0 1 2 3 4 5 6 7 8 9 --yes
expect_count "$(api 3)" 3990
show sagitta import docs "$sample.base.f16.npy" --payload "$sample.payload.jsonl.gz"
check "$(api 3)" 4000

printf '\n# Both come back, catch up and serve.\n'
start_node 4
start_node 1
await_node 4
await_node 1
await "node 4 does not catch up" caught_up "$(api 1)"
check "$(api 1)" 4000

printf '\n# Another shard node dies: with node 4 as the second of three, a write has its majority only if 4 has caught up.\n'
kill_node 5
show sagitta delete docs 0 --yes
show sagitta import docs "$sample.base.f16.npy" --payload "$sample.payload.jsonl.gz"
check "$(api 1)" 4000
start_node 5
await_node 5
await "node 5 does not catch up" caught_up "$(api 3)"
check "$(api 3)" 4000

printf '\n# A fourth shard node joins. Nobody asks for it: one of the six replicas is moved there, so that no node holds two more than another.\n'
start_node 7
await_node 7
await "node 7 does not fill up" node_shows "$(api 7)" '"wanted_replicas": 1'
await "the move does not end" settled
show sagitta node list
show sagitta operation list --all
check "$(api 2)" 4000

printf '\n# It is taken out of service: what it holds is moved to the others, and then it can be removed.\n'
show sagitta node drain "$(api 7)"
await "node 7 is not drained" node_shows "$(api 7)" '"status": "drained"'
show sagitta node list
show sagitta operation list --all
check "$(api 3)" 4000
show sagitta node remove "$(api 7)" --yes
kill_node 7
check "$(api 1)" 4000

cat <<END

Every answer was right. The cluster keeps running. Try:

  export PATH=$target/debug:\$PATH SAGITTA_ENDPOINT=http://$(api 2)
  sagitta search docs --like 7 -k 3 --filter 'lang = "python"'
  kill -9 \$(cat $home/6.pid)
  sagitta count docs --filter 'words < 40'
  tail -f $home/*.log

  make cluster-demo-stop        stops it and removes its data
END
