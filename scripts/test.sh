#!/usr/bin/env bash
# Everything that can be tested on this machine, real models included, closed by one line of counts.
# Arguments go to cargo test.
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "$0")/env.sh"
# shellcheck source=scripts/target.sh
. "$root/scripts/target.sh"

"$root/scripts/build.sh"

# Tests read the models from here; without them they say so and pass over the part that needs them.
export INGLE_TEST_MODELS="${INGLE_TEST_MODELS:-$cache/test-models}"
for model in ${TEST_MODELS:-smollm2-135m-instruct gemma-3-270m qwen2.5-coder-0.5b-instruct all-minilm-l6-v2 whisper-tiny.en faster-whisper-base voice-en-us-joe-medium silero-vad}; do
    "$root/scripts/model.sh" "$model" "$INGLE_TEST_MODELS"
done

# Kokoro's voices can also be had by npm; where neither works their tests say so and pass.
if [ -z "${TEST_MODELS:-}" ]; then
    "$root/scripts/kokoro.sh" || :
    "$root/scripts/model.sh" kokoro-82m "$INGLE_TEST_MODELS" || :
fi

# Voices need espeak-ng; without it their tests say so and pass.
"$root/scripts/setup.sh" speech || :

# The clients of others, where Python can have them; without them their tests say so and pass.
client_python() {
    local python="$cache/$1/bin/python" module="$2"
    shift 2
    if ! "$python" -c "import $module" 2>/dev/null; then
        { python3 -m venv "$(dirname "$(dirname "$python")")" && "$python" -m pip install -q "$@"; } >/dev/null 2>&1 || :
    fi
    if "$python" -c "import $module" 2>/dev/null; then
        echo "$python"
    else
        say "$* cannot be installed here: its tests are passed over." >&2
    fi
}
INGLE_OPENAI_PYTHON=$(client_python openai-client pydantic_ai openai==3.54.0 langchain-openai==1.7.4 \
    "pydantic-ai-slim[openai]==2.68.0")
INGLE_INSTRUCTOR_PYTHON=$(client_python instructor-client instructor instructor==1.17.0)
INGLE_RAG_PYTHON=$(client_python rag-client cohere cohere==7.3.1 llama-index-embeddings-openai-like==0.4.0)
export INGLE_OPENAI_PYTHON INGLE_INSTRUCTOR_PYTHON INGLE_RAG_PYTHON

# Engines compute with a thread a core and wait for each other by spinning: two at a time take far longer than one
# after the other.
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-1}"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
claim_target
status=0
run_cargo test --release --workspace --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?

awk '
    { gsub(/\033\[[0-9;]*m/, "") }
    /^test result: / {
        for (i = 2; i <= NF; i++) {
            if ($i ~ /^passed/) passed += $(i - 1)
            if ($i ~ /^failed/) failed += $(i - 1)
            if ($i ~ /^ignored/) skipped += $(i - 1)
        }
        binaries++
    }
    END {
        if (!binaries) { print "no test was run: see the errors above"; exit 1 }
        printf "%d passed, %d failed", passed, failed
        if (skipped) printf ", %d skipped", skipped
        print ""
    }' "$log" || status=1
exit "$status"
