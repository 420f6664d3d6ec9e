"""Mounts that return at boot, on a host where usernsplan is installed: by fstab, and what is refused."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.engines import recipes
from tests.engines.installed import HERE, PARTS, install, installed
from tests.engines.planned import usernsplan
from tests.engines.recipes_systemd import Machine, verify
from tests.engines.throwaway import require

if TYPE_CHECKING:
    import subprocess

    from tests.engines.throwaway import ThrowawayHost

# Only root gets into the folder above the volume, so no file of the container has power past its mount.
CLOSED, SOURCE, DEST = "/tmp/closed", "/tmp/closed/web", "/tmp/closed/mnt"
UNITS = "/etc/systemd/system"


def prepare(host: ThrowawayHost) -> None:
    """A container, and a volume that only root reaches, with a file of its user 33."""
    install(host)
    installed(host, "allocate", "--strategy", "per-container", "web")
    host.run("install", "-d", "-m", "700", CLOSED)
    host.run("install", "-d", SOURCE)
    host.run("install", "-o", "33", "-g", "33", "/dev/null", f"{SOURCE}/page")


def runs(host: ThrowawayHost) -> list[str]:
    return host.run("ls", "/var/lib/usernsplan/runs").stdout.split()


def mount(host: ThrowawayHost, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = host.run("env", "-u", "PYTHONPATH", "mount", *words, check=False)
    assert done.returncode == status, (words, done)
    return done


def test_fstab_and_mount_make_a_volume_s_mount_like_any_other(host: ThrowawayHost) -> None:
    prepare(host)
    host.run("ln", "-s", f"{HERE}/bin/mount.usernsplan", "/sbin/mount.usernsplan")
    # Everybody reaches it, and its mount point.
    host.run("chmod", "755", CLOSED)
    options = "container=web,mode=shift,protect=nosuid,nofail,_netdev,x-systemd.before=a.service"
    host.write("/etc/fstab", f"{SOURCE} {DEST} usernsplan {options} 0 0\n")
    host.run("install", "-d", DEST)

    mount(host, DEST)
    assert host.owner(f"{DEST}/page") == (589824 + 33, 589824 + 33)
    assert host.owner(f"{SOURCE}/page") == (33, 33)
    first = runs(host)
    assert len(first) == 2  # the lock, and the run

    # At the next boot it returns as it is recorded, and so it does after umount.
    mount(host, "-a")
    host.run("umount", DEST)
    assert host.owner(DEST) == (0, 0)
    mount(host, "-a")
    assert host.owner(f"{DEST}/page") == (589824 + 33, 589824 + 33)
    assert runs(host) == first

    # What the line says now counts, not what was recorded.
    host.run("umount", DEST)
    mount(host, DEST, "-o", "ro,nosuid")
    assert host.run("touch", f"{DEST}/new", check=False).returncode
    [seen] = host.run("findmnt", "--noheadings", "--output", "OPTIONS", DEST).stdout.splitlines()
    assert {"ro", "nosuid", "idmapped"} <= set(seen.split(","))
    assert len(runs(host)) == len(first) + 1


def test_what_mount_cannot_do_ends_with_the_status_of_mount(host: ThrowawayHost) -> None:
    prepare(host)
    host.run("ln", "-s", f"{HERE}/bin/mount.usernsplan", "/sbin/mount.usernsplan")
    for options, status, told in (
        ("mode=shift", 1, "the option container is missing"),
        ("container=web,mode=shft", 1, "'shft' is not one of own, shift"),
        ("container=web,user=33:33", 1, "container-user="),
        ("container=wbe", 1, "did you mean web?"),
        ("container=web,mode=own,container-user=nobody", 1, "nobody"),
    ):
        done = mount(host, "-t", "usernsplan", SOURCE, DEST, "-o", options, status=status)
        assert done.stderr.startswith("mount.usernsplan: ")
        assert told in done.stderr
    mount(host, "-f", "-t", "usernsplan", SOURCE, f"{CLOSED}/at", "-o", "container=web,mode=shift")
    assert not host.exists(f"{CLOSED}/at")


def test_what_root_runs_at_boot_has_to_be_root_s(host: ThrowawayHost) -> None:
    prepare(host)
    host.run("useradd", "--create-home", "alice")
    home = "/home/alice/venv"
    install(host, home)
    words = ("mount-volume", SOURCE, "--mode", "shift", "--persist")
    refused = installed(host, *words, place=home, status=9).stderr
    assert "/home/alice" in refused
    assert "install usernsplan for root" in refused

    # Whatever of it others can write: a file of the environment, a folder, a link to the interpreter.
    library = host.run("sh", "-c", f"echo {HERE}/lib/python3*/site-packages").stdout.strip()
    for path, spoil, mend in (
        (library, "chmod g+w {0}; chgrp alice {0}", "chmod g-w {0}"),
        (f"{HERE}/pyvenv.cfg", "chown alice {0}", "chown root {0}"),
        (f"{library}/usernsplan.pth", "chmod o+w {0}", "chmod o-w {0}"),
        (f"{library}/other.pth", "touch {0}; chown alice {0}", "rm {0}"),
        ("/opt", "chmod o+w {0}", "chmod o-w {0}"),
        (
            f"{HERE}/bin/python",
            f"mv {{0}} {{0}}.old; ln -s {home}/bin/python {{0}}",
            "mv {0}.old {0}",
        ),
    ):
        host.run("sh", "-euc", spoil.format(path))
        refused = installed(host, *words, status=9).stderr
        assert "others can change it" in refused, path
        host.run("sh", "-euc", mend.format(path))
    assert not host.exists(
        UNITS + "/multi-user.target.wants/usernsplan-volume-tmp-closed-web.service"
    )
    installed(host, *words)

    # An interpreter that finds us only by a variable would fail at boot.
    host.write(f"{library}/usernsplan.pth", f"{HERE}/deps")
    program = ("env", f"PYTHONPATH={HERE}/src", f"{HERE}/bin/python", "-m", "usernsplan")
    done = host.run(*program, *words, "--at", f"{CLOSED}/at", check=False)
    assert done.returncode == 9
    assert "-I fails" in done.stderr
    usernsplan(host, "undo", "--last")


# A folder with a program mount of 2.39 or newer, and with all the files that it needs to run here.
NEW_MOUNT = os.environ.get("NEW_MOUNT", "/nonexistent")


def machine(host: ThrowawayHost, others: dict[str, str] | None = None) -> Machine:
    """A machine on which usernsplan is installed, and podman with an image."""
    require("podman", "crun")
    install(host)
    for path in Path(NEW_MOUNT).iterdir() if others else ():
        host.write(path, path.read_bytes(), mode=0o755)
    found = Machine(host, (*PARTS, HERE, *([NEW_MOUNT] if others else ())), others)
    # nspawn permits no keyrings.
    conf = recipes.CONTAINERS_CONF.replace("[containers]", "[containers]\nkeyring = false")
    found.write(recipes.PODMAN_ENVIRONMENT["CONTAINERS_CONF"], conf)
    found.write(recipes.PODMAN_ENVIRONMENT["CONTAINERS_STORAGE_CONF"], recipes.STORAGE_CONF)
    host.run("cp", "-r", "/etc/containers", f"{found.tree}/etc")
    host.run("cp", recipes.rootfs_tar(host), f"{found.tree}/rootfs.tar")
    return found


POINT = "/var/lib/usernsplan/volumes/web/srv-closed-web"
UNIT = r"usernsplan-volume-var-lib-usernsplan-volumes-web-srv\x2dclosed\x2dweb.service"
MOUNT_UNIT = r"var-lib-usernsplan-volumes-web-srv\x2dclosed\x2dweb.mount"
BEFORE = f"""
PATH=$PATH:{HERE}/bin
contain() {{
    flags=$(usernsplan render podman web)
    podman run --rm $flags -v {POINT}:/v {recipes.IMAGE} sh -euc "$1"
}}
"""
FIRST = f"""{BEFORE}
podman import -q /rootfs.tar {recipes.IMAGE} >&2
mkdir -m 700 /srv/closed
mkdir /srv/closed/web
usernsplan allocate --strategy per-container web >&2
usernsplan mount-volume /srv/closed/web --mode shift --persist >&2
contain 'echo hello >/v/page; touch /v/by33; chown 33:44 /v/by33; chmod 640 /v/by33'
ls -ln /srv/closed/web
"""
SECOND = f"""{BEFORE}
contain 'cat /v/page; stat -c %u:%g /v/by33; echo more >>/v/page'
contain 'cat /v/page; chown 7 /v/page; chown 0 /v/page; echo hello >/v/page'
ls -ln /srv/closed/web
systemctl is-active '{UNIT}'
systemctl is-enabled '{UNIT}'
mkdir /srv/closed/other
usernsplan mount-volume /srv/closed/other --mode shift --persist >&2
"""
# The disk of one volume does not come: the machine boots all the same, with the other volume, and nobody writes beside
# the one that is missing.
WITHOUT = f"""{BEFORE}
systemctl is-failed '{UNIT}'
findmnt --noheadings --output OPTIONS {POINT.replace("web/srv-closed-web", "web/srv-closed-other")} |
    grep --only-matching idmapped
contain 'touch /v/beside 2>/dev/null || echo no'
mkdir {POINT}/made 2>/dev/null || echo no
mv /srv/closed/gone /srv/closed/web
usernsplan volumes --restore >&2
contain 'cat /v/page'
usernsplan undo --last >&2
usernsplan undo --last >&2
systemctl list-units --all --no-legend 'usernsplan*'
ls -A {POINT} /etc/systemd/system/usernsplan* 2>/dev/null || echo none
"""


def times_apart(listed: str) -> list[list[str]]:
    """What ls -ln says, without when."""
    return [[*line.split()[:5], line.split()[-1]] for line in listed.splitlines()[1:]]


def test_after_a_boot_the_container_reads_what_it_wrote(host: ThrowawayHost) -> None:
    booted = machine(host)
    listed = booted.boot(FIRST, recipes.PODMAN_ENVIRONMENT)
    assert times_apart(listed) == [
        ["-rw-r-----", "1", "33", "44", "0", "by33"],
        ["-rw-r--r--", "1", "0", "0", "6", "page"],
    ]
    said = booted.boot(SECOND, recipes.PODMAN_ENVIRONMENT).splitlines()
    assert said[:4] == ["hello", "33:44", "hello", "more"]
    assert times_apart("\n".join(said[4:7])) == times_apart(listed)
    assert said[7:] == ["active", "enabled"]

    host.run("mv", f"{booted.tree}/srv/closed/web", f"{booted.tree}/srv/closed/gone")
    said = booted.boot(WITHOUT, recipes.PODMAN_ENVIRONMENT).splitlines()
    assert said == ["failed", "idmapped", "no", "no", "hello", "none"]


BY_MOUNT = f"""{BEFORE}
contain 'cat /v/page; stat -c %u:%g /v/by33'
systemctl is-active '{MOUNT_UNIT}'
usernsplan volumes --restore >&2
usernsplan undo --last >&2
systemctl list-units --all --no-legend 'usernsplan*' '{MOUNT_UNIT}'
ls -A {POINT} /etc/systemd/system/*.mount 2>/dev/null || echo none
"""


@pytest.mark.skipif(not Path(NEW_MOUNT, "mount").exists(), reason="NEW_MOUNT names no mount")
def test_where_mount_knows_id_maps_a_mount_unit_does_it_without_us(host: ThrowawayHost) -> None:
    booted = machine(host, {"/usr/bin/mount": f"{NEW_MOUNT}/mount"})
    booted.boot(FIRST, recipes.PODMAN_ENVIRONMENT)
    assert host.exists(f"{booted.tree}{UNITS}/{MOUNT_UNIT}")
    said = booted.boot(BY_MOUNT, recipes.PODMAN_ENVIRONMENT).splitlines()
    assert said == ["hello", "33:44", "active", "none"]


def test_only_a_mount_that_knows_id_maps_is_left_to_itself(host: ThrowawayHost) -> None:
    """Before 2.39 it says nothing: it mounts, and maps no ids."""
    said = host.run("mount", "--version").stdout
    [(major, minor)] = re.findall(r"util-linux (\d+)\.(\d+)", said)
    asked = "from usernsplan.host.units import honours_idmap; print(honours_idmap())"
    found = host.run(sys.executable, "-c", asked).stdout.strip()
    assert found == str((int(major), int(minor)) >= (2, 39))
    mounts = host.run("findmnt", "--noheadings", "--output", "TARGET").stdout
    assert "/point" not in mounts


def test_systemd_understands_each_unit(host: ThrowawayHost) -> None:
    prepare(host)
    odd = f"{CLOSED}/a 50% of \"it\", $HOME;'x'"
    host.run("install", "-d", odd)
    installed(host, "mount-volume", odd, "--mode", "shift", "--container", "web", "--persist")
    [name] = host.run("sh", "-c", f"cd {UNITS} && ls | grep ^usernsplan").stdout.splitlines()
    text = host.read(f"{UNITS}/{name}").decode()
    verify(host, {f"{UNITS}/{name}": text}, name)
    installed(host, "undo", "--last")
