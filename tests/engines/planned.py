"""What usernsplan planned and rendered in a throw-away host, and what a container of a real engine then has to see.

The checks here are the same for every engine. An engine's own tests hand over how it runs a script from what was
rendered; the script prints what the container sees.
"""

from __future__ import annotations

import re
import shlex
import sys
from typing import TYPE_CHECKING

import pytest

from tests.command import slow
from tests.engines import recipes

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable

    from tests.engines.throwaway import ThrowawayHost

    # What was rendered, and a shell script -> what the script prints in the container.
    Run = Callable[[str, str], str]

# The words of an allocation, a container id in it, and the host id that the strategy's definition gives it.
PER_CONTAINER = (("--strategy", "per-container"), 33, 589824 + 33)
SINGLE_UID = (("--strategy", "single-uid"), 0, 1000000000)
SHARED = (("--strategy", "shared", "--dockerroot", "7"), 0, 7)
STRATEGIES = pytest.mark.parametrize(
    ("words", "container", "expected"),
    [SHARED, *slow(PER_CONTAINER, SINGLE_UID)],
    ids=["shared", "per-container", "single-uid"],
)

# Everybody may write here, and the kernel does not map the ids of an overlay.
OPEN = "/srv/open"
# On a tmpfs, whose ids the kernel does map: one that fix-volume gives to the container, and one that nobody fixed.
FIXED, UNFIXED = "/tmp/fixed", "/tmp/unfixed"
# All that is let through into formats without quotes; and what those with quotes can bear.
ODD = "/tmp/A_z.0+1-2~3=4@5ü"
ODDER = f"{ODD} \"6\" '7' $HOME %8 #9: \\n"

MAPS = "cat /proc/self/uid_map; echo; cat /proc/self/gid_map; echo\n"

# Arguments: a folder, a container id.
MAKE = """
touch {0}/made
chown {1}:{1} {0}/made
"""
LIVE = """
stat -c '%u:%g' {0}/old
cat {0}/old
echo more >>{0}/more
touch {0}/other
chown {1}:{1} {0}/other
stat -c '%u:%g' {0}/more {0}/other
"""
READ = """
cat {0}/old
{{ echo more >>{0}/old; }} 2>/dev/null || echo no
touch {0}/new 2>/dev/null || echo no
chown 0:0 {0}/old 2>/dev/null || echo no
"""


def usernsplan(
    host: ThrowawayHost, *words: str, status: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run it inside, on the host's own /etc; expect this exit status, and never a traceback."""
    done = host.run(sys.executable, "-m", "usernsplan", *words, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == status, (
        f"{words}: status {done.returncode}\n{done.stdout}\n{done.stderr}"
    )
    return done


def allocate(host: ThrowawayHost, engine: str, *words: str) -> None:
    """Allocate web for an engine: named, so that the result does not depend on what is installed."""
    usernsplan(host, "allocate", *words, "web", "--engine", engine)


def render(host: ThrowawayHost, engine: str, *volumes: str) -> subprocess.CompletedProcess[str]:
    """Return what an engine reads for web, and the notes."""
    return usernsplan(host, "render", engine, "web", *_words(volumes))


def _words(volumes: Iterable[str]) -> list[str]:
    return [word for volume in volumes for word in ("--volume", volume)]


def make_volume(host: ThrowawayHost, path: str = UNFIXED) -> str:
    """Make a volume of host root's, with a file that nobody else may read."""
    host.run("install", "-d", path)
    host.write(f"{path}/old", "old\n", mode=0o600)
    return path


def maps(host: ThrowawayHost, name: str = "web") -> tuple[list[recipes.Line], list[recipes.Line]]:
    """Return the planned maps of uids and gids."""
    uids, gids = (
        recipes.lines(usernsplan(host, "render", kind, name).stdout)
        for kind in ("uid_map", "gid_map")
    )
    return uids, gids


def shown(said: str) -> tuple[list[recipes.Line], list[recipes.Line]]:
    """Read the maps that MAPS printed."""
    uids, gids, *_ = said.split("\n\n")
    return recipes.lines(uids), recipes.lines(gids)


def check(
    host: ThrowawayHost,
    engine: str,
    run: Run,
    container: int,
    expected: int,
    *,
    idmap: str | None = None,
    out: bool = False,
) -> None:
    """Everything that one container can show: its maps, and volumes of each kind, to be written and only to be read.

    ``idmap`` is the option that makes the engine map the ids of a mount; None: it does not. ``out``: the files are
    brought to their places before it runs.
    """
    host.run("install", "-d", "-m", "777", OPEN)
    usernsplan(host, "fix-volume", make_volume(host, FIXED))
    volumes = [f"{OPEN}:/open", f"{FIXED}:/fixed", f"{FIXED}:/fixed-ro:ro"]
    if idmap is not None:
        make_volume(host, UNFIXED)
        comma = "," if idmap else ""
        volumes += [
            f"{UNFIXED}:/mapped{':' * bool(idmap)}{idmap}",
            f"{UNFIXED}:/mapped-ro:ro{comma}{idmap}",
        ]
    rendered = render(host, engine, *volumes)
    if out:
        usernsplan(host, "render", engine, "web", *_words(volumes), "--out", "/")
    check_notes(rendered.stderr, mapped=idmap is not None)
    lived = ["0:0", "old", "0:0", f"{container}:{container}"]
    read = ["old", "no", "no", "no"]
    script = (
        MAPS
        + MAKE.format("/open", container)
        + LIVE.format("/fixed", container)
        + READ.format("/fixed-ro")
    )
    if idmap is not None:
        script += LIVE.format("/mapped", container) + READ.format("/mapped-ro")

    said = run(rendered.stdout, script)

    planned = maps(host)
    assert shown(said) == planned
    assert said.split("\n\n", 2)[2].split() == [*lived, *read] * (1 if idmap is None else 2)
    root = planned[0][0][1]
    assert host.owner(f"{OPEN}/made") == (expected, expected)
    assert host.owner(f"{FIXED}/old") == host.owner(f"{FIXED}/more") == (root, root)
    assert host.owner(f"{FIXED}/other") == (expected, expected)
    if idmap is not None:
        # On the disk the ids are those that they are in the container.
        assert host.owner(f"{UNFIXED}/old") == host.owner(f"{UNFIXED}/more") == (0, 0)
        assert host.owner(f"{UNFIXED}/other") == (container, container)
    assert host.read(f"{FIXED}/old") == b"old\n"


def check_notes(notes: str, *, mapped: bool) -> None:
    """Of a volume that was fixed nothing is said, of one that was not how to, of a mapped one to beware."""
    assert FIXED not in notes
    assert f"usernsplan fix-volume {OPEN} --container web\n" in notes
    assert f"fix-volume {UNFIXED}" not in notes
    assert (f"{UNFIXED}: files that container root makes there belong to" in notes) == mapped


def check_closed(host: ThrowawayHost, engine: str, run: Run, option: str = "") -> None:
    """The note on an idmapped volume wants that nobody else gets at it: the engine does."""
    host.run("chmod", "700", make_volume(host))
    rendered = render(host, engine, f"{UNFIXED}:/vol{option}")
    assert "mode 700" in rendered.stderr
    assert run(rendered.stdout, "cat /vol/old").split() == ["old"]


def check_mounts_inside(host: ThrowawayHost, engine: str, run: Run) -> None:
    """A volume in which something is mounted: not every engine can map its ids, and the container starts with it."""
    volume = make_volume(host)
    host.run("mkdir", f"{volume}/inside")
    host.run("mount", "-t", "tmpfs", "tmpfs", f"{volume}/inside")
    host.write(f"{volume}/inside/file", "")
    rendered = render(host, engine, f"{volume}:/vol")
    look = "ls /vol /vol/inside"
    seen = run(rendered.stdout, look).split()
    assert seen == ["/vol:", "inside", "old", "/vol/inside:", "file"]
    if "idmap=" in rendered.stdout or ":idmap" in rendered.stdout:
        assert run(rendered.stdout, "cat /vol/old").split() == ["old"]
    else:
        assert f"usernsplan fix-volume {volume} --container web\n" in rendered.stderr
    usernsplan(host, "fix-volume", volume)
    assert run(render(host, engine, f"{volume}:/vol").stdout, f"{look}; cat /vol/old").split() == [
        *seen,
        "old",
    ]


def check_owned(host: ThrowawayHost, engine: str, run: Run) -> None:
    """A volume that has the planned owner, whoever saw to that, is mounted as it is: an idmap would take it away."""
    volume = make_volume(host)
    host.run("chown", "-R", "589824:589824", volume)
    rendered = render(host, engine, f"{volume}:/vol")
    assert run(rendered.stdout, "cat /vol/old || echo no").split() == ["old"]


def check_reallocated(host: ThrowawayHost, engine: str, run: Run) -> None:
    """A volume that was fixed for a container of this name before it was released carries other ids."""
    volume = make_volume(host)
    usernsplan(host, "fix-volume", volume)
    usernsplan(host, "release", "web")
    allocate(host, engine, "--strategy", "per-container")
    rendered = render(host, engine, f"{volume}:/vol")
    assert host.owner(f"{volume}/old") == (589824, 589824)
    if run(rendered.stdout, "cat /vol/old 2>/dev/null || echo no").split() == ["no"]:
        assert "fix-volume" in rendered.stderr


def check_note_on_volume(host: ThrowawayHost, engine: str, run: Run, path: str) -> None:
    """Where nothing maps the ids of a mount, a note says the command that makes the volume the container's."""
    make_volume(host, path)
    rendered = render(host, engine, f"{path}:/vol")
    [command] = re.findall(r"usernsplan (fix-volume .+)$", rendered.stderr, re.MULTILINE)
    read = "cat /vol/old 2>/dev/null || echo no"
    assert run(rendered.stdout, read).split() == ["no"]
    usernsplan(host, *shlex.split(command))
    shown = run(rendered.stdout, read)
    assert shown.split() == ["old"], shown
    again = render(host, engine, f"{path}:/vol")
    assert again.stdout == rendered.stdout
    assert "fix-volume" not in again.stderr


def check_odd_path(host: ThrowawayHost, engine: str, run: Run) -> None:
    """Every character that is let through arrives as it is."""
    make_volume(host, ODD)
    usernsplan(host, "fix-volume", ODD)
    destination = f"/{ODD.rpartition('/')[2]}"
    rendered = render(host, engine, f"{ODD}:{destination}")
    assert run(rendered.stdout, f"cat {destination}/old").split() == ["old"]


def refusing(engine: str) -> str:
    """What is printed in place of flags, for an engine that is given flags: one that it refuses."""
    return (
        "--userns=usernsplan-failed\n"
        if engine in {"podman", "podman-auto", "containerd", "nspawn"}
        else ""
    )


def check_refused(host: ThrowawayHost, engine: str, why: str) -> list[str]:
    """Nothing is printed but why not, and the engines that can; return these."""
    refused = usernsplan(host, "render", engine, "web", status=9)
    assert refused.stdout == refusing(engine)
    assert why in refused.stderr
    [others] = re.findall(r"^  (.+) can$", refused.stderr, re.MULTILINE)
    able: list[str] = others.split(", ")
    assert "oci" in able
    assert engine not in able
    return able


def check_no_idmap(host: ThrowawayHost, engine: str) -> None:
    """Who asks for an idmap that the engine does not have is told so, and what to do instead."""
    make_volume(host)
    refused = usernsplan(
        host, "render", engine, "web", "--volume", f"{UNFIXED}:/vol:idmap", status=9
    )
    assert refused.stdout == refusing(engine)
    assert f"usernsplan fix-volume {UNFIXED} --container web\n" in refused.stderr
