#!/usr/bin/env bash
# A ggml backend as a plug-in for a program of `scripts/dist.sh`, from the llama.cpp sources of our dependency.
#
#   plugin.sh KIND FOLDER     libggml-KIND.so into FOLDER; KIND is cuda, hip, sycl, vulkan, rpc, blas, …
#
# It needs CMake and the compiler of the kind (nvcc, hipcc, icpx, glslc). CUDA is the one that is tested.
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "$0")/env.sh"
cd "$root"

[ $# -eq 2 ] || die "usage: $0 KIND FOLDER"
kind="$1"
folder="$2"
version=$(sed -n 's/^llama-cpp-sys-2 = .*"=\([0-9.]*\)".*/\1/p' crates/llama/Cargo.toml)
cargo fetch --locked
source=$(find "${CARGO_HOME:-$HOME/.cargo}"/registry/src -maxdepth 2 -type d -name "llama-cpp-sys-2-$version" | head -n 1)
[ -n "$source" ] || die "the sources of llama-cpp-sys-2 $version are not in cargo's registry"
work="${PLUGIN_BUILD_DIR:-$cache/plugins}/$version-$kind"
upper=$(printf '%s' "$kind" | tr '[:lower:]' '[:upper:]')
generator=()
! command -v ninja >/dev/null 2>&1 || generator=(-G Ninja)
mkdir -p "$work" "$folder"
# From llama.cpp's own folder: ggml's lacks a file in the package. The package also lacks app/ and the web UI, which a
# build by itself would include. The stamp says which program may load it. Without OpenMP and NCCL the plug-in needs the
# driver, cudart and cuBLAS only.
cmake -S "$source/llama.cpp" -B "$work" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON \
    -DGGML_BACKEND_DL=ON -DGGML_NATIVE=OFF -DGGML_CCACHE=OFF "-DGGML_$upper=ON" -DLLAMA_BUILD_COMMON=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF \
    -DLLAMA_BUILD_APP=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF -DGGML_OPENMP=OFF -DGGML_CUDA_NCCL=OFF \
    -DCMAKE_PROJECT_INCLUDE="$root/crates/llama/cmake/compiler_fixes.cmake" \
    ${CMAKE_CUDA_ARCHITECTURES:+-DCMAKE_CUDA_ARCHITECTURES="$CMAKE_CUDA_ARCHITECTURES"} >"$work/cmake.log" ||
    die "cmake failed: $(tail -n 20 "$work/cmake.log")"
cmake --build "$work" --parallel "${PLUGIN_JOBS:-$(nproc)}" --target "ggml-$kind" >"$work/build.log" ||
    die "the build failed: $(tail -n 40 "$work/build.log")"
strip -o "$folder/libggml-$kind.so" "$(find "$work" -name "libggml-$kind.so" | head -n 1)"
say "$folder/libggml-$kind.so"
