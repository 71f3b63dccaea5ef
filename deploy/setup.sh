#!/usr/bin/env bash
# Installs what the build needs and this machine lacks. A second run finds nothing to do and needs no network.
#
# Made for Debian 12; elsewhere it says what to install. Rust itself is expected to be there (https://rustup.rs).
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
  build-essential # C and C++ compilers, make: RocksDB, FAISS
  ca-certificates # fetching crates over HTTPS
  ccache          # RocksDB and FAISS compile once, not once for each target folder
  cmake           # FAISS; 3.24 or newer
  git             # the checks ask it which files are ours
  libclang-dev    # RocksDB's bindings are generated from its headers
  libopenblas-dev # BLAS and LAPACK for FAISS
  pkg-config      # finds libraries
)

say() { printf 'setup: %s\n' "$*"; }
die() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

check_rust() {
  local wanted have tool
  command -v cargo >/dev/null || die "no cargo found: install Rust from https://rustup.rs, then come back"
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  have=$(rustc --version | cut -d' ' -f2 | cut -d- -f1)
  if [ "$(printf '%s\n' "$wanted" "$have" | sort -V | head -n 1)" != "$wanted" ]; then
    die "Rust $wanted or newer is needed, this is $have: rustup update"
  fi
  for tool in clippy fmt; do
    cargo "$tool" --version >/dev/null 2>&1 || die "cargo $tool is missing: rustup component add clippy rustfmt"
  done
}

missing_packages() {
  local package
  for package in "${packages[@]}"; do
    if [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
      echo "$package"
    fi
  done
}

install_packages() {
  local root=()
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "run as root: apt-get install -y --no-install-recommends $*"
    root=(sudo)
  fi
  say "installing $*"
  "${root[@]}" apt-get update -qq
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}

if command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then
  mapfile -t missing < <(missing_packages)
  if [ ${#missing[@]} -gt 0 ]; then
    install_packages "${missing[@]}"
  fi
else
  say "this is no Debian: install the likes of ${packages[*]} yourself"
fi
check_rust
say "everything is there"
