#!/bin/sh
# Show a strategy at work: a container with only busybox creates a file in a volume. Run it as root. It
# needs crun and a static busybox, writes only to a temporary folder, and removes that.
#
#   demo.sh per-container
#   demo.sh single-uid
#   demo.sh shared
set -eu

strategy=${1:?which strategy: per-container, single-uid or shared}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
host=$work/host bundle=$work/bundle volume=$work/host/srv/volume

# On the host, the container's root is an ordinary user; it must be able to enter these folders.
chmod 755 "$work"
mkdir -p "$volume" "$host/etc" "$bundle/rootfs/bin" "$bundle/rootfs/dev" "$bundle/rootfs/proc" "$bundle/rootfs/volume"
busybox=$(command -v busybox)
cp "$busybox" "$bundle/rootfs/bin/busybox"
ln -s busybox "$bundle/rootfs/bin/sh"

cat >"$bundle/config.json" <<'JSON'
{
  "ociVersion": "1.0.2",
  "root": {"path": "rootfs", "readonly": true},
  "process": {
    "user": {"uid": 0, "gid": 0},
    "args": ["sh", "-c", "busybox touch /volume/made; busybox id -u; busybox cat /proc/self/uid_map"],
    "env": ["PATH=/bin"],
    "cwd": "/",
    "noNewPrivileges": true
  },
  "mounts": [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}
  ],
  "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}]}
}
JSON

echo "--- the plan"
usernsplan allocate --strategy "$strategy" demo --engine oci --root "$host"
echo "--- give the volume to the container, and write its map into the bundle"
usernsplan fix-volume /srv/volume --container demo --root "$host"
usernsplan render oci demo --bundle "$bundle" --volume "$volume:/volume" --root "$host" >"$work/diff" 2>&1
echo "--- in the container: its uid and its map"
# Use pipes: crun changes the owner of its terminal or /dev/null to the container's root.
: | crun run --bundle "$bundle" "usernsplan-demo-$$" 2>&1 | cat
echo "--- on the host: the owner of its file"
stat -c '%u:%g' "$volume/made"
