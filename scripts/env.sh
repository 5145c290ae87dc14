# shellcheck shell=bash
# Sourced by every script here: where things are, also when HOME is unset or the cache cannot be written.
# Nothing is built, downloaded or installed by this file.

say() { printf '%s\n' "$*" >&2; }
die() {
    say "$@"
    exit 1
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -z "${HOME:-}" ]; then
    HOME=$(getent passwd "$(id -u)" 2>/dev/null | cut -d: -f6 || true)
    export HOME="${HOME:-${TMPDIR:-/tmp}}"
fi
# Plug-ins that a group may write are refused, so what is built here is writable by its owner only.
umask 022
# The flags of the make that started this are not meant for the makes that cargo starts.
unset MAKEFLAGS MFLAGS MAKELEVEL
command -v cargo >/dev/null 2>&1 || PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"

# The program keeps weights in the same place.
cache="${INGLE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ingle}"
if ! mkdir -p "$cache" 2>/dev/null || [ ! -w "$cache" ]; then
    cache="$root/target/cache"
    mkdir -p "$cache" || die "Set INGLE_CACHE to a folder that can be written."
    export INGLE_CACHE="$cache"
fi

# build_folder PACKAGE MESSAGES: what the build script of a package has made, by cargo's own word; MESSAGES is the output of
# `cargo build --message-format=json-render-diagnostics`. Other builds have folders of the same name beside it.
build_folder() {
    local found
    found=$(sed -n "s/^{\"reason\":\"build-script-executed\",\"package_id\":\"[^\"]*$1[^\"]*\".*\"out_dir\":\"\([^\"]*\)\".*/\1/p" "$2" | tail -n 1)
    [ -d "$found" ] || die "cargo does not say where $1 was built"
    printf '%s\n' "$found"
}

# The version of llama-cpp-sys-2, as plug-ins carry it: a program loads those of its own sources only.
ggml_stamp() { sed -n 's/^llama-cpp-sys-2 = .*"=\([0-9.]*\)".*/\1/p' "$root/crates/llama/Cargo.toml" | tr . _; }

# One target directory for all checkouts, so that llama.cpp is compiled once for each user and not for each clone.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
mkdir -p "$CARGO_TARGET_DIR"
CARGO_TARGET_DIR=$(cd "$CARGO_TARGET_DIR" && pwd)

# The program of *this* checkout: cargo overwrites the one in the shared target directory.
# shellcheck disable=SC2034  # read by the scripts that source this file
bin="$root/target/bin/ingle"
