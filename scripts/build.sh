#!/usr/bin/env bash
# Builds the release program and puts it at target/bin/ingle, with the name local-ai beside it.
# Arguments go to cargo build; INGLE_BIN names another place for the program.
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "$0")/env.sh"
# shellcheck source=scripts/target.sh
. "$root/scripts/target.sh"

place="${INGLE_BIN:-$bin}"

"$root/scripts/setup.sh" build
claim_target
# Always the whole workspace: another selection would unify features differently and compile llama.cpp again.
run_cargo build --release --workspace "$@"

mkdir -p "$(dirname "$place")"
if ! cmp -s "$CARGO_TARGET_DIR/release/ingle" "$place"; then
    # A copy under another name, then a rename: a server that runs from here keeps its program.
    cp -f "$CARGO_TARGET_DIR/release/ingle" "$place.new"
    mv -f "$place.new" "$place"
fi
[ "$place" != "$bin" ] || ln -sf ingle "$(dirname "$bin")/local-ai"
