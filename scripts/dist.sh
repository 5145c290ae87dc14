#!/usr/bin/env bash
# The program as packages and images have it: one for every processor and GPU, its backends as plug-ins beside it.
#
#   dist.sh FOLDER            FOLDER/bin/ingle, local-ai, FOLDER/lib/ingle/*.so
#   dist.sh FOLDER --cuda     the same, with the CUDA plug-in, and FOLDER/bin/ingle-cuda, whose candle uses CUDA; needs nvcc
#
# DIST_CPU_VARIANTS=all     every CPU variant of ggml, the best of which is picked at start: about twice the build time
#                  =one     one variant for processors since 2013 (AVX2)
# CMAKE_CUDA_ARCHITECTURES  GPUs that the plug-in is built for
# CUDA_COMPUTE_CAP          GPUs that candle's kernels are built for: of this compute capability (80) and newer
# DIST_TARGET_DIR           where it is built (a folder under the user's cache; the usual build stays untouched)
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "$0")/env.sh"
cd "$root"

[ $# -ge 1 ] || die "usage: $0 FOLDER [--cuda]"
out="$1"
with_cuda="${2:-}"
export CARGO_TARGET_DIR="${DIST_TARGET_DIR:-$cache/dist-target}"
# Where plug-ins and llama.cpp's libraries are seen from the program. RUSTFLAGS stands in for the target-cpu=native of
# .cargo/config.toml. The target-cpu becomes -march of every variant of ggml as well, so it is one that the least of them
# may have: what computes chooses its instructions at run time, in the plug-ins as in the Rust code.
export RUSTFLAGS="-C target-cpu=x86-64-v2 -C link-arg=-Wl,-rpath,\$ORIGIN/../lib/ingle"
[ "$(uname -m)" = x86_64 ] || export RUSTFLAGS="-C link-arg=-Wl,-rpath,\$ORIGIN/../lib/ingle"

features=dynamic-backends
if [ "${DIST_CPU_VARIANTS:-all}" = one ]; then
    features=plugins
    export GGML_BACKEND_DL=ON
fi

# llama.cpp's build looks at variables, not at the files of ours that become part of it.
CMAKE_INGLE_SOURCES=$(cat crates/llama/cmake/* crates/llama/src/operations.cpp | sha256sum | cut -c 1-16)
export CMAKE_INGLE_SOURCES
"$root/scripts/setup.sh" build
messages="$CARGO_TARGET_DIR/dist-messages.json"
mkdir -p "$CARGO_TARGET_DIR"
cargo build --release --locked --workspace --features "$features" --message-format=json-render-diagnostics >"$messages"
built=$(build_folder llama-cpp-sys-2 "$messages")
target="$CARGO_TARGET_DIR/release"
rm -rf "$out"
mkdir -p "$out/bin" "$out/lib/ingle"
# Before the next build overwrites it.
strip -o "$out/bin/ingle" "$target/ingle"
ln -s ingle "$out/bin/local-ai"

# Under the names that the loader asks for, without the links between them.
for library in "$built"/lib*/lib{llama,llama-common,ggml,ggml-base,mtmd}.so.0; do
    [ ! -e "$library" ] || strip -o "$out/lib/ingle/${library##*/}" "$library"
done
while IFS= read -r library; do
    strip -o "$out/lib/ingle/${library##*/}" "$library"
done < <(find "$built" -path '*/build/bin/*' -name 'libggml-*.so' ! -name 'libggml-base.so' ! -name 'libggml-*.so.*')

for library in "$out"/lib/ingle/libggml-cpu*.so; do
    [[ "$(nm -D --defined-only "$library")" = *ingle_take_operations_* ]] ||
        die "$library takes none of the program's operations: it is from an older build, remove $CARGO_TARGET_DIR"
done

if [ "$with_cuda" = --cuda ]; then
    "$root/scripts/plugin.sh" cuda "$out/lib/ingle"
    # The same program with another candle, in the same target directory: llama.cpp and what does not know candle stay as
    # they are. It needs the driver to start, so it is not the one that is called (src/cuda.rs).
    CUDA_COMPUTE_CAP="${CUDA_COMPUTE_CAP:-80}" \
        cargo build --release --locked --workspace --features "$features,candle-cuda"
    strip -o "$out/bin/ingle-cuda" "$target/ingle"
fi
du -sh "$out" >&2
