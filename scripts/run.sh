#!/usr/bin/env bash
# run.sh MODEL ADDRESS FOLDER [flags of ingle run]: gets the model and starts the server.
# MODEL is a gallery name, a path or a URI; empty means the starter model.
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "$0")/env.sh"
cd "$root"

model="${1:-smollm2-135m-instruct}"
address="$2"
folder="$3"
shift 3
"$root/scripts/model.sh" "$model" "$folder"
# The program prints a curl line and a chat line that work once it is ready.
INGLE_HINTS=1 exec "$bin" run "$model" --address "$address" --models-path "$folder" "$@"
