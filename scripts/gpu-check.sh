#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: the device, and prefill and decode tokens/s with and without it, through the server.
# Without one it says so and ends with 0. CHECK_MODEL names another model than the starter.
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "$0")/env.sh"
cd "$root"

if ! command -v nvidia-smi >/dev/null 2>&1 || ! nvidia-smi -L >/dev/null 2>&1; then
    say "No NVIDIA GPU answers here (nvidia-smi): nothing to check. Ingle runs on the CPU."
    exit 0
fi
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
for nvcc in "$(command -v nvcc || true)" "${CUDA_PATH:-/usr/local/cuda}/bin/nvcc"; do
    [ ! -x "$nvcc" ] || break
done
[ -x "$nvcc" ] || die "A GPU is here, but nvcc is not: install the CUDA toolkit, or set CUDA_PATH to it."
PATH="$(dirname "$nvcc"):$PATH"

# A program of its own: the one at target/bin/ingle stays the CPU's.
gpu_bin="$root/target/bin/ingle-cuda"
INGLE_BIN="$gpu_bin" "$root/scripts/build.sh" --features ingle/cuda

model="${CHECK_MODEL:-smollm2-135m-instruct}"
models="$cache/test-models"
INGLE_BIN="$gpu_bin" "$root/scripts/model.sh" "$model" "$models"

work=$(mktemp -d)
server=
stop_server() {
    [ -n "$server" ] || return 0
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    server=
}
trap 'stop_server; rm -rf "$work"' EXIT

# start_server FLAGS: on a free port; leaves its address in $address once it is ready.
start_server() {
    local tries
    INGLE_HINTS=1 "$gpu_bin" run "$model" --address 127.0.0.1:0 --models-path "$models" "$@" >"$work/log" 2>&1 &
    server=$!
    for ((tries = 0; tries < 600; tries++)); do
        kill -0 "$server" 2>/dev/null || break
        address=$(grep -oE '127\.0\.0\.1:[1-9][0-9]*' "$work/log" | head -n 1 || true)
        if [ -n "$address" ] && curl -fsS -o "$work/ready" "http://$address/readyz" 2>/dev/null; then return 0; fi
        sleep 0.2
    done
    cat "$work/log" >&2
    die "the server did not become ready"
}

# measure N: one completion of 512 or so prompt tokens and 128 output tokens; N keeps prompts apart, so that no prefix
# is found in the cache. Prints prefill and decode tokens/s.
measure() {
    local prompt="$1:" i
    for ((i = 0; i < 175; i++)); do prompt+=" $(((i * 7919 + $1 * 104729) % 97))"; done
    curl -fsS "http://$address/v1/completions" -H 'Content-Type: application/json' -H 'Extra-Usage: true' -d "{
        \"model\": \"$model\", \"prompt\": \"$prompt\", \"max_tokens\": 128, \"temperature\": 0, \"ignore_eos\": true
    }" >"$work/answer"
    awk '
        function number(key,    found) {
            if (!match($0, "\"" key "\" *: *[0-9.]+")) { print "no " key " in the answer" >"/dev/stderr"; exit 1 }
            found = substr($0, RSTART, RLENGTH)
            sub(/.*: */, "", found)
            return found
        }
        { text = text $0 }
        END {
            $0 = text
            printf "%.1f %.1f\n", number("prompt_tokens") * 1000 / number("timing_prompt_processing"),
                number("completion_tokens") * 1000 / number("timing_token_generation")
        }' "$work/answer"
}

# report NAME FLAGS: the best of three runs after a warm-up.
report() {
    local name="$1" n
    shift
    start_server "$@"
    measure 0 >"$work/warm-up"
    for n in 1 2 3; do measure "$n"; done |
        awk -v name="$name" '
            { if ($1 > prefill) prefill = $1; if ($2 > decode) decode = $2 }
            END { printf "%-12s %16.1f %16.1f\n", name, prefill, decode }'
    stop_server
}

"$gpu_bin" devices
printf '%-12s %16s %16s\n' "$model" 'prefill tok/s' 'decode tok/s'
report GPU
report CPU --gpu-layers 0
