#!/usr/bin/env bash
# compare.sh MODEL.gguf [SCENARIO…]: Ingle against llama-server, in alternating blocks; needs `make build` and `make peers`.
#
# COMPARE_PEER     the folder of the peer's programs        (what scripts/peers.sh prints)
# COMPARE_PROGRAM  Ingle's program                          (this checkout's)
# COMPARE_THREADS  compute threads of each server           (2)
# COMPARE_SLOTS    requests at the same time                (8)
# COMPARE_CONTEXT  cells of context                         (16384)
# COMPARE_BLOCKS   pairs of blocks                          (5)
# COMPARE_PEER_FLAGS  more flags of llama-server, such as --kv-unified
# COMPARE_OUT      folder for the reports                   (target/compare)
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "$0")/env.sh"
cd "$root"

[ $# -ge 1 ] || die "usage: $0 MODEL.gguf [SCENARIO…]"
model=$(realpath -s "$1")
shift
scenarios=$(IFS=,; echo "${*:-single,unrelated,shared-prefix,branches,greedy,sampling}")
peer="${COMPARE_PEER:-$cache/peers/programs}"
program="${COMPARE_PROGRAM:-$bin}"
threads="${COMPARE_THREADS:-2}"
slots="${COMPARE_SLOTS:-8}"
context="${COMPARE_CONTEXT:-16384}"
out="${COMPARE_OUT:-$root/target/compare}"
pids=()

stop() { for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done; }
trap stop EXIT

# wait_for URL PID LOG
wait_for() {
    local n=0
    until python3 -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1])' "$1" >/dev/null 2>&1; do
        kill -0 "$2" 2>/dev/null || die "$(tail -n 20 "$3")"
        n=$((n + 1))
        [ $n -lt 600 ] || die "not ready after two minutes: $1"
        sleep 0.2
    done
}

[ -x "$peer/llama-server" ] || die "llama-server is not in $peer: make peers"
mkdir -p "$out"
"$program" run "$(basename "$model")" --models-path "$(dirname "$model")" --address 127.0.0.1:18090 --threads "$threads" \
    --parallel "$slots" --context-size "$context" >"$out/ingle.log" 2>&1 &
pids+=($!)
wait_for http://127.0.0.1:18090/readyz $! "$out/ingle.log"
# shellcheck disable=SC2086  # flags are words
"$peer/llama-server" -m "$model" --host 127.0.0.1 --port 18091 -t "$threads" -tb "$threads" -np "$slots" -c "$context" \
    --no-webui ${COMPARE_PEER_FLAGS:-} >"$out/llama-server.log" 2>&1 &
pids+=($!)
wait_for http://127.0.0.1:18091/health $! "$out/llama-server.log"
name=$(basename "$model" .gguf)
"$program" bench serve http://127.0.0.1:18090 --model "$(basename "$model")" --vs http://127.0.0.1:18091 --vs-model m \
    --scenario "$scenarios" --blocks "${COMPARE_BLOCKS:-5}" --json "$out/$name.json" --html "$out/$name.html" \
    --markdown "$out/$name.md"
