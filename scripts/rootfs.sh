#!/usr/bin/env bash
# The root file system of an image: the program, what it loads, and nothing else.
#
#   rootfs.sh PROGRAM_FOLDER ROOT     PROGRAM_FOLDER has bin/ingle and, with plug-ins, lib/ingle (see dist.sh)
#
# The libraries and certificates are those of the machine (or build stage) that runs this.
set -euo pipefail

[ $# -eq 2 ] || { echo "usage: $0 PROGRAM_FOLDER ROOT" >&2; exit 2; }
from="$1"
to="$2"
id=10001

rm -rf "$to"
mkdir -p "$to"/{dev,proc,tmp,etc/ssl/certs,models,var/lib/ingle,usr/local/bin,usr/local/lib}
chmod 1777 "$to/tmp"
cp -L "$from/bin/ingle" "$to/usr/local/bin/ingle"
strip "$to/usr/local/bin/ingle"
[ ! -e "$from/bin/ingle-cuda" ] || cp -L "$from/bin/ingle-cuda" "$to/usr/local/bin/ingle-cuda"
ln -s ingle "$to/usr/local/bin/local-ai"
[ ! -d "$from/lib/ingle" ] || cp -RL "$from/lib/ingle" "$to/usr/local/lib/ingle"

# Where the loader looks, by its own word, to the same place.
copy_libraries() {
    local library
    LD_LIBRARY_PATH="$to/usr/local/lib/ingle" ldd "$1" | sed -n 's/.*=> \(\/[^ ]*\).*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' |
        while IFS= read -r library; do
            case "$library" in
                "$to"/* | "$from"/*) ;;
                # The driver's own come with the driver: the container toolkit mounts them.
                */libcuda.so* | */libnvidia-*) ;;
                # An image has no ld.so.cache, so CUDA's libraries go where LD_LIBRARY_PATH of Dockerfile.cuda points.
                */cuda*/lib*) install -D -m755 "$(readlink -f "$library")" "$to/usr/local/cuda/lib64/${library##*/}" ;;
                *) [ -e "$to$library" ] || install -D -m755 "$(readlink -f "$library")" "$to$library" ;;
            esac
        done
}
for file in "$to"/usr/local/bin/ingle* "$to"/usr/local/lib/ingle/*.so*; do
    [ ! -f "$file" ] || copy_libraries "$file"
done
# Speech needs phonemes: espeak-ng is a program of its own (GPL-3) that is started where it is there.
if command -v espeak-ng >/dev/null 2>&1; then
    install -D -m755 "$(readlink -f "$(command -v espeak-ng)")" "$to/usr/bin/espeak-ng"
    copy_libraries "$to/usr/bin/espeak-ng"
    for data in /usr/lib/*/espeak-ng-data /usr/share/espeak-ng-data; do
        if [ -d "$data" ]; then mkdir -p "$to$(dirname "$data")" && cp -RL "$data" "$to$(dirname "$data")/"; fi
    done
fi

# missing FILE [FOLDERS]: libraries that the loader of the root file system does not find in it. What it finds elsewhere
# on this machine is missing in the image.
missing() {
    local name at
    # With --list the loader stops at the first that is missing; traced, as ldd does it, it goes on. What is no program ends
    # it with a status.
    { LD_TRACE_LOADED_OBJECTS=1 "$loader" --inhibit-cache --library-path "$system:$to/usr/local/cuda/lib64${2:+:$2}" \
        "$1" 2>/dev/null || true; } |
        sed -n 's/^[[:space:]]*\([^ ]*\) => \(not found\|[^ ]*\).*/\1 \2/p' |
        while read -r name at; do
            case "$name/$at" in
                libcuda.so* | libnvidia-* | */"$to"/*) ;;
                # A path that the file itself names leads to the same place in the image.
                *) [ -e "$to$at" ] || printf ' %s' "$name" ;;
            esac
        done
}
to=$(cd "$to" && pwd)
loader=$(find "$to"/lib* -name 'ld-linux*.so.*' | head -n 1)
[ -n "$loader" ] || { echo "the loader of programs is not in $to" >&2; exit 1; }
system=$("$loader" --help | sed -n "s|^ *\(/[^ ]*\) (system search path)\$|$to\1|p" | paste -s -d : -)
for file in "$to"/usr/local/bin/* "$to"/usr/bin/* "$to"/usr/local/lib/ingle/*.so*; do
    [ -f "$file" ] || continue
    beside=
    # What a plug-in needs of llama.cpp the program has loaded before.
    case "$file" in "$to"/usr/local/lib/ingle/*) beside="$to/usr/local/lib/ingle" ;; esac
    lacks=$(missing "$file" "$beside")
    [ -z "$lacks" ] || { echo "${file#"$to"} would not find in the image:$lacks" >&2; exit 1; }
done

if [ -e /etc/ssl/certs/ca-certificates.crt ]; then
    cp -L /etc/ssl/certs/ca-certificates.crt "$to/etc/ssl/certs/ca-certificates.crt"
fi
echo 'hosts: files dns' >"$to/etc/nsswitch.conf"
printf 'root:x:0:0:root:/root:/sbin/nologin\ningle:x:%s:%s:Ingle:/var/lib/ingle:/sbin/nologin\n' $id $id >"$to/etc/passwd"
printf 'root:x:0:\ningle:x:%s:\n' $id >"$to/etc/group"
chown -R $id:$id "$to/models" "$to/var/lib/ingle" 2>/dev/null || true
du -sm "$to" | cut -f1
