"""What render prints for Podman, Quadlet and --userns=auto, judged by podman: the maps, and whose the files then are.

Everything runs in a throw-away host, on the host's own /etc, without --root.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.command import slow
from tests.engines import recipes, recipes_podman_auto
from tests.engines.throwaway import require

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.engines.throwaway import ThrowawayHost

BASE = 589824  # where per-container begins to give ranges out
POOL = range(BASE, BASE + 3 * 65536)

# The words of an allocation, the host ids of its container's root, and a container id that it has besides, on the host.
PER_CONTAINER = (("per-container",), BASE, (33, BASE + 33))
SINGLE_UID = (("single-uid",), 1000000000, (0, 1000000000))
SHARED = (("shared", "--dockerroot", "7"), 7, (33, 33))
STRATEGIES = pytest.mark.parametrize(
    ("words", "root", "other"),
    [PER_CONTAINER, *slow(SINGLE_UID), SHARED],
    ids=["per-container", "single-uid", "shared"],
)

# Where podman's generator of units is, from 4.4 on.
GENERATORS = (
    "/usr/libexec/podman/quadlet",
    "/usr/lib/systemd/system-generators/podman-system-generator",
)
# What a key of [Container] stands for, podman-systemd.unit(5).
FLAGS = {
    "UIDMap": "--uidmap={}",
    "GIDMap": "--gidmap={}",
    "Volume": "--volume={}",
    "ContainerName": "--name={}",
    "NoNewPrivileges": "--security-opt=no-new-privileges",
}

ASK = "cat /proc/self/uid_map; echo gids; cat /proc/self/gid_map"


def usernsplan(host: ThrowawayHost, *words: str) -> str:
    return host.run(sys.executable, "-m", "usernsplan", *words).stdout


def planned(host: ThrowawayHost, name: str = "web") -> list[recipes.Line]:
    return recipes.lines(usernsplan(host, "render", "uid_map", name))


def maps(said: str) -> tuple[list[recipes.Line], list[recipes.Line]]:
    uid_map, _, gid_map = said.partition("gids\n")
    return recipes.lines(uid_map), recipes.lines(gid_map)


def folder(host: ThrowawayHost, path: str, owner: int = 0) -> None:
    """A folder with a file in it, of one owner, for that owner alone."""
    host.run(
        "sh",
        "-euc",
        'mkdir "$1"; echo old >"$1/old"; chmod 600 "$1/old"; chown -R "$2:$2" "$1"',
        "sh",
        path,
        str(owner),
    )


def written(name: str) -> str:
    """What a container does in a volume: read what is there and make something; any failure ends it."""
    return f"cat {name}/old; echo new >{name}/new"


def flags_of(container_file: str) -> tuple[list[str], str]:
    """Translate a .container file into podman run's flags, and its image."""
    section, *lines = container_file.split()
    assert section == "[Container]"
    keys = [line.split("=", 1) for line in lines]
    flags = [FLAGS[key].format(value) for key, value in keys if key != "Image"]
    assert [value for key, value in keys if key == "NoNewPrivileges"] == ["true"]
    return flags, "".join(value for key, value in keys if key == "Image")


@STRATEGIES
def test_roots_flags_mount_each_volume_so_that_the_container_can_live_in_it(
    host: ThrowawayHost, words: tuple[str, ...], root: int, other: tuple[int, int]
) -> None:
    require("podman", "crun")
    usernsplan(host, "allocate", "--strategy", *words, "web")
    for path in ("/tmp/fixed", "/tmp/chowned", "/tmp/mapped", "/tmp/chosen"):
        folder(host, path)
    usernsplan(host, "fix-volume", "/tmp/fixed", "--container", "web")
    volumes = [
        "/tmp/fixed:/fixed",
        "/tmp/chowned:/chowned:U",
        "/tmp/mapped:/mapped:idmap",
        "/tmp/chosen:/chosen",
    ]
    volumes += ["/tmp/fixed:/seen:ro"]
    said = usernsplan(
        host, "render", "podman", "web", *(word for it in volumes for word in ("--volume", it))
    )
    flags = shlex.split(said)
    # A volume that was not fixed is mapped where it can be.
    assert [flags[n + 1] for n, flag in enumerate(flags) if flag == "-v"] == [
        *volumes[:3],
        "/tmp/chosen:/chosen:idmap",
        "/tmp/fixed:/seen:ro",
    ]
    names = ["/fixed", "/chowned", "/mapped", "/chosen"]
    container, on_host = other
    script = "\n".join(
        [
            "set -e",
            *map(written, names),
            f"for name in {' '.join(names)}; do touch $name/other; chown {container}:{container} $name/other; done",
            "touch /seen/new 2>/dev/null && exit 1",
            ASK,
        ]
    )
    said = recipes.podman_run(host, flags, ["sh", "-c", script])
    assert said.startswith("old\n" * 4)
    assert maps(said.removeprefix("old\n" * 4)) == (planned(host), planned(host))
    # In a volume whose ids are mapped at the mount, container ids stand on the disk.
    for name in ("fixed", "chowned"):
        assert {host.owner(f"/tmp/{name}{file}") for file in ("", "/old", "/new")} == {(root, root)}
        assert host.owner(f"/tmp/{name}/other") == (on_host, on_host)
    for name in ("mapped", "chosen"):
        assert {host.owner(f"/tmp/{name}{file}") for file in ("", "/old", "/new")} == {(0, 0)}
        assert host.owner(f"/tmp/{name}/other") == (container, container)


def test_a_volume_that_cannot_be_mapped_or_is_anothers_says_what_gives_it_and_that_does(
    host: ThrowawayHost,
) -> None:
    require("podman", "crun")
    usernsplan(host, "allocate", "--strategy", "per-container", "web", "db")
    # The host's / is an overlay, which has no mapped mounts; and one of two folders was given to db.
    for path in ("/srv/one", "/srv/two"):
        folder(host, path)
    usernsplan(host, "fix-volume", "/srv/two", "--container", "db")
    volumes = ["--volume", "/srv/one:/one", "--volume", "/srv/two:/two"]
    refused = host.run(
        sys.executable,
        "-m",
        "usernsplan",
        "render",
        "podman",
        "web",
        *volumes[:-1],
        "/srv/two:/two:idmap",
        check=False,
    )
    assert refused.returncode == 9
    assert "fix-volume /srv/two --container web --from db" in refused.stderr
    told = json.loads(usernsplan(host, "render", "podman", "web", *volumes, "--json"))
    assert told["text"].endswith(" -v /srv/one:/one -v /srv/two:/two")
    for command in re.findall(r"usernsplan (fix-volume [^'\n]*)", "\n".join(told["notes"])):
        usernsplan(host, *shlex.split(command))
    script = f"set -e; {written('/one')}; {written('/two')}"
    assert recipes.podman_run(host, shlex.split(told["text"]), ["sh", "-c", script]) == "old\nold\n"
    assert host.owner("/srv/one/new") == host.owner("/srv/two/new") == (BASE, BASE)
    assert (
        json.loads(usernsplan(host, "render", "podman", "web", *volumes, "--json"))["notes"] == []
    )


@pytest.mark.parametrize(
    ("words", "root"),
    [words[:2] for words in (PER_CONTAINER, SINGLE_UID, SHARED)],
    ids=["per-container", "single-uid", "shared"],
)
def test_a_container_file_says_what_podman_run_makes_of_it(
    host: ThrowawayHost, words: tuple[str, ...], root: int
) -> None:
    require("podman", "crun")
    usernsplan(host, "allocate", "--strategy", *words, "web")
    folder(host, "/tmp/vol")
    words = ("render", "quadlet", "web", "--volume", "/tmp/vol:/vol:U", "--out", "/")
    usernsplan(host, *words, "--image", recipes.IMAGE)
    flags, image = flags_of(host.read("/etc/containers/systemd/web.container").decode())
    assert image == recipes.IMAGE
    script = f"set -e; {written('/vol')}; {ASK}; echo more; grep NoNewPrivs /proc/self/status"
    said, _, more = recipes.podman_run(host, flags, ["sh", "-c", script]).partition("more\n")
    assert maps(said.removeprefix("old\n")) == (planned(host), planned(host))
    assert more.split() == ["NoNewPrivs:", "1"]
    assert host.owner("/tmp/vol/new") == (root, root)
    # Without the image, the same for a file that says it.
    usernsplan(host, *words)
    rest, image = flags_of(
        host.read("/etc/containers/systemd/web.container.d/10-usernsplan.conf").decode()
    )
    assert (["--name=web", *rest], image) == (flags, "")


@pytest.mark.parametrize(
    "image", [(), ("--image", "docker.io/library/busybox:latest")], ids=["drop-in", "whole"]
)
def test_podmans_generator_makes_these_flags_of_the_file(
    host: ThrowawayHost, image: tuple[str, ...]
) -> None:
    require("podman")
    generator = next((path for path in GENERATORS if host.exists(path)), None)
    version = [int(number) for number in re.findall(r"\d+", host.run("podman", "--version").stdout)]
    if generator is None or (version < [5] and not image):
        # Then the flags that the file stands for are all there is to run: see the test above.
        assert version < ([4, 4] if generator is None else [5])
        return
    usernsplan(host, "allocate", "--strategy", "shared", "web")
    if not image:
        host.write("/etc/containers/systemd/web.container", "[Container]\nImage=localhost/x\n")
    usernsplan(host, "render", "quadlet", "web", *image, "--volume", "/tmp:/vol:U", "--out", "/")
    said = host.run(generator, "--dryrun").stdout
    [command] = re.findall("^ExecStart=(.*)$", said, re.MULTILINE)
    flags = shlex.split(usernsplan(host, "render", "podman", "web", "--volume", "/tmp:/vol:U"))
    words = [word for said in shlex.split(command) for word in said.split("=", 1)]
    for flag, value in zip(flags[::2], flags[1::2], strict=True):
        assert (flag, value) in pairwise(words)
    assert "no-new-privileges" in " ".join(words)


def test_two_automatic_containers_have_disjoint_parts_of_the_pool(host: ThrowawayHost) -> None:
    require("podman", "crun")
    usernsplan(
        host,
        "allocate",
        "--strategy",
        "per-container",
        "--engine",
        "podman-auto",
        "--auto-containers",
        "3",
    )
    folder(host, "/tmp/vol")
    flags = shlex.split(usernsplan(host, "render", "podman-auto", "containers"))
    mount = shlex.split(
        usernsplan(host, "render", "podman-auto", "containers", "--volume", "/tmp/vol:/vol:U")
    )
    with (
        recipes_podman_auto.podman_container(host, mount) as one,
        recipes_podman_auto.podman_container(host, flags) as two,
    ):
        assert one.run(["sh", "-c", written("/vol")]) == "old\n"
        found = [maps(each.run(["sh", "-c", ASK])) for each in (one, two)]
    assert_disjoint(found)
    [(_, start, _)] = found[0][0]
    assert host.owner("/tmp/vol/new") == (start, start)


def test_with_the_files_every_container_is_an_automatic_one(host: ThrowawayHost) -> None:
    require("podman", "crun")
    usernsplan(
        host,
        "allocate",
        "--strategy",
        "per-container",
        "--engine",
        "podman-auto",
        "--auto-containers",
        "3",
    )
    words = ("render", "podman-auto", "containers", "--out", "/")
    drop_in = "/etc/containers/containers.conf.d/10-usernsplan.conf"
    # Podman reads no other storage.conf beside the one in /etc, and half a one is none.
    host.run("rm", "-f", recipes_podman_auto.STORAGE_CONF)
    assert host.run(sys.executable, "-m", "usernsplan", *words, check=False).returncode == 9
    assert not host.exists(drop_in)
    others = (
        "\n[storage.options]\n# kept\nauto-userns-min-size = 1024\nadditionalimagestores = []\n"
    )
    host.write(recipes_podman_auto.STORAGE_CONF, recipes.STORAGE_CONF + others)
    # Another size stands there: it is replaced only when that is meant.
    assert host.run(sys.executable, "-m", "usernsplan", *words, check=False).returncode == 9
    assert not host.exists(drop_in)
    usernsplan(host, *words, "--replace-files")
    assert host.exists(drop_in)
    assert "Already up to date" in usernsplan(host, *words)
    assert {"# kept", "additionalimagestores = []"} <= set(
        host.read(recipes_podman_auto.STORAGE_CONF).decode().splitlines()
    )
    start = recipes_podman_auto.podman_container
    with start(host) as one, start(host) as two, start(host) as three:
        assert_disjoint([maps(each.run(["sh", "-c", ASK])) for each in (one, two, three)])
        with pytest.raises(AssertionError, match="not find enough available IDs"):
            recipes_podman_auto.podman_configured(host, [], ["true"])
    # One that has a map of its own keeps it.
    usernsplan(host, "allocate", "--strategy", "per-container", "web")
    named = shlex.split(usernsplan(host, "render", "podman", "web"))
    seen = maps(recipes_podman_auto.podman_configured(host, named, ["sh", "-c", ASK]))
    assert seen == (planned(host), planned(host))
    assert planned(host) == [(0, POOL.stop, 65536)]


def assert_disjoint(found: Iterable[tuple[list[recipes.Line], list[recipes.Line]]]) -> None:
    """Each container has one whole slot of the pool, the same for uids and gids, and no two the same."""
    starts = []
    for uids, gids in found:
        [(container, start, count)] = uids
        assert uids == gids
        assert (container, count) == (0, 65536)
        assert start in POOL[::65536]
        starts.append(start)
    assert len(set(starts)) == len(starts)
