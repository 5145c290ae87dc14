#!/usr/bin/env bash
# compare.sh MODEL.gguf [SCENARIO…]: Ingle against llama-server; needs `make build` and `make peers`. Without scenarios it
# runs the whole table: each group of cases with fresh servers in alternating blocks, against the peer with one cache for
# each slot and with one for all, then prints every ratio beside its bar. The peer's better setting counts.
#
# COMPARE_START    1 measures starts and memory, not the scenarios                       (0)
# COMPARE_PEER     the folder of the peer's programs        (what scripts/peers.sh prints)
# COMPARE_PROGRAM  Ingle's program                          (this checkout's)
# COMPARE_THREADS  compute threads of each server           (2)
# COMPARE_SLOTS    requests at the same time                (8; as many as clients where the case says so)
# COMPARE_CONTEXT  cells of context                         (16384; 32768 for branches)
# COMPARE_BLOCKS   pairs of blocks, or starts of each       (6)
# COMPARE_SECONDS  most seconds for one group of cases      (3600)
# COMPARE_KV       the peer's settings: split, unified      (both)
# COMPARE_PEER_FLAGS  more flags of llama-server
# COMPARE_OUT      folder for the reports                   (compare, in target)
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "$0")/env.sh"
cd "$root"

[ $# -ge 1 ] || die "usage: $0 MODEL.gguf [SCENARIO…]"
model=$(realpath "$1")
shift
peer="${COMPARE_PEER:-$cache/peers/programs}"
program="${COMPARE_PROGRAM:-$bin}"
threads="${COMPARE_THREADS:-2}"
blocks="${COMPARE_BLOCKS:-6}"
kv="${COMPARE_KV:-split unified}"
out="${COMPARE_OUT:-$root/target/compare}"
name=$(basename "$model" .gguf)
wanted=" $* "
pids=()

[ -f "$model" ] || die "there is no file $model"
[ -x "$program" ] || die "Ingle is not at $program: make build"
[ -x "$peer/llama-server" ] || die "llama-server is not in $peer: make peers"
mkdir -p "$out/models"

stop() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    pids=()
}
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

# Both get ChatML, whatever the file says: chats then have the same tokens.
describe_model() {
    ln -sfn "$model" "$out/models/compared.gguf"
    cat >"$out/models/compared.yaml" <<'YAML'
name: compared
backend: llama-cpp
known_usecases: [chat, completion]
parameters:
  model: compared.gguf
template:
  chat_message: "<|im_start|>{{.RoleName}}\n{{.Content}}<|im_end|>"
  chat: "{{.Input}}\n<|im_start|>assistant\n"
YAML
}

# serve SLOTS CONTEXT KV: both servers, anew.
serve() {
    local flags=(-np "$1" -c "$2" --chat-template chatml)
    [ "$3" = split ] || flags+=(--kv-unified)
    "$program" run compared --models-path "$out/models" --address 127.0.0.1:18090 --threads "$threads" --parallel "$1" \
        --context-size "$2" >"$out/ingle.log" 2>&1 &
    pids+=($!)
    wait_for http://127.0.0.1:18090/readyz $! "$out/ingle.log"
    # shellcheck disable=SC2086  # flags are words
    "$peer/llama-server" -m "$model" --host 127.0.0.1 --port 18091 -t "$threads" -tb "$threads" --no-webui "${flags[@]}" \
        ${COMPARE_PEER_FLAGS:-} >"$out/llama-server.log" 2>&1 &
    pids+=($!)
    wait_for http://127.0.0.1:18091/health $! "$out/llama-server.log"
}

# group NAME SLOTS CONTEXT SCENARIO…: measures those of the scenarios that are wanted.
group() {
    local group="$1" slots="${COMPARE_SLOTS:-$2}" context="${COMPARE_CONTEXT:-$3}" scenarios=() scenario setting report
    shift 3
    for scenario in "$@"; do
        if [ "$wanted" = "  " ] || [[ "$wanted" = *" $scenario "* ]]; then scenarios+=("$scenario"); fi
    done
    [ ${#scenarios[@]} -gt 0 ] || return 0
    for setting in $kv; do
        say "$group, the peer's cache $setting: ${scenarios[*]}"
        report="$out/$name-$group-$setting"
        rm -f "$report".*
        serve "$slots" "$context" "$setting"
        # What was measured before a failure is in the report: the other groups go on.
        "$program" bench serve http://127.0.0.1:18090 --model compared --vs http://127.0.0.1:18091 --vs-model compared \
            --scenario "$(IFS=,; echo "${scenarios[*]}")" --blocks "$blocks" --max-seconds "${COMPARE_SECONDS:-3600}" \
            --json "$report.json" --html "$report.html" --markdown "$report.md" || say "$group was not finished"
        stop
        [ ! -f "$report.json" ] || reports+=("$report.json")
    done
}

table=(single unrelated shared-prefix sampling json-schema multi-turn)
reports=()
describe_model
if [ "${COMPARE_START:-0}" = 1 ]; then
    python3 benches/peers/start.py --program "$program" --peer "$peer/llama-server" --models "$out/models" \
        --model "$model" --threads "$threads" --slots "${COMPARE_SLOTS:-16}" --context "${COMPARE_CONTEXT:-16384}" \
        --runs "$blocks" --logs "$out" --peer-flags "${COMPARE_PEER_FLAGS:-}" --json "$out/$name-start.json"
    reports+=("$out/$name-start.json")
else
    others=()
    for scenario in $wanted; do
        case " ${table[*]} branches greedy " in *" $scenario "*) ;; *) others+=("$scenario") ;; esac
    done
    group slots 8 16384 "${table[@]}" "${others[@]}"
    # Eight times 3,096 tokens, where each slot has its own share.
    group branches 8 32768 branches
    group greedy 16 16384 greedy
    [ ${#reports[@]} -gt 0 ] || die "nothing was measured"
fi
python3 benches/peers/table.py "${reports[@]}"
