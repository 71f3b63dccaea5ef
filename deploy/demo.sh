#!/usr/bin/env bash
# The demo: builds, starts a server of its own, loads 4,000 real embeddings, searches in them, measures the recall.
# Leaves the server running; `deploy/demo.sh stop` ends it and removes its data.
set -euo pipefail
cd "$(dirname "$0")/.."

address=${SAGITTA_DEMO_ADDRESS:-127.0.0.1:6380}
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
home=target/demo
sample=tests/data/text384-4k
# How long a start may take before we look into the log. It takes well below a second.
start_seconds=30

export PATH=$target/debug:$PATH
export SAGITTA_ENDPOINT=http://$address

# Prints a command as a reader would type it, then runs it.
show() {
  printf '\n$ %s\n' "${*@Q}" | sed "s/'\([A-Za-z0-9_.,:=/%-]*\)'/\1/g"
  "$@"
}

# The demo's own server, if it runs; a recycled process id is not ours.
server_pid() {
  local pid
  pid=$(cat "$home/pid" 2>/dev/null) || return 1
  [ "$(basename "$(readlink "/proc/$pid/exe" 2>/dev/null)" | cut -d' ' -f1)" = sagittad ] && echo "$pid"
}

stop() {
  local pid
  if pid=$(server_pid); then
    kill -TERM "$pid"
    while server_pid >/dev/null; do sleep 0.1; done
    echo "demo: stopped the server"
  fi
  rm -rf "$home"
}

start() {
  mkdir -p "$home"
  setsid sagittad dev --data "$home/data" --listen "$address" >"$home/log" 2>&1 </dev/null &
  echo $! >"$home/pid"
  local tries=$((start_seconds * 10))
  until sagitta collection list >/dev/null 2>&1; do
    tries=$((tries - 1))
    if ! server_pid >/dev/null || [ "$tries" = 0 ]; then
      echo "demo: the server did not start; it said:" >&2
      cat "$home/log" >&2
      exit 1
    fi
    sleep 0.1
  done
}

if [ "${1:-}" = stop ]; then
  stop
  exit
fi

echo "demo: building (RocksDB and FAISS take a while, once)"
cargo build --workspace --locked --bin sagittad --bin sagitta

stop
start
echo "demo: the server listens on $address, its data is in $home/data"

show sagitta collection create docs --dim 384 --metric cosine \
  --field source=keyword --field lang=keyword --field words=integer --field year=integer
show sagitta import docs "$sample.base.f16.npy" --payload "$sample.payload.jsonl.gz"
show sagitta collection describe docs

show sagitta search docs --like 42 -k 5 --payload source,text
show sagitta search docs --like 42 -k 5 --payload source,words,text --filter 'source = "rust-docs" and words >= 60'
show sagitta recall docs --queries "$sample.query.f32.npy" --ground-truth "$sample.gt.ids.npy" -k 10

cat <<END

The server keeps running (process $(server_pid), log in $home/log). Try:

  export PATH=$target/debug:\$PATH
  sagitta search docs --like 7 -k 3 --filter 'lang = "python"'
  sagitta get docs 7
  sagitta count docs --filter 'words < 40'
  sagitta --help

  make demo-stop        stops it and removes its data
END
