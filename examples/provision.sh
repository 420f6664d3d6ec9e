#!/bin/sh
# Give a list of containers their ids on this host, and start each with Podman. Safe to run at every boot or deployment:
# names that have their range keep it, and nothing is touched where nothing is new. An empty list is an error.
#
#   provision.sh web=docker.io/library/nginx db=docker.io/library/postgres
#
# ROOT=/mnt provisions another tree (a disk image, say) and starts nothing.
set -eu

for pair in "$@"; do printf '%s\n' "${pair%%=*}"; done |
    usernsplan allocate --strategy per-container --names-from - ${ROOT:+--root "$ROOT"}

[ -z "${ROOT:-}" ] || exit 0
for pair in "$@"; do
    name=${pair%%=*} image=${pair#*=}
    podman container exists "$name" && continue
    # Apart from podman's line: without flags, the container's root would be the host's.
    flags=$(usernsplan render podman "$name")
    # shellcheck disable=SC2086
    podman run -d --name "$name" $flags "$image"
done
