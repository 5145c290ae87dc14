#!/usr/bin/env bash
# Puts Kokoro's voices into the cache of weights where its own release cannot be reached: the package kokoro-js holds each
# as a table of its own, and numpy's archive of them is, byte for byte, the file of the release.
# Needs npm and python3; without them it says so and ends with 1.
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "$0")/env.sh"

name=voices-v1.0.bin
sha256=bca610b8308e8d99f32e6fe4197e7ec01679264efed0cac9140fe9c29f1fbf7d
folder="$cache/models/${sha256:0:16}"

[ ! -e "$folder/$name" ] || exit 0
for program in npm python3; do
    command -v "$program" >/dev/null 2>&1 || die "Kokoro's voices need $program to be fetched here."
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && npm pack --silent --fetch-retries=1 --fetch-timeout=60000 kokoro-js@1.2.1 >/dev/null) ||
    die "npm cannot fetch Kokoro's voices here."
tar xzf "$work/kokoro-js-1.2.1.tgz" -C "$work"
python3 - "$work" "$name" <<'PYTHON'
import os
import sys
import zipfile

work, name = sys.argv[1:]
folder = os.path.join(work, "package", "voices")
head = "{'descr': '<f4', 'fortran_order': False, 'shape': (510, 1, 256), }"
# The NPY format: magic, version 1.0, length of the head, which fills 128 bytes with blanks and a line's end.
head = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + head.ljust(117).encode() + b"\n"
with zipfile.ZipFile(os.path.join(work, name), "w", zipfile.ZIP_STORED) as archive:
    for voice in sorted(os.listdir(folder)):
        with archive.open(voice.removesuffix(".bin") + ".npy", "w", force_zip64=True) as member:
            member.write(head + open(os.path.join(folder, voice), "rb").read())
PYTHON
echo "$sha256  $work/$name" | sha256sum --check --quiet || die "Kokoro's voices are not those of the release."
mkdir -p "$folder"
mv "$work/$name" "$folder/$name.part"
mv "$folder/$name.part" "$folder/$name"
