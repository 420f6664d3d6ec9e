#!/bin/sh
# Give containers their ids on this host, and start each with Podman. Run it at every boot or deployment:
# names keep their ranges, and nothing changes without a new name. An empty list is an error.
#
#   provision.sh web=docker.io/library/nginx db=docker.io/library/postgres
#
# ROOT=/mnt provisions another tree, such as a disk image, and starts nothing.
set -eu

for pair in "$@"; do printf '%s\n' "${pair%%=*}"; done |
    usernsplan allocate --strategy per-container --names-from - ${ROOT:+--root "$ROOT"}

[ -z "${ROOT:-}" ] || exit 0
for pair in "$@"; do
    name=${pair%%=*} image=${pair#*=}
    podman container exists "$name" && continue
    # A line of its own, so that a failure stops the script: without flags, container root would be the
    # host's root.
    flags=$(usernsplan render podman "$name")
    # shellcheck disable=SC2086
    podman run -d --name "$name" $flags "$image"
done
