#!/usr/bin/env bash
# Installs what a build needs and this machine lacks.
#   setup.sh build   a C++ compiler, make, cmake and libclang, for llama.cpp and its bindings
#   setup.sh speech  espeak-ng, from which voices have their phonemes
#   setup.sh fetch   python3 with pip, the fetcher of last resort for models
# On Debian and Ubuntu with apt-get, as root or through sudo; elsewhere it names what to install and ends with 1.
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "$0")/env.sh"

packages=()

has() { command -v "$1" >/dev/null 2>&1; }

# bindgen needs the library and the compiler's own headers, which come in separate packages.
has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    [ "$(uname -s)" = Darwin ] && return 0
    local library header
    for library in /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang-[0-9]*.so* /usr/lib{64,}/libclang.so*; do
        [ -e "$library" ] || continue
        for header in /usr/lib/llvm-*/lib/clang/*/include/stddef.h /usr/lib{64,}/clang/*/include/stddef.h; do
            [ -e "$header" ] && return 0
        done
    done
    return 1
}

want_build_tools() {
    has cargo || die "Rust is missing: install it from https://rustup.rs, open a new shell and run this again."
    has cmake || packages+=(cmake)
    has make || packages+=(make)
    { has cc && has c++; } || packages+=(g++)
    has_libclang || packages+=(libclang-dev)
    has curl || packages+=(curl)
    if [ -e /etc/debian_version ] && [ ! -e /etc/ssl/certs/ca-certificates.crt ]; then packages+=(ca-certificates); fi
}

want_fetcher() {
    has python3 || packages+=(python3)
    python3 -m pip --version >/dev/null 2>&1 || packages+=(python3-pip)
}

want_speech() {
    has espeak-ng || packages+=(espeak-ng)
}

# Prints the prefix that makes a command run as root, or fails when there is no way to.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then return 0; fi
    has sudo || return 1
    # Without a terminal sudo cannot ask for a password: it works at once or not at all.
    if [ ! -t 0 ]; then sudo -n true >/dev/null 2>&1 || return 1; fi
    echo sudo
}

apt_install() {
    local prefix="$1"
    # Unquoted on purpose: an empty prefix is no word at all.
    # shellcheck disable=SC2086
    {
        # Finishes an installation that was cut off; does nothing otherwise.
        $prefix dpkg --configure -a || true
        $prefix env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 update -q ||
            say "The package lists could not be renewed; going on with the ones that are here."
        $prefix env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install -y -q \
            --no-install-recommends "${packages[@]}"
    } >&2
}

case "${1:-}" in
    build) want_build_tools ;;
    fetch) want_fetcher ;;
    speech) want_speech ;;
    *) die "usage: setup.sh build|fetch|speech" ;;
esac
[ ${#packages[@]} -eq 0 ] && exit 0

if ! has apt-get; then
    die "Missing here; install these with your package manager (named as Debian names them): ${packages[*]}"
fi
if ! prefix=$(as_root); then
    say "Missing here: ${packages[*]}"
    say "This needs root, and sudo is not available without a password here. Run this once as root, then try again:"
    die "    apt-get update && apt-get install -y ${packages[*]}"
fi
say "Installing what is missing${prefix:+ (sudo may ask for your password)}: ${packages[*]}"
apt_install "$prefix" || die "apt-get could not install: ${packages[*]}"
