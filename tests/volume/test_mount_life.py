"""The life of a mount: what takes it away, what keeps it, and what must not be done beneath it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.command import here, needs_root
from usernsplan.host import idmap
from usernsplan.host.files import layout_at
from usernsplan.host.mounts import all_mounts
from usernsplan.ledger import open_ledger
from usernsplan.model import Actor, Intent, LedgerChange, Volume

if TYPE_CHECKING:
    from tests.volume.tree import Host

    Run = Callable[..., tuple[str, str]]

pytestmark = needs_root

# The first slots of the default pool.
FIRST, SECOND, THIRD = 589824, 655360, 720896
SHOWN = (
    "import sys\nfrom usernsplan.cli import main\n"
    "try:\n    main()\nexcept SystemExit:\n    pass\nprint(*sys.modules, file=sys.stderr)"
)
AT = "run/usernsplan/volumes/web/srv-web"


@pytest.fixture
def root(host: Host) -> Path:
    root = host.root
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "srv/web").mkdir()
    here("allocate", "--strategy", "per-container", "web", "db", "--root", root)
    return root


@pytest.fixture
def run(root: Path) -> Run:
    def run(words: str, status: int | None = 0) -> tuple[str, str]:
        return here(*words.replace("ROOT", str(root)).split(), "--root", root, status=status)

    return run


def of(run: Run, words: str, status: int | None = 0) -> Any:  # noqa: ANN401 - a document
    return json.loads(run(f"{words} --json", status)[0])


def mounted(run: Run, words: str = "/srv/web --container web --mode shift") -> str:
    """Mount a volume; the name of the run."""
    name = of(run, f"mount-volume {words}")["run"]
    assert isinstance(name, str)
    return name


def standing(root: Path) -> list[str]:
    """The idmapped mounts below the root."""
    top = f"{root}/"
    points = (m.point for m in all_mounts() if m.is_idmapped)
    return sorted(point.removeprefix(top) for point in points if point.startswith(top))


def seen(root: Path, at: str = AT) -> tuple[int, int]:
    """The owner that a mount shows."""
    found = (root / at).stat()
    return found.st_uid, found.st_gid


def test_a_mount_point_names_its_run(root: Path, run: Run) -> None:
    name = mounted(run)
    assert "srv/web unmounted for web" in run(f"undo /{AT}")[0]
    assert standing(root) == []
    assert not (root / "run/usernsplan/volumes/web").exists()
    assert f"run {name} is already undone" in run(f"undo {name}")[1]
    out, err = run(f"undo /{AT}", 1)
    assert (out, "no mount of a volume is recorded at" in err) == ("", True)


def test_a_mount_point_of_several_is_not_undone_alone(root: Path, run: Run) -> None:
    (root / "srv/other").mkdir()
    name = mounted(run, "/srv/web /srv/other --container web --mode shift")
    error = run(f"undo /{AT}", 9)[1]
    assert f"usernsplan undo {name} --root {root}" in error
    assert len(standing(root)) == 2
    run(f"undo {name}")
    assert standing(root) == []


def test_what_was_unmounted_by_hand_is_forgotten(root: Path, run: Run) -> None:
    mounted(run)
    subprocess.run(["umount", root / AT], check=True)
    assert "was not mounted any more" in run("undo --last")[1]
    assert not (root / AT).exists()
    assert "was taken away" in run("history")[0]


def test_after_a_reboot_nothing_is_left_of_it(root: Path, run: Run) -> None:
    (root / "run").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", root / "run"], check=True)
    mounted(run)
    subprocess.run(["umount", "--recursive", root / "run"], check=True)
    assert "was not mounted any more" in run("undo --last")[1]
    assert "no mount of a volume is recorded" in run(f"undo /{AT}", 1)[1]


@pytest.mark.parametrize("what", ["tmpfs", "another folder with the same map"])
def test_what_somebody_mounted_over_it_stays(root: Path, run: Run, what: str) -> None:
    mounted(run)
    if what == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", root / AT], check=True)
    else:
        mounted(run, "/srv/vol --container web --mode shift")
        over = root / "run/usernsplan/volumes/web/srv-vol"
        subprocess.run(["mount", "--bind", over, root / AT], check=True)
    error = run(f"undo /{AT}", 3)[0]
    assert f"something else is mounted there; unmount that first: umount {root / AT}" in error
    subprocess.run(["umount", root / AT], check=True)
    assert seen(root) == (FIRST, FIRST)
    # Nothing was done, so the run is as it was, and nothing waits for the end of the undo.
    assert not of(run, "check --select USN070")["findings"]
    run("mount-volume /srv/web --container web --mode shift")
    run(f"undo /{AT}")
    assert AT not in standing(root)


def test_an_older_run_does_not_take_away_the_mount_of_a_later_one(root: Path, run: Run) -> None:
    first = mounted(run)
    subprocess.run(["umount", root / AT], check=True)
    second = mounted(run)
    assert first != second
    for words in (f"undo {first} --dry-run", f"undo {first}"):
        note = run(words)[1]
        assert f"is a mount of the later run {second} now, and stays" in note
        assert standing(root) == [AT]
    run(f"undo {second}")
    assert standing(root) == []


def test_the_last_run_is_one_with_a_mount_too(root: Path, run: Run) -> None:
    run("fix-volume /srv/vol --container db")
    name = mounted(run)
    assert f"the last run is {name}" in run("undo --last")[1]
    assert standing(root) == []
    assert (root / "srv/vol").stat().st_uid == SECOND


def test_the_history_says_how_each_run_gave_its_volumes(run: Run) -> None:
    run("fix-volume /srv/vol --container db")
    mounted(run)
    assert [one["method"] for one in of(run, "history --runs")["runs"]] == ["chown", "idmap"]
    rows = run("history --runs")[0].splitlines()
    assert [row.split()[4] for row in rows[2:]] == ["chown", "idmap"]


def test_the_journal_of_a_mount_is_kept_while_the_ledger_has_it(root: Path, run: Run) -> None:
    name = mounted(run)
    kept = of(run, "history --prune-runs --older-than 0d")
    assert kept["removed"] == []
    assert [(one["run"], str(root / AT) in one["reason"]) for one in kept["kept"]] == [(name, True)]
    run(f"undo {name}")
    pruned = of(run, "history --prune-runs --older-than 0d")
    assert [one["run"] for one in pruned["removed"]] == [name]


@pytest.mark.parametrize(
    "words",
    [
        "fix-volume /srv/web --container web --mode shift",
        "fix-volume /srv/web --container db --take",
        "fix-volume /srv --container web --protected",
        "fix-volume /srv/web/in --container web",
        "fix-volume /srv/web --container web --mode shift --reverse --take",
        "fix-volume /srv/web --uid-map 0:300000:65536 --gid-map 0:300000:65536 --mode shift",
    ],
)
def test_owners_on_disk_do_not_change_beneath_a_mount(root: Path, run: Run, words: str) -> None:
    (root / "srv/web/in").mkdir()
    name = mounted(run)
    for more in ("", " --dry-run"):
        error = run(words + more, 9)[1]
        assert f"mounted for 'web' at {root / AT}" in error
        assert f"usernsplan undo {name} --root {root}" in error
    assert (root / "srv/web/in").stat().st_uid == 0
    run(f"undo {name}")
    run(f"{words} --dry-run")


def test_a_run_beneath_a_mount_is_not_undone(root: Path, run: Run) -> None:
    run("fix-volume /srv/vol --container db")
    given = of(run, "history --runs")["runs"][0]["run"]
    name = mounted(run, "/srv/vol --container web --mode own --take")
    assert f"undo {name}" in run(f"undo {given}", 9)[1]
    assert (root / "srv/vol").stat().st_uid == SECOND
    run(f"undo {name}")
    run(f"undo {given}")
    assert (root / "srv/vol").stat().st_uid == 0


@pytest.mark.parametrize("path", ["/srv/web", "/srv", "/srv/web/in"])
def test_a_volume_that_was_given_is_not_mounted(root: Path, run: Run, path: str) -> None:
    (root / "srv/web/in").mkdir()
    run("fix-volume /srv/web --container web")
    more = "--container web --mode shift" + " --protected" * (path == "/srv")
    error = run(f"mount-volume {path} {more}", 9)[1]
    assert "was given to 'web' by a change of owners" in error
    back = f"fix-volume /srv/web --container web --mode shift --reverse --root {root}"
    assert back in error
    assert "--take" not in error
    assert standing(root) == []
    # The hint works as it is.
    run(back.partition(" --root")[0])
    assert (root / "srv/web/in").stat().st_uid == 0
    mounted(run, f"{path} {more}")


def test_a_volume_of_another_container_is_shared_only_if_asked(root: Path, run: Run) -> None:
    run("fix-volume /srv/web --container db")
    words = "mount-volume /srv/web --container web --mode own"
    assert (
        f"{words.replace('mount-volume', 'fix-volume')} --method idmap --take" in run(words, 9)[1]
    )
    # The ids of the disk are no ids of a container in the other mode.
    shift = run("mount-volume /srv/web --container web --mode shift --take", 9)[1]
    assert "was given to 'db'" in shift
    assert "--take" not in shift
    run(f"{words} --take")
    assert seen(root) == (FIRST, FIRST)
    assert (root / "srv/web").stat().st_uid == SECOND


@pytest.mark.parametrize(
    ("owner", "words", "fact"),
    [
        (SECOND, "--mode shift", "uid 655360 on disk, an id of 'db'"),
        (SECOND, "--mode own", "uid 655360 on disk, an id of 'db'"),
        (FIRST, "--mode shift", "uid 589824 on disk, an id of 'web'"),
    ],
)
def test_an_owner_on_disk_that_is_a_containers_is_seen_without_the_ledger(
    root: Path, run: Run, owner: int, words: str, fact: str
) -> None:
    os.chown(root / "srv/web", owner, owner)
    assert fact in run(f"mount-volume /srv/web --container web {words}", 9)[1]
    assert standing(root) == []


def test_an_owner_on_disk_that_is_its_own_or_shared_is_shown(root: Path, run: Run) -> None:
    for owner, more in ((FIRST, ""), (SECOND, "--take")):
        os.chown(root / "srv/web", owner, owner)
        mounted(run, f"/srv/web --container web --mode own {more}")
        assert seen(root) == (FIRST, FIRST)
        run("undo --last")


@pytest.mark.parametrize("command", ["fix-volume", "mount-volume"])
def test_a_path_on_a_mount_names_the_volume(root: Path, run: Run, command: str) -> None:
    (root / "srv/web/in").mkdir()
    name = mounted(run)
    for path in (f"/{AT}", f"/{AT}/in"):
        error = run(f"{command} {path} --container web --mode shift", 9)[1]
        assert f"is on the mount of {root}/srv/web for 'web'" in error
        assert f"usernsplan undo {name} --root {root}" in error


def test_a_pool_has_no_mounts(root: Path, run: Run) -> None:
    run("allocate --engine podman-auto")
    pool = next(a["name"] for a in of(run, "list")["allocations"] if a["name"] not in {"web", "db"})
    error = run(f"mount-volume /srv/web --container {pool} --mode shift", 2)[1]
    assert "nothing is allocated under this name" in error
    assert standing(root) == []


# What it takes.


def test_a_mount_loads_nothing_that_only_ranges_need(root: Path) -> None:
    """To read who has which ids takes longer than all the rest."""
    needless = {"usernsplan.apply", "usernsplan.claims", "usernsplan.planner.allocate"}
    for words in ("mount-volume /srv/web --container web --mode shift", "undo --last"):
        told = subprocess.run(
            [sys.executable, "-c", SHOWN, *words.split(), "--root", root],
            capture_output=True,
            text=True,
            check=True,
        )
        loaded = {*told.stderr.splitlines()[-1].split()}
        assert "usernsplan.noting" in loaded
        assert loaded & needless == set()


def test_what_was_interrupted_is_repaired_before_a_mount_is_recorded(root: Path, run: Run) -> None:
    layout = layout_at(str(root))
    left = LedgerChange(volumes=(Volume("/srv/vol", "db", "own"),))
    open_ledger(layout).begin(Intent("usernsplan fix-volume", Actor(0), left, ()))
    mounted(run)
    state = open_ledger(layout).state()
    assert (state.interrupted, [v.path for v in state.volumes]) == (False, ["/srv/vol"])
    assert [m.at for m in state.mounts] == [f"/{AT}"]


# Release and rename.


def test_release_is_refused_while_a_mount_stands(root: Path, run: Run) -> None:
    name = mounted(run)
    (root / "srv/other").mkdir()
    other = mounted(run, "/srv/other --container web --mode own")
    for words in ("release web", "release db web", "release web --dry-run"):
        error = run(words, 9)[1]
        assert "nothing was released" in error
        assert f"srv/web at {root / AT}" in error
        for one in (name, other):
            assert f"usernsplan undo {one} --root {root}" in error
    assert len(of(run, "list")["allocations"]) == 2
    run(f"undo {name}")
    run(f"undo {other}")
    run("release web")


def test_release_forgets_a_mount_that_is_gone(root: Path, run: Run) -> None:
    mounted(run)
    subprocess.run(["umount", root / AT], check=True)
    assert "[USN180]" in run("release web")[1]
    assert f"the mount at /{AT} was taken away" in run("history")[0]
    # The name is as free as without a mount.
    run("release --forget web")
    run("allocate web")
    mounted(run)


def test_what_lies_over_a_mount_does_not_make_it_gone(root: Path, run: Run) -> None:
    mounted(run)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", root / AT], check=True)
    assert "nothing was released" in run("release web", 9)[1]
    subprocess.run(["umount", root / AT], check=True)


def test_a_container_that_is_released_meanwhile_is_told(
    root: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach = idmap.attach

    def release_first(tree: int, point: int) -> None:
        run("release web")
        attach(tree, point)

    with monkeypatch.context() as patch:
        patch.setattr(idmap, "attach", release_first)
        out = run("mount-volume /srv/web --container web --mode shift", 3)[0]
    assert "'web' was released in the meantime; take the mount away: usernsplan undo " in out
    run("undo --last")
    assert standing(root) == []


def test_a_renamed_container_keeps_its_mount_points(root: Path, run: Run) -> None:
    name = mounted(run)
    note = run("rename web shop")[1]
    assert str(root / AT) in note
    assert "[USN170]" in note
    # Nothing is mounted a second time, and the former name has a folder of its own.
    assert of(run, "mount-volume /srv/web --container shop --mode shift")["run"] is None
    run("allocate web --owner usernsplan-web-2")
    mounted(run, "/srv/vol --container web --mode shift")
    points = [AT, "run/usernsplan/volumes/web.2/srv-vol"]
    assert standing(root) == sorted(points)
    folders = [(root / point).parent.stat() for point in points]
    assert [(one.st_gid, one.st_mode & 0o777) for one in folders] == [
        (FIRST, 0o710),
        (seen(root, points[1])[1], 0o710),
    ]
    assert "nothing was released" in run("release shop", 9)[1]
    assert "unmounted for shop" in run(f"undo {name}")[0]
    assert standing(root) == points[1:]


# Remap.


def maps(run: Run) -> list[tuple[str, int, int]]:
    """The mounts that the ledger has: mount point, first id on disk, first host id."""
    found = of(run, "volumes", None)["volumes"]
    return [
        (
            one["mount"]["path"],
            one["mount"]["uid_map"][0]["disk"],
            one["mount"]["uid_map"][0]["host"],
        )
        for one in found
        if one["mount"]
    ]


@pytest.fixture(params=["replaced", "from the source", "with a gap", "from the source with a gap"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Kernels that know all calls, and older ones."""
    way = str(request.param)

    def unknown(code: int) -> Callable[..., int]:
        def fail(*_: object, **__: object) -> int:
            raise OSError(code, os.strerror(code))

        return fail

    if "from the source" in way:
        monkeypatch.setattr(idmap, "with_map", unknown(errno.ENOSYS))
    if "gap" in way:
        monkeypatch.setattr(idmap, "attach_beneath", unknown(errno.EINVAL))
    return way


def test_a_remap_gives_a_mount_the_new_map(root: Path, run: Run, kernel: str) -> None:
    (root / "srv/web/page").write_text("hello")
    mounted(run, "/srv/web --container web --mode shift --read-only")
    shown = of(run, f"remap web --start {THIRD} --dry-run")
    assert [one["path"] for one in shown["mounts"]] == [str(root / AT)]
    assert shown["mounts"][0]["uid_map"] == [{"disk": 0, "host": THIRD, "count": 65536}]
    assert seen(root) == (FIRST, FIRST)

    out = run(f"remap web --start {THIRD} --yes")[0]
    assert f"{root / AT} has the new map" in out
    assert ("was not mounted for a moment" in out) == ("gap" in kernel)
    assert seen(root) == (THIRD, THIRD)
    assert (root / AT / "page").read_text() == "hello"
    # One mount, with all that it had besides: and the disk is as it was.
    [point] = [m for m in all_mounts() if m.point == str(root / AT)]
    assert {"ro", "idmapped"} <= {*point.options.split(",")}
    assert (root / "srv/web").stat().st_uid == 0
    assert (root / AT).parent.stat().st_gid == THIRD
    assert maps(run) == [(str(root / AT), 0, THIRD)]
    assert "Already up to date" in run("remap web")[0]

    run("remap web --undo --yes")
    assert seen(root) == (FIRST, FIRST)
    assert (root / AT).parent.stat().st_gid == FIRST
    # The run that made it still takes it away.
    run("undo --last")
    assert standing(root) == []


def test_in_own_mode_the_owner_on_disk_stays(root: Path, run: Run) -> None:
    os.chown(root / "srv/web", 33, 34)
    mounted(run, "/srv/web --container web --mode own --user 7:8")
    assert seen(root) == (FIRST + 7, FIRST + 8)
    error = run("remap web --size 5 --yes", 9)[1]
    assert "as those of 7:8, whom the new map lacks; nothing was changed" in error
    run(f"remap web --start {THIRD} --yes")
    assert seen(root) == (THIRD + 7, THIRD + 8)
    assert (root / "srv/web").stat().st_uid == 33
    run("remap web --undo --yes")
    assert seen(root) == (FIRST + 7, FIRST + 8)


def test_a_map_that_only_grows_is_shown_too(root: Path, run: Run) -> None:
    run("release db")
    run("release --forget db")
    os.chown(root / "srv/web", 70000, 70000)
    mounted(run)
    assert seen(root) == (65534, 65534)
    # No id moves, so nobody is asked.
    run("remap web --size 131072")
    assert seen(root) == (FIRST + 70000, FIRST + 70000)


def test_a_mount_that_is_gone_is_not_made(root: Path, run: Run) -> None:
    mounted(run)
    subprocess.run(["umount", root / AT], check=True)
    assert of(run, f"remap web --start {THIRD} --yes")["mounts"] == []
    assert standing(root) == []
    mounted(run)
    assert seen(root) == (THIRD, THIRD)


def test_what_lies_over_a_mount_stops_the_remap(root: Path, run: Run) -> None:
    mounted(run)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", root / AT], check=True)
    error = run(f"remap web --start {THIRD} --yes", 9)[1]
    assert "cannot get the new map" in error
    assert "nothing was changed" in error
    subprocess.run(["umount", root / AT], check=True)
    assert seen(root) == (FIRST, FIRST)


def test_a_mount_in_use_keeps_the_old_map_until_the_same_remap(root: Path, run: Run) -> None:
    mounted(run)
    held = os.open(root / AT, os.O_RDONLY)
    try:
        out = run(f"remap web --start {THIRD} --yes", 3)[0]
        assert "still has the former map: something uses it" in out
        assert f"usernsplan remap web --root {root}" in out
        assert seen(root) == (FIRST, FIRST)
        assert "[USN173]" in run("remap web --dry-run")[1]
    finally:
        os.close(held)
    run(f"remap web --start {THIRD} --yes")
    assert seen(root) == (THIRD, THIRD)
    assert len([m for m in all_mounts() if m.point == str(root / AT)]) == 1


class KilledError(BaseException):
    """What stands for SIGKILL: nothing of ours catches it."""


STEPS = ("user_namespace", "with_map", "attach_beneath", "unmount")


def killed(
    run: Run, monkeypatch: pytest.MonkeyPatch, step: str, *, after: bool, words: str
) -> None:
    """Run a remap that is killed before or after a step."""
    real = getattr(idmap, step)
    # The preview tries the others on a copy that nobody sees.
    calls = count(0 if step in {"attach_beneath", "unmount"} else -1)

    def kill(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - whatever the step takes
        is_meant = next(calls) == 0
        if is_meant and not after:
            raise KilledError
        found = real(*args, **options)
        if is_meant:
            raise KilledError
        return found

    with monkeypatch.context() as patch:
        patch.setattr(idmap, step, kill)
        with pytest.raises(KilledError):
            run(words)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("words", ["remap web", f"remap web --start {THIRD} --yes"])
def test_after_a_kill_the_same_remap_finishes(
    root: Path, run: Run, monkeypatch: pytest.MonkeyPatch, step: str, words: str
) -> None:
    mounted(run)
    for after in (False, True):
        killed(run, monkeypatch, step, after=after, words=f"remap web --start {THIRD} --yes")
        run(words)
        assert seen(root) == (THIRD, THIRD)
        assert len([m for m in all_mounts() if m.point == str(root / AT)]) == 1
        assert maps(run) == [(str(root / AT), 0, THIRD)]
        run("remap web --undo --yes")
        assert seen(root) == (FIRST, FIRST)


@pytest.mark.parametrize("step", STEPS)
def test_after_a_kill_an_undo_brings_the_old_map_back(
    root: Path, run: Run, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    mounted(run)
    for after in (False, True):
        killed(run, monkeypatch, step, after=after, words=f"remap web --start {THIRD} --yes")
        run("remap web --undo --yes")
        assert seen(root) == (FIRST, FIRST)
        assert (root / AT).parent.stat().st_gid == FIRST
    run("undo --last")
    assert standing(root) == []


def test_a_process_that_has_a_copy_is_named(root: Path, run: Run) -> None:
    mounted(run)
    script = (
        f"mount --make-rprivate / && mount --bind {root / AT} /mnt && echo ready && exec sleep 60"
    )
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "ready\n"
            for more in ("--dry-run", "--yes"):
                said = run(f"remap web --start {THIRD} {more}")[1]
                assert f"process {other.pid} (sleep)" in said
                assert "mounted at /mnt: it keeps the former map until it ends" in said
            shown = Path(f"/proc/{other.pid}/root/mnt").stat()
            assert (shown.st_uid, seen(root)) == (FIRST, (THIRD, THIRD))
        finally:
            other.kill()


def test_mounts_inside_get_the_new_map_with_theirs(root: Path, run: Run) -> None:
    (root / "srv/web/in").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", root / "srv/web/in"], check=True)
    os.chown(root / "srv/web/in", 33, 33)
    mounted(run, "/srv/web --container web --mode shift --cross-mounts")
    assert seen(root, f"{AT}/in") == (FIRST + 33, FIRST + 33)
    run(f"remap web --start {THIRD} --yes")
    assert (seen(root), seen(root, f"{AT}/in")) == ((THIRD, THIRD), (THIRD + 33, THIRD + 33))
    assert standing(root) == [AT, f"{AT}/in"]
    run("undo --last")
    assert standing(root) == []
    subprocess.run(["umount", root / "srv/web/in"], check=True)


@pytest.mark.parametrize("stands", [False, True])
def test_what_returns_at_boot_returns_with_the_new_map(root: Path, run: Run, stands: bool) -> None:
    mounted(run, "/srv/web --container web --mode shift --persist")
    at = AT.replace("run/", "var/lib/", 1)
    if not stands:
        subprocess.run(["umount", root / at], check=True)
        assert "nothing was released" in run("release web", 9)[1]
    run(f"remap web --start {THIRD} --yes")
    found = of(run, "volumes", None)["volumes"]
    assert [one["mount"]["uid_map"][0]["host"] for one in found] == [THIRD]
    run("volumes --restore")
    assert seen(root, at) == (THIRD, THIRD)
    assert [one["wrong"] for one in of(run, "volumes", None)["volumes"]] == [[]]
    run("undo --last")
    run("release web")
