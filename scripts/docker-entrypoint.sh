#!/bin/sh
# The image takes LocalAI's arguments: a subcommand, or straight away models and flags, which mean `run`.
set -eu
case "${1:-run}" in
    run | chat | models | devices | template | version | help | -h | --help | -V | --version) ;;
    *) set -- run "$@" ;;
esac
exec ingle "$@"
