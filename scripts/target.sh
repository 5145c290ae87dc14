# shellcheck shell=bash
# shellcheck source=scripts/env.sh disable=SC2154  # env.sh, sourced before this file, sets root
# Sourced after env.sh: cargo for a target directory that several checkouts share.
#
# Cargo tells members of a workspace apart by their path *inside* the workspace and judges freshness by time stamps, so
# a second checkout whose files are older than the first one's build would be handed the first one's program. Hence:
# one checkout at a time (a lock the kernel drops when its holder dies, so it is never stale), and on a change of
# checkout the workspace's own artefacts go. Dependencies, llama.cpp among them, stay.

workspace_members() {
    sed -n '/^\[package\]/,/^\[/s/^name *= *"\(.*\)"/\1/p' "$root/Cargo.toml" "$root"/crates/*/Cargo.toml
}

# Holds the target directory for this checkout until the calling script ends.
claim_target() {
    local owner="$CARGO_TARGET_DIR/.ingle-checkout" members
    exec 9>"$CARGO_TARGET_DIR/.ingle-lock"
    if command -v flock >/dev/null 2>&1 && ! flock -n 9; then
        say "Another build holds $CARGO_TARGET_DIR: waiting. (CARGO_TARGET_DIR=target builds aside.)"
        flock 9
    fi
    [ "$(cat "$owner" 2>/dev/null)" != "$root" ] || return 0
    if [ -d "$CARGO_TARGET_DIR/release" ]; then
        rm -f "$owner"
        mapfile -t members < <(workspace_members)
        (cd "$root" && cargo clean --quiet --release "${members[@]/#/--package=}" 9>&-)
    fi
    printf '%s\n' "$root" >"$owner"
}

# cargo in this checkout. A run that was killed can leave half-written objects of llama.cpp behind: when the run after
# it fails too, llama.cpp is built afresh, once.
run_cargo() {
    local running="$CARGO_TARGET_DIR/.ingle-running" interrupted=no status=0
    [ ! -e "$running" ] || interrupted=yes
    touch "$running"
    (cd "$root" && exec cargo "$@" 9>&-) || status=$?
    if [ "$status" -ne 0 ] && [ "$status" -lt 128 ] && [ "$interrupted" = yes ] && [ "$1" != fmt ]; then
        say "The run before this one was cut off: building llama.cpp afresh, once."
        status=0
        (cd "$root" && cargo clean --quiet --release --package=llama-cpp-sys-2 && exec cargo "$@") 9>&- || status=$?
    fi
    [ "$status" -ge 128 ] || rm -f "$running"
    return "$status"
}
