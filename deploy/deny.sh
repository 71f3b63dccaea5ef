#!/usr/bin/env bash
# Runs cargo-deny over deny.toml; installs it once for each user (a minute or two).
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.20.2
tools=${XDG_CACHE_HOME:-$HOME/.cache}/sagitta/tools
deny=$tools/bin/cargo-deny

if [ "$("$deny" --version 2>/dev/null)" != "cargo-deny $version" ]; then
  echo "deny: installing cargo-deny $version into $tools"
  build=$(mktemp -d)
  trap 'rm -rf "$build"' EXIT
  # Unoptimised: it builds in a third of the time and checks in a second all the same.
  cargo install cargo-deny --quiet --locked --debug --version "$version" --root "$tools" --target-dir "$build"
fi

# That a crate appears in two versions is often out of our hands: shown by `cargo deny check bans`, hidden here.
"$deny" --locked check --hide-inclusion-graph --allow duplicate licenses bans sources

# The advisories are a git repository on GitHub, which not every machine can reach.
if timeout 60 "$deny" --locked fetch db >/dev/null 2>&1; then
  "$deny" --locked check --hide-inclusion-graph advisories
else
  echo "deny: WARNING: advisories NOT CHECKED: https://github.com/RustSec/advisory-db cannot be reached from here" >&2
fi
