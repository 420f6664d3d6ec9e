"""What fix-volume did to a folder of root's files, judged by the engines whose containers then live in it.

Everything runs in a throw-away host, on the host's own ledger, without --root. What the container's own stat and cat
say is the oracle: before the fix it could neither read, nor write, nor create there.
"""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.command import slow
from tests.engines import recipes
from tests.engines.throwaway import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.engines.throwaway import ThrowawayHost

pytestmark = pytest.mark.usefixtures("volume_step")

VOLUME = "/tmp/content"
BASE = 589824  # where per-container begins to give ranges out

# Two programs that read a file as more than their caller: one by its setuid bit, one by its capability.
FILL = """
umask 022
mkdir -p "$1/data/deep"
cp "$(command -v cat)" "$1/setuid-cat"
cp "$(command -v cat)" "$1/capable-cat"
chmod 4755 "$1/setuid-cat"
setcap cap_dac_override+ep "$1/capable-cat"
echo secret >"$1/secret"
chmod 600 "$1/secret"
echo page >"$1/data/page"
echo log >"$1/data/deep/log"
chown 33:33 "$1/data/page"
chown 1000:100 "$1/data/deep/log"
chmod 640 "$1/data/page" "$1/data/deep/log"
ln -s page "$1/data/link"
chown -h 33:33 "$1/data/link"
"""

# Each line is a question that the container answers with what it sees, or with "no".
ASK = """
cat /vol/secret 2>/dev/null || echo no
{ echo more >>/vol/secret; } 2>/dev/null && echo wrote || echo no
{ echo new >/vol/created; } 2>/dev/null && echo created || echo no
{ echo new >/vol/data/deep/created; } 2>/dev/null && echo created || echo no
mkdir /vol/folder 2>/dev/null && echo made || echo no
"""
NOTHING = ["no"] * 5
EVERYTHING = ["secret", "wrote", "created", "created", "made"]

NAMES = (
    "",
    "/secret",
    "/setuid-cat",
    "/capable-cat",
    "/data",
    "/data/page",
    "/data/link",
    "/data/deep/log",
)
STAT = "stat -c '%u:%g %a' " + " ".join(f"/vol{name}" for name in NAMES)
MODES = ("755", "600", "4755", "755", "755", "640", "777", "640")
ROOT, WEB, PERSON = "0:0", "33:33", "1000:100"
# Who owns the names above: as they were made, and where everything belongs to one.
SEVERAL = (ROOT, ROOT, ROOT, ROOT, ROOT, WEB, WEB, PERSON)
NOBODY = "65534:65534"


def seen_as(owners: Sequence[str]) -> list[str]:
    return [f"{owner} {mode}" for owner, mode in zip(owners, MODES, strict=True)]


class Mode(NamedTuple):
    """Words of fix-volume, and whose the names are for the container afterwards."""

    words: tuple[str, ...]
    owners: tuple[str, ...]


# Volumes as Podman spells them mean the same, which needs no container to be seen.
MODES_OF_FIXING = pytest.mark.parametrize(
    "mode",
    [
        Mode((VOLUME,), (ROOT,) * len(NAMES)),
        Mode((VOLUME, "--mode", "shift"), SEVERAL),
        *slow(
            (Mode((f"{VOLUME}:/vol:U",), (ROOT,) * len(NAMES)),),
            (Mode((f"{VOLUME}:/vol:U", "--mode", "shift", "--container", "web"), SEVERAL),),
        ),
    ],
    ids=["own", "shift", "own-as-podman-spells-it", "shift-as-podman-spells-it"],
)


def usernsplan(host: ThrowawayHost, *words: str) -> str:
    return host.run(sys.executable, "-m", "usernsplan", *words).stdout


def fill(host: ThrowawayHost, path: str = VOLUME) -> list[str]:
    """Make a volume of root's and others' files; the libraries of its two programs, to be mounted as volumes."""
    require("setcap", "getcap", "ldd")
    host.run("sh", "-euc", FILL, "sh", path)
    words = host.run("ldd", f"{path}/setuid-cat").stdout.split()
    return sorted({f"{word}:{word}:ro" for word in words if word.startswith("/")})


class Podman:
    """Containers of one allocation, run by podman."""

    def __init__(self, host: ThrowawayHost, volumes: Sequence[str]) -> None:
        self.host = host
        self.flags = shlex.split(usernsplan(host, "render", "podman", "web"))
        self.volumes = [f"{VOLUME}:/vol:suid", *volumes]

    def sh(self, script: str, user: int = 0) -> list[str]:
        flags = [*self.flags, "--user", f"{user}:{user}"]
        return recipes.podman_run(self.host, flags, ["sh", "-c", script], self.volumes).splitlines()


class Crun:
    """The same, run by crun from the fragment of a config.json."""

    def __init__(self, host: ThrowawayHost, volumes: Sequence[str]) -> None:
        self.host = host
        self.fragment = json.loads(usernsplan(host, "render", "oci", "web"))
        mounts = [volume.split(":")[:2] for volume in volumes]
        host.run("mkdir", "-p", recipes.ROOTFS)
        recipes.busybox_rootfs(host, recipes.ROOTFS)
        for _, target in mounts:
            folder, _, _ = target.rpartition("/")
            host.run("mkdir", "-p", recipes.ROOTFS + folder)
            host.run("touch", recipes.ROOTFS + target)
        binds = [
            {"destination": there, "source": here, "options": ["rbind", "ro"]}
            for here, there in mounts
        ]
        self.fragment = recipes.merged(self.fragment, {"mounts": binds})

    def sh(self, script: str, user: int = 0) -> list[str]:
        fragment = recipes.merged(self.fragment, {"process": {"user": {"uid": user, "gid": user}}})
        return recipes.oci_run(
            self.host, "crun", fragment, ["sh", "-c", script], [(VOLUME, "/vol")]
        ).splitlines()


ENGINES = pytest.mark.parametrize("engine", [Podman, Crun])


@ENGINES
@MODES_OF_FIXING
def test_a_container_that_could_do_nothing_in_a_volume_lives_in_it_after_fix_volume(
    host: ThrowawayHost, engine: type[Podman | Crun], mode: Mode
) -> None:
    require("podman", "crun")
    volumes = fill(host)
    usernsplan(host, "allocate", "--strategy", "per-container", "web")
    container = engine(host, volumes)
    assert container.sh(ASK) == NOTHING
    assert container.sh(STAT) == seen_as([NOBODY] * len(NAMES))

    usernsplan(host, "fix-volume", *mode.words)
    assert container.sh(STAT) == seen_as(mode.owners)
    assert container.sh(ASK) == EVERYTHING
    assert host.owner(f"{VOLUME}/created") == (BASE, BASE)
    # User 33 may not read the secret, but the owner of a setuid program may, and so may one with a capability.
    read = "for cat in cat /vol/setuid-cat /vol/capable-cat; do $cat /vol/secret 2>/dev/null || echo no; done"
    assert container.sh(read, user=33) == ["no", "secret", "more", "secret", "more"]


@pytest.mark.parametrize("user", [0, 33])
def test_own_gives_every_name_the_owner_that_podmans_own_u_option_gives_it(
    host: ThrowawayHost, user: int
) -> None:
    require("podman", "crun")
    fill(host)
    fill(host, "/tmp/other")
    usernsplan(host, "allocate", "--strategy", "per-container", "web")
    flags = [*shlex.split(usernsplan(host, "render", "podman", "web")), "--user", f"{user}:{user}"]
    recipes.podman_run(host, flags, ["true"], ["/tmp/other:/vol:U"])
    usernsplan(host, "fix-volume", VOLUME, *(["--user", f"{user}:{user}"] if user else []))
    owners = {name: host.owner(VOLUME + name) for name in NAMES}
    assert owners == {name: host.owner(f"/tmp/other{name}") for name in NAMES}
    assert set(owners.values()) == {(BASE + user, BASE + user)}


def test_a_volume_goes_from_one_container_to_another_and_back_to_the_host(
    host: ThrowawayHost,
) -> None:
    require("podman", "crun")
    volumes = fill(host)
    on_the_host = host.run("sh", "-c", STAT.replace("/vol", VOLUME)).stdout
    usernsplan(host, "allocate", "--strategy", "per-container", "web")
    web = Podman(host, volumes)
    usernsplan(host, "fix-volume", VOLUME, "--mode", "shift")
    assert web.sh(STAT) == seen_as(SEVERAL)

    # In the range of db the same names have the same owners, and for web they are nobody's.
    usernsplan(host, "allocate", "--strategy", "per-container", "db")
    usernsplan(host, "fix-volume", VOLUME, "--from", "web", "--container", "db", "--keep-power")
    assert web.sh(STAT) == seen_as([NOBODY] * len(NAMES))
    assert web.sh(ASK) == NOTHING
    flags = shlex.split(usernsplan(host, "render", "podman", "db"))
    seen = recipes.podman_run(host, flags, ["sh", "-c", f"{STAT}; {ASK}"], [f"{VOLUME}:/vol"])
    assert seen.splitlines() == [*seen_as(SEVERAL), *EVERYTHING]

    usernsplan(host, "fix-volume", VOLUME, "--container", "db", "--reverse", "--keep-power")
    assert host.run("sh", "-c", STAT.replace("/vol", VOLUME)).stdout == on_the_host
    assert host.run("getcap", f"{VOLUME}/capable-cat").stdout.split() == [
        f"{VOLUME}/capable-cat",
        "cap_dac_override=ep",
    ]


def test_dockers_containers_live_in_a_volume_that_was_shifted_for_the_daemon(
    host: ThrowawayHost,
) -> None:
    require("dockerd", "docker")
    volumes = [f"{VOLUME}:/vol", *fill(host)]
    usernsplan(host, "allocate", "--strategy", "per-container")
    with recipes.dockerd(host) as docker:
        assert docker.run(["sh", "-c", ASK], volumes).splitlines() == NOTHING
        usernsplan(host, "fix-volume", VOLUME, "--mode", "shift")
        assert docker.run(["sh", "-c", STAT], volumes).splitlines() == seen_as(SEVERAL)
        assert docker.run(["sh", "-c", ASK], volumes).splitlines() == EVERYTHING


def test_a_volume_of_a_container_with_one_id_is_its_own(host: ThrowawayHost) -> None:
    require("podman", "crun")
    fill(host)
    usernsplan(host, "allocate", "--strategy", "single-uid", "web")
    flags = shlex.split(usernsplan(host, "render", "podman", "web"))
    usernsplan(host, "fix-volume", VOLUME)
    seen = recipes.podman_run(host, flags, ["sh", "-c", f"{STAT}; {ASK}"], [f"{VOLUME}:/vol"])
    assert seen.splitlines() == [*seen_as([ROOT] * len(NAMES)), *EVERYTHING]
