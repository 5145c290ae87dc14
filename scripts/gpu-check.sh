#!/usr/bin/env bash
# On a machine with an NVIDIA GPU, nvcc and CMake: Ingle against llama.cpp's own server, on the GPU.
#
#   gpu-check.sh              all of it, here; without a GPU it says so and ends with 0
#   gpu-check.sh pack         what the other steps need, into one folder, on a machine with Rust and a network
#   gpu-check.sh build        the CUDA plug-in, llama-server and llama-bench, from that folder; without Rust or a network
#   gpu-check.sh models       random models with the shapes of real ones
#   gpu-check.sh measure      starts both servers in turn and prints the figures
#
# GPU_CHECK_FOLDER  what `pack` makes and the others read              (target/gpu-check)
# GPU_CHECK_SOURCES sources of llama.cpp as .tar.xz, of the commit that our dependency has, with tools/server: then
#                   llama-server and llama-bench are measured too (without: those that come with our dependency, which
#                   have no server)
# GPU_CHECK_BUILD   where llama.cpp is compiled, and the models lie    (a folder under the user's cache)
# GPU_CHECK_SHAPES  models to measure                                  (8b 30b-a3b)
# GPU_CHECK_CLIENTS numbers of clients                                 (1,8,32,64)
# GPU_CHECK_JOBS    compilers at once                                  (all cores)
# GPU_CHECK_ENCODER folder of an embedding model from safetensors that `pack` takes along: with bin/ingle-cuda in the pack
#                   it is measured on the GPU and on the CPU           (all-MiniLM-L6-v2 of the tests, if it is there)
# GPU_CHECK_TEXTS   texts in a call, for it                            (1,32,256)
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "$0")/env.sh"
cd "$root"

folder="${GPU_CHECK_FOLDER:-$root/target/gpu-check}"
work="${GPU_CHECK_BUILD:-$cache/gpu-check}"
shapes="${GPU_CHECK_SHAPES:-8b 30b-a3b}"
clients="${GPU_CHECK_CLIENTS:-1,8,32,64}"
# What is compiled belongs to one version of the sources.
stamp=$(ggml_stamp)
tree="$work/$stamp/llama.cpp"
peer="$tree/build/bin"
server=

has_gpu() { command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; }

# The program with plug-ins, its tools and libraries, and the sources of llama.cpp.
pack() {
    local out sources
    # Its own target directory, so that the other build of llama.cpp stays; for processors since 2013, since the machine
    # with the GPU is another.
    export CARGO_TARGET_DIR="$cache/gpu-check-target" GGML_BACKEND_DL=ON
    export RUSTFLAGS="-C target-cpu=x86-64-v3 -C link-arg=-Wl,-rpath,\$ORIGIN/../lib/ingle"
    local messages="$CARGO_TARGET_DIR/gpu-check-messages.json"
    mkdir -p "$CARGO_TARGET_DIR"
    cargo build --release --features plugins --bin ingle --message-format=json-render-diagnostics >"$messages"
    cargo build --release --package ingle-gguf --features corpus --example random_model
    out="$CARGO_TARGET_DIR/release"
    rm -rf "$folder"
    mkdir -p "$folder/bin" "$folder/lib/ingle"
    strip -o "$folder/bin/ingle" "$out/ingle"
    strip -o "$folder/bin/random_model" "$out/examples/random_model"
    # The program whose candle uses CUDA, where nvcc is.
    if command -v nvcc >/dev/null 2>&1; then
        CUDA_COMPUTE_CAP="${CUDA_COMPUTE_CAP:-80}" cargo build --release --features plugins,candle-cuda --bin ingle
        strip -o "$folder/bin/ingle-cuda" "$out/ingle"
    else
        say "no nvcc here: embeddings on the GPU will not be measured"
    fi
    local encoder="${GPU_CHECK_ENCODER:-$cache/test-models/all-MiniLM-L6-v2}"
    [ ! -e "$encoder/model.safetensors" ] || cp -RL "$encoder" "$folder/encoder"
    # Names that the loader asks for, without the links between them. The CPU's plug-in comes along; CUDA's is built.
    local built library
    built=$(build_folder llama-cpp-sys-2 "$messages")
    for library in "$built"/lib*/lib{llama,llama-common,ggml,ggml-base}.so.0; do
        [ ! -e "$library" ] || strip -o "$folder/lib/ingle/${library##*/}" "$library"
    done
    library=$(find "$built" -name 'libggml-cpu*.so' | head -n 1)
    strip -o "$folder/lib/ingle/${library##*/}" "$library"
    if [ -n "${GPU_CHECK_SOURCES:-}" ]; then
        cp "$GPU_CHECK_SOURCES" "$folder/llama.tar.xz"
    else
        sources=$(cargo metadata --format-version 1 | grep -o '"manifest_path":"[^"]*/llama-cpp-sys-2-[^"/]*/Cargo.toml"' | head -n 1)
        sources="${sources#*:\"}"
        tar -cJf "$folder/llama.tar.xz" -C "${sources%/Cargo.toml\"}/llama.cpp" .
    fi
    printf '%s\n' "$stamp" >"$folder/stamp"
    du -sh "$folder" >&2
}

# Is there a folder of `pack`, of this version?
is_packed() { [ -e "$folder/stamp" ] && [ "$(cat "$folder/stamp")" = "$stamp" ]; }

# Takes the sources out of the pack, unless they are those that lie there.
unpack() {
    local sum
    sum=$(cksum <"$folder/llama.tar.xz")
    if [ -e "$tree.sum" ] && [ "$(cat "$tree.sum")" = "$sum" ]; then
        return 0
    fi
    rm -rf "$tree"
    mkdir -p "$tree"
    tar -xJf "$folder/llama.tar.xz" -C "$tree"
    printf '%s\n' "$sum" >"$tree.sum"
}

build() {
    is_packed || die "$folder is not of version $stamp: pack again"
    unpack
    local -a generator=() options=() targets=(ggml-cpu)
    ! command -v ninja >/dev/null 2>&1 || generator=(-G Ninja)
    if [ -e "$tree/tools/server/CMakeLists.txt" ]; then
        targets+=(llama-server llama-bench)
    else
        options=(-DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF)
    fi
    # Without a GPU everything but CUDA is built: a trial of this script.
    if has_gpu; then
        options+=(-DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES="${CMAKE_CUDA_ARCHITECTURES:-native}")
        targets+=(ggml-cuda)
    fi
    # Ingle loads plug-ins that say they are of its own sources.
    cmake -S "$tree" -B "$tree/build" "${generator[@]}" "${options[@]}" -DCMAKE_BUILD_TYPE=Release \
        -DCMAKE_PROJECT_INCLUDE="$root/crates/llama/cmake/compiler_fixes.cmake" -DINGLE_GGML_STAMP="$stamp" \
        -DBUILD_SHARED_LIBS=ON -DGGML_BACKEND_DL=ON -DGGML_NATIVE=OFF -DGGML_CCACHE=OFF -DLLAMA_BUILD_TESTS=OFF \
        -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF >"$work/cmake.log" ||
        die "cmake failed: $(tail -n 20 "$work/cmake.log")"
    cmake --build "$tree/build" --parallel "${GPU_CHECK_JOBS:-$(nproc)}" \
        --target "${targets[@]}" >"$work/build.log" ||
        die "the build failed: $(tail -n 40 "$work/build.log")"
    # Ingle takes the plug-in that was compiled here from the same sources.
    ! has_gpu || cp "$peer/libggml-cuda.so" "$folder/lib/ingle/"
}

models() {
    local shape
    mkdir -p "$work/models"
    for shape in $shapes; do
        [ -e "$work/models/$shape.gguf" ] || "$folder/bin/random_model" "$shape" "$work/models/$shape.new"
        [ -e "$work/models/$shape.gguf" ] || mv "$work/models/$shape.new" "$work/models/$shape.gguf"
    done
}

stop_server() {
    [ -n "$server" ] || return 0
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=
}

is_ready() {
    if command -v curl >/dev/null 2>&1; then
        curl -fsS -o "$work/ready" "$1" 2>"$work/ready.log"
    else
        python3 -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1])' "$1" >"$work/ready.log" 2>&1
    fi
}

# start_server HEALTH COMMAND…: waits until it is ready; prints how long that took.
start_server() {
    local health="$1" began=$SECONDS
    shift
    "$@" >"$work/server.log" 2>&1 &
    server=$!
    while ! is_ready "http://127.0.0.1:18090$health"; do
        kill -0 "$server" 2>/dev/null || { tail -n 20 "$work/server.log" >&2; die "the server ended: $*"; }
        [ $((SECONDS - began)) -lt 180 ] || { tail -n 20 "$work/server.log" >&2; die "not ready after 180 s: $*"; }
        sleep 0.2
    done
    say "ready after $((SECONDS - began)) s: $*"
}

# load NAME MODEL: figures of the server that runs, with the GPU's mean utilisation and memory beside them.
load() {
    local sampler= used
    if has_gpu; then
        nvidia-smi --query-gpu=utilization.gpu,memory.used --format=csv,noheader,nounits -lms 200 >"$work/gpu.csv" &
        sampler=$!
    fi
    printf 'name: gpu-check\nabout: Prompts of their own\nrounds: %d\nparts: [{api: completions, prompt: %d, answer: %d}]\n' \
        "${GPU_CHECK_ROUNDS:-2}" "${GPU_CHECK_PROMPT:-256}" "${GPU_CHECK_ANSWER:-128}" >"$work/scenario.yaml"
    "$folder/bin/ingle" bench serve http://127.0.0.1:18090 --model "$2" --scenario "$work/scenario.yaml" \
        --clients "$clients" --blocks 1 --max-seconds "${GPU_CHECK_SECONDS:-120}" --json "$work/$1.json" ||
        say "measuring $1 ended with $?"
    if [ -n "$sampler" ]; then
        kill "$sampler" 2>/dev/null || true
        wait "$sampler" 2>/dev/null || true
        used=$(awk -F', *' '{ u += $1; if ($2 > m) m = $2 } END { if (NR) printf "%.0f %% busy, %d MiB", u / NR, m }' "$work/gpu.csv")
        echo "$1 GPU: $used"
    fi
}

# One sequence, without a server: a prompt of 512 tokens and an answer of 128, by us and by llama-bench.
alone() {
    "$folder/bin/ingle" bench offline "$1" --models-path "$work/models" --prompt 512 --answer 128 --repeats 3 ||
        say "ingle bench offline ended with $?"
    [ -x "$peer/llama-bench" ] || return 0
    "$peer/llama-bench" -m "$work/models/$1" -ngl 999 -p 512 -n 128 -r 3 2>"$work/llama-bench.log" ||
        say "llama-bench ended with $?: $(tail -n 5 "$work/llama-bench.log")"
}

# Vectors by candle: on the GPU in 32 and 16 bits, by the program that `ingle` becomes there, and on the CPU.
embeddings() {
    [ -d "$folder/encoder" ] || { say "no embedding model in the pack: not measured"; return 0; }
    [ -x "$folder/bin/ingle-cuda" ] || { say "no ingle-cuda in the pack: embeddings are measured on the CPU only"; }
    local name models="$work/encoders" extra
    mkdir -p "$models"
    rm -rf "$models/encoder"
    cp -R "$folder/encoder" "$models/encoder"
    for name in f32 bf16; do
        extra=
        [ "$name" = f32 ] || extra="options: ['precision:bf16']"
        printf 'name: encoder-%s\nbackend: transformers\nembeddings: true\nparameters: {model: encoder}\n%s\n' "$name" \
            "$extra" >"$models/encoder-$name.yaml"
        say "candle, $name, on the GPU where ingle-cuda is"
        "$folder/bin/ingle" bench offline "encoder-$name" --models-path "$models" --prompt 32,128 \
            --parallel "${GPU_CHECK_TEXTS:-1,32,256}" --repeats 3 || say "ingle bench offline ended with $?"
    done
    say "candle, f32, on the CPU"
    INGLE_CUDA=0 "$folder/bin/ingle" bench offline encoder-f32 --models-path "$models" --prompt 32,128 \
        --parallel "${GPU_CHECK_TEXTS:-1,32,256}" --repeats 3 || say "ingle bench offline ended with $?"
}

measure() {
    local shape model n_slots context
    trap stop_server EXIT
    # As many slots as the most clients, and room for all of them, for both.
    n_slots=${clients##*,}
    context=$((n_slots * (${GPU_CHECK_PROMPT:-256} + ${GPU_CHECK_ANSWER:-128} + 128)))
    "$folder/bin/ingle" devices
    embeddings
    for shape in $shapes; do
        model="$work/models/$shape.gguf"
        alone "$shape.gguf"
        start_server /readyz "$folder/bin/ingle" run "$shape.gguf" --address 127.0.0.1:18090 --models-path "$work/models" \
            --context-size "$context" --parallel "$n_slots" --log-level debug
        load "ingle-$shape" "$shape.gguf"
        grep -E 'devices|placement|loading a model|offloaded|buffer size' "$work/server.log" | tail -n 12 >&2 || true
        stop_server
        [ -x "$peer/llama-server" ] || continue
        start_server /health "$peer/llama-server" -m "$model" --host 127.0.0.1 --port 18090 -ngl 999 -c "$context" \
            -np "$n_slots" --no-webui
        load "llama-server-$shape" "$shape.gguf"
        stop_server
    done
}

case "${1:-all}" in
    pack | build | models | measure) "$1" ;;
    all)
        if ! has_gpu; then
            say "not run: no NVIDIA GPU answers here (nvidia-smi)."
            exit 0
        fi
        is_packed || pack
        build
        models
        measure
        ;;
    *) die "usage: $0 [pack|build|models|measure]" ;;
esac
