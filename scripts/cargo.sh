#!/usr/bin/env bash
# cargo in the shared target directory, with this checkout's lock on it: see target.sh.
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "$0")/env.sh"
# shellcheck source=scripts/target.sh
. "$root/scripts/target.sh"

"$root/scripts/setup.sh" build
claim_target
run_cargo "$@"
