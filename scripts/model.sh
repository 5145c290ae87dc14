#!/usr/bin/env bash
# model.sh MODEL FOLDER: installs a model (gallery name, path or URI) into a models folder; quick when it is there.
# INGLE_BIN names another program than this checkout's.
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "$0")/env.sh"
cd "$root"

model="$1"
folder="$2"
program="${INGLE_BIN:-$bin}"
mkdir -p "$folder"

install_model() { "$program" models install "$model" --models-path "$folder"; }

in_gallery() { grep -E '^[- ]*name:' models/gallery.yaml | tr -d "\"' " | grep -qxF -e "name:$model" -e "-name:$model"; }

if ! install_model; then
    # Gallery entries have a last source that needs pip. It is installed only now that the others have failed.
    if in_gallery && ! python3 -m pip --version >/dev/null 2>&1; then
        "$root/scripts/setup.sh" fetch
        install_model
    else
        exit 1
    fi
fi
