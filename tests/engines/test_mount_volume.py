"""A volume that mount-volume shows with a container's ids, judged by each engine whose containers live in it.

Everything runs in a throw-away host, on the host's own ledger, without --root. The volume stays as it is on the disk: what
its containers make there is looked at past the mount.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import sys
from typing import TYPE_CHECKING, TypeAlias

import pytest
import yaml

from tests.command import slow
from tests.engines import recipes
from tests.engines.recipes_lxc import lxc_execute
from tests.engines.recipes_nspawn import nspawn_run
from tests.engines.throwaway import CommandFailed, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.engines.throwaway import ThrowawayHost

    # A shell script, and what it prints in a container, word by word.
    Run: TypeAlias = Callable[[str], list[str]]

# On a tmpfs, whose ids the kernel maps. Nobody but root gets at what containers make there.
KEPT = "/tmp/kept"
VOLUME = f"{KEPT}/content"
AT = "/run/usernsplan/volumes/web/tmp-kept-content"
BASE = 589824  # where per-container begins to give ranges out
# Programs of the host that the containers run: busybox's own are another setpriv and no ACLs.
SETPRIV, GETFACL, SETFACL = "/usr/bin/setpriv", "/usr/bin/getfacl", "/usr/bin/setfacl"
GETCAP, SETCAP = "/usr/sbin/getcap", "/usr/sbin/setcap"
PROGRAMS = (SETPRIV, GETFACL, SETFACL, GETCAP, SETCAP)

# Two programs that read a file as more than their caller, and files of several owners. The ACL is for container id 33.
FILL = """
umask 022
mkdir -p "$1/data"
chmod 700 "${1%/*}"
cp "$(command -v cat)" "$1/setuid-cat"
cp "$(command -v cat)" "$1/capable-cat"
chmod 4755 "$1/setuid-cat"
setcap cap_dac_override+ep "$1/capable-cat"
for file in secret shared data/page; do echo "${file##*/}" >"$1/$file"; done
chmod 600 "$1/secret" "$1/shared" "$1/data/page"
setfacl -m u:33:r "$1/shared"
chown 33:34 "$1/data/page"
chown 33:33 "$1/data"
"""
STAT = "stat -c %u:%g /vol /vol/secret /vol/data /vol/data/page"
# As root, then as 33: what it sees, changes and makes.
LIVE = f"""
{STAT}
cat /vol/secret
echo more >>/vol/secret
echo made >/vol/made
mkdir /vol/folder
chown 33:33 /vol/folder
touch /vol/given
chown 65535:1000 /vol/given
as33() {{ {SETPRIV} --reuid 33 --regid 33 --clear-groups "$@"; }}
as33 sh -c 'cat /vol/data/page; echo new >/vol/data/new; touch /vol/folder/own'
for cat in cat /vol/setuid-cat /vol/capable-cat; do as33 $cat /vol/secret 2>/dev/null || echo no; done
as33 cat /vol/shared
{SETPRIV} --reuid 34 --regid 34 --clear-groups cat /vol/shared 2>/dev/null || echo no
stat -c %u:%g /vol/made /vol/folder /vol/given /vol/data/new /vol/folder/own
"""
LIVED = [
    *("0:0", "0:0", "33:33", "33:34"),
    "secret",
    "page",
    *("no", "secret", "more", "secret", "more"),
    *("shared", "no"),
    *("0:0", "33:33", "65535:1000", "33:33", "33:33"),
]
# On the disk the same ids: not one of the container's range.
ON_DISK = {
    "": (0, 0),
    "/secret": (0, 0),
    "/data": (33, 33),
    "/data/page": (33, 34),
    "/made": (0, 0),
    "/folder": (33, 33),
    "/given": (65535, 1000),
    "/data/new": (33, 33),
    "/folder/own": (33, 33),
}


def usernsplan(host: ThrowawayHost, *words: str) -> str:
    return host.run(sys.executable, "-m", "usernsplan", *words).stdout


def fill(host: ThrowawayHost) -> None:
    require("setcap", "setfacl")
    host.run("sh", "-euc", FILL, "sh", VOLUME)


def needed(host: ThrowawayHost) -> list[str]:
    """The host's programs of PROGRAMS, and the libraries of these and of the volume's."""
    require(*(program.rpartition("/")[2] for program in PROGRAMS), "ldd")
    words = host.run("ldd", *PROGRAMS, f"{VOLUME}/setuid-cat").stdout.split()
    return sorted(
        {*PROGRAMS, *(word for word in words if word.startswith("/") and ":" not in word)}
    )


def furnish(host: ThrowawayHost) -> None:
    """Put these programs into the root file system that the recipes start from."""
    recipes.busybox_rootfs(host, recipes.ROOTFS)
    script = """
        to=$1; shift
        for file in "$@"; do
            mkdir -p "$to${file%/*}"
            cp -L "$file" "$to$file"
        done
    """
    host.run("sh", "-euc", script, "sh", recipes.ROOTFS, *needed(host))
    host.run("mkdir", "-p", f"{recipes.ROOTFS}/vol")


def rendered(host: ThrowawayHost, engine: str, volume: str = f"{VOLUME}:/vol") -> str:
    """What the engine reads. The source is the mount, and nothing maps it again."""
    text = usernsplan(host, "render", engine, "web", "--volume", volume)
    assert AT in text
    assert VOLUME not in text
    assert ":idmap" not in text
    return text


@contextlib.contextmanager
def podman(host: ThrowawayHost) -> Iterator[Run]:
    # Podman's own default for a volume is nosuid.
    flags = [
        f"{word}:suid" if word.startswith(AT) else word
        for word in shlex.split(rendered(host, "podman"))
    ]
    yield lambda script: recipes.podman_run(host, flags, ["sh", "-c", script]).split()


@contextlib.contextmanager
def crun(host: ThrowawayHost) -> Iterator[Run]:
    sets = [*recipes.CAPABILITIES, "CAP_SETFCAP"]
    process = {"capabilities": dict.fromkeys(("bounding", "effective", "permitted"), sets)}
    fragment = recipes.merged(json.loads(rendered(host, "oci")), {"process": process})
    yield lambda script: recipes.oci_run(host, "crun", fragment, ["sh", "-c", script]).split()


@contextlib.contextmanager
def docker(host: ThrowawayHost) -> Iterator[Run]:
    [service] = yaml.safe_load(rendered(host, "compose"))["services"].values()
    [volume] = service["volumes"]
    with recipes.dockerd(host) as daemon:
        yield lambda script: daemon.run(
            ["sh", "-c", script], [f"{volume['source']}:{volume['target']}"]
        ).split()


@contextlib.contextmanager
def lxc(host: ThrowawayHost) -> Iterator[Run]:
    text = rendered(host, "lxc")
    yield lambda script: lxc_execute(host, text, ["sh", "-c", script]).split()


@contextlib.contextmanager
def nspawn(host: ThrowawayHost) -> Iterator[Run]:
    flags = [*shlex.split(rendered(host, "nspawn")), *(f"--bind-ro={one}" for one in needed(host))]
    yield lambda script: nspawn_run(host, flags, ["/bin/sh", "-c", script]).split()


ENGINES = {
    "podman": podman,
    "crun": crun,
    "docker": docker,
    "lxc": lxc,
    "nspawn": nspawn,
}
# Words of allocate that an engine needs besides.
NEEDS = {"docker": ("--daemon", "web"), "lxc": ("--engine", "lxc"), "crun": ("--engine", "oci")}


def allocate(host: ThrowawayHost, engine: str, *words: str) -> None:
    host.write("/etc/nsswitch.conf", "passwd: files systemd\ngroup: files systemd\n")
    more = NEEDS.get(engine, ("--engine", engine))
    usernsplan(host, "allocate", "--strategy", "per-container", "web", *words, *more)


def on_disk(host: ThrowawayHost) -> dict[str, tuple[int, int]]:
    return {name: host.owner(VOLUME + name) for name in ON_DISK}


@pytest.mark.parametrize("engine", list(ENGINES))
def test_a_container_lives_in_a_mount_that_shows_the_disk_s_ids_as_its_own(
    host: ThrowawayHost, engine: str
) -> None:
    fill(host)
    allocate(host, engine)
    furnish(host)
    usernsplan(host, "mount-volume", VOLUME, "--container", "web", "--mode", "shift")

    with ENGINES[engine](host) as run:
        assert run(LIVE) == LIVED

    assert on_disk(host) == ON_DISK
    usernsplan(host, "undo", "--last")
    assert not host.exists(AT)
    assert on_disk(host) == ON_DISK


# All is a person's on the disk, and id 33's in the container.
OWN = f"""
{STAT}
as33() {{ {SETPRIV} --reuid 33 --regid 33 --clear-groups "$@"; }}
as33 sh -c 'cat /vol/secret; echo new >>/vol/data/page; echo made >/vol/made; mkdir /vol/folder'
stat -c %u:%g /vol/made /vol/folder
{{ echo root >/vol/by-root; }} 2>/dev/null || echo no
chown 34 /vol/made 2>/dev/null || echo no
"""


@pytest.mark.parametrize("engine", ["podman", *slow("crun", "docker", "lxc", "nspawn")])
def test_one_owner_on_the_disk_is_the_container_s_user_and_nobody_else_makes_files(
    host: ThrowawayHost, engine: str
) -> None:
    fill(host)
    host.run("chown", "-R", "1000:100", VOLUME)
    allocate(host, engine)
    furnish(host)
    usernsplan(host, "mount-volume", VOLUME, "--container", "web", "--user", "33:33")

    with ENGINES[engine](host) as run:
        # The mount has no id for anybody else: EOVERFLOW.
        assert run(OWN) == [*["33:33"] * 4, "secret", *["33:33"] * 2, "no", "no"]

    owners = {host.owner(VOLUME + name) for name in ("", "/data/page", "/made", "/folder")}
    assert owners == {(1000, 100)}
    assert not host.exists(f"{VOLUME}/by-root")


@pytest.mark.parametrize("engine", ["podman", *slow("crun")])
def test_an_id_that_passes_through_is_itself_on_the_disk_and_its_hole_is_not(
    host: ThrowawayHost, engine: str
) -> None:
    fill(host)
    # The container's 33 is the host's 1000, and so it is where no mount shows anything.
    allocate(host, engine, "--pass", "b:1000:33")
    furnish(host)
    usernsplan(host, "mount-volume", VOLUME, "--container", "web", "--mode", "shift")

    with ENGINES[engine](host) as run:
        script = f"{STAT}; touch /vol/made; chown 33:33 /vol/made; chown 1000:1000 /vol/secret"
        assert run(script) == ["0:0", "0:0", "33:33", "33:34"]

    assert host.owner(f"{VOLUME}/made") == (33, 33)
    assert host.owner(f"{VOLUME}/secret") == (1000, 1000)
    seen = host.run("stat", "-c", "%u:%g", f"{AT}/made", f"{AT}/secret").stdout.split()
    assert seen == ["1000:1000", f"{BASE + 1000}:{BASE + 1000}"]


ACLS = f"""
{GETFACL} -cnp /vol/shared
{GETCAP} /vol/capable-cat
touch /vol/listed
{SETFACL} -m u:1000:r,g:33:rw /vol/listed
mkdir /vol/default
{SETFACL} -d -m u:1000:rx /vol/default
touch /vol/default/heir
cat </vol/setuid-cat >/vol/able
{SETCAP} cap_net_raw+ep /vol/able
{GETFACL} -cnp /vol/listed
{GETCAP} /vol/able
"""
LISTED = """\
user::rw-
user:1000:r--
group::r--
group:33:rw-
mask::rw-
other::r--
"""


@pytest.mark.parametrize("engine", ["podman", "crun"])
def test_acls_and_capabilities_have_the_disk_s_ids_there_and_the_container_s_here(
    host: ThrowawayHost, engine: str
) -> None:
    fill(host)
    allocate(host, engine)
    furnish(host)
    usernsplan(host, "mount-volume", VOLUME, "--container", "web", "--mode", "shift")

    with ENGINES[engine](host) as run:
        seen = run(ACLS)
    shared = ["user::rw-", "user:33:r--", "group::---", "mask::r--", "other::---"]
    assert seen == [
        *shared,
        *("/vol/capable-cat", "cap_dac_override=ep"),
        *LISTED.split(),
        *("/vol/able", "cap_net_raw=ep"),
    ]

    assert host.run("getfacl", "-cnp", f"{VOLUME}/listed").stdout.strip() == LISTED.strip()
    assert "user:1000:r-x" in host.run("getfacl", "-cnp", f"{VOLUME}/default/heir").stdout
    # Version 2, which has no root of a namespace: it counts for whoever shows the file with its ids.
    able = host.inside(lambda: os.getxattr(f"{VOLUME}/able", "security.capability"))
    assert (len(able), able[3]) == (20, 2)
    through = host.run("getcap", "-n", f"{AT}/able").stdout
    assert through.split()[1:] == ["cap_net_raw=ep", f"[rootid={BASE}]"]


def test_where_the_source_has_nosuid_so_has_the_mount(host: ThrowawayHost) -> None:
    host.run("mkdir", KEPT)
    host.run("mount", "-t", "tmpfs", "-o", "nosuid,nodev", "tmpfs", KEPT)
    fill(host)
    allocate(host, "crun")
    furnish(host)
    usernsplan(host, "mount-volume", VOLUME, "--container", "web", "--mode", "shift")
    options = host.run("findmnt", "-no", "OPTIONS", AT).stdout.strip().split(",")
    assert {"nosuid", "nodev", "idmapped"} <= set(options)
    script = (
        f"{SETPRIV} --reuid 33 --clear-groups /vol/setuid-cat /vol/secret 2>/dev/null || echo no"
    )
    with crun(host) as run:
        assert run(script) == ["no"]


def test_what_the_image_has_is_not_copied_into_a_mount(host: ThrowawayHost) -> None:
    # Podman copies it into a volume with a name, and fails if that is an idmapped mount; a path is no such volume.
    fill(host)
    allocate(host, "podman")
    furnish(host)
    host.write(f"{recipes.ROOTFS}/vol/of-the-image", "")
    usernsplan(host, "mount-volume", VOLUME, "--container", "web", "--mode", "shift")
    with podman(host) as run:
        assert sorted(run("ls /vol")) == ["capable-cat", "data", "secret", "setuid-cat", "shared"]
    assert not host.exists(f"{VOLUME}/of-the-image")


def test_a_volume_with_a_name_over_an_empty_mount_takes_nocopy(host: ThrowawayHost) -> None:
    # Without it, Podman 4.3 copies as the host's root, which has no id there: EOVERFLOW.
    fill(host)
    allocate(host, "podman")
    furnish(host)
    host.write(f"{recipes.ROOTFS}/vol/of-the-image", "")
    host.run("mkdir", f"{KEPT}/empty")
    usernsplan(host, "mount-volume", f"{KEPT}/empty", "--container", "web", "--mode", "shift")
    flags = shlex.split(usernsplan(host, "render", "podman", "web"))
    recipes.podman_run(host, flags, ["true"])
    env = recipes.PODMAN_ENVIRONMENT
    device = AT.replace("content", "empty")
    options = [f"--opt={one}" for one in ("type=none", "o=bind", f"device={device}")]
    host.run("podman", "volume", "create", *options, "named", env=env)
    script = "ls /vol; touch /vol/made"
    said = recipes.podman_run(host, flags, ["sh", "-c", script], ["named:/vol:nocopy"])
    assert said == ""
    assert host.owner(f"{KEPT}/empty/made") == (0, 0)


def test_past_a_mount_that_is_gone_nobody_writes_until_the_note_s_command_was_run(
    host: ThrowawayHost,
) -> None:
    require("podman", "crun")
    fill(host)
    allocate(host, "podman")
    usernsplan(host, "mount-volume", VOLUME, "--container", "web", "--mode", "shift")
    host.run("umount", AT)
    words = ("render", "podman", "web", "--volume", f"{VOLUME}:/vol")
    told = host.run(sys.executable, "-m", "usernsplan", *words)
    flags = shlex.split(told.stdout)
    with pytest.raises(CommandFailed, match="Permission denied"):
        recipes.podman_run(host, flags, ["touch", "/vol/beside"])

    [command] = re.findall(r"run: usernsplan (mount-volume .+)$", told.stderr, re.MULTILINE)
    usernsplan(host, *shlex.split(command))
    again = host.run(sys.executable, "-m", "usernsplan", *words)
    assert (again.stdout, again.stderr) == (told.stdout, "")
    recipes.podman_run(host, flags, ["touch", "/vol/beside"])
    assert host.owner(f"{VOLUME}/beside") == (0, 0)
    host.run("umount", AT)
    assert host.run("ls", "-A", AT).stdout == ""


def test_a_single_file_and_a_mount_that_only_reads(host: ThrowawayHost) -> None:
    require("podman", "crun")
    fill(host)
    allocate(host, "podman")
    furnish(host)
    file = f"{VOLUME}/secret"
    shift = ("--container", "web", "--mode", "shift")
    usernsplan(host, "mount-volume", file, *shift, "--read-only")
    usernsplan(host, "mount-volume", f"{VOLUME}/data", *shift)
    volumes = ["--volume", f"{file}:/secret", "--volume", f"{VOLUME}/data/page:/page"]
    flags = shlex.split(usernsplan(host, "render", "podman", "web", *volumes))
    assert [flags[n + 1] for n, flag in enumerate(flags) if flag == "-v"] == [
        f"{AT}-secret:/secret:ro",
        f"{AT}-data/page:/page",
    ]
    script = (
        "cat /secret; { echo more >>/secret; } 2>/dev/null || echo no; echo more >>/page; cat /page"
    )
    said = recipes.podman_run(host, flags, ["sh", "-c", script]).split()
    assert said == ["secret", "no", "page", "more"]
    assert host.read(file) == b"secret\n"
