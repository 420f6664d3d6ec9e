"""Container root makes files on disk that are root's and setuid. Who runs them past the mount gains nothing.

The attack is run for real, by every path, and once without our refusal: there it succeeds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.command import here
from tests.documents import document_in
from tests.volume.bystanders import (
    USER,
    about_to_run,
    bind,
    in_container,
    open_ground,
    own_mounts,
    receiving,
)
from tests.volume.tree import CAPABILITY, capability_v2
from usernsplan.errors import ExitStatus
from usernsplan.volume import sheltering

START = 589824
ID = Path(shutil.which("id") or "id").resolve()


class Stage:
    """A host that everybody can enter, with a volume for the container web."""

    def __init__(self, place: Path) -> None:
        self.place, self.root = place, place / "host"
        self.above = self.root / "srv/own"
        self.volume = self.above / "web"
        (self.root / "etc").mkdir(parents=True)
        (self.volume / "data").mkdir(parents=True)
        accounts = f"root:x:0:0::/root:/bin/sh\nalice:x:{USER}:{USER}::/home/alice:/bin/sh\n"
        (self.root / "etc/passwd").write_text(accounts, encoding="ascii")
        here("allocate", "--strategy", "per-container", "web", "--root", self.root)

    def words(self, *more: str, mode: str = "shift") -> tuple[str | Path, ...]:
        return ("mount-volume", "/srv/own/web", "--mode", mode, *more, "--root", self.root)

    def mount(self, *more: str, mode: str = "shift") -> Path:
        """Where it is mounted."""
        printed = here(*self.words(*more, mode=mode), "--json")[0]
        return Path(document_in(printed)["mounts"][0]["path"])

    def refusal(self, *more: str, mode: str = "shift") -> str:
        """What the refusal says; and nothing is left."""
        before = set(points())
        said = here(*self.words(*more, mode=mode), status=ExitStatus.REFUSED)[1]
        assert set(points()) == before
        assert not list((self.root / "var/lib/usernsplan").glob("runs/2*"))
        return said

    def undo(self) -> None:
        here("undo", "--last", "--root", self.root)


@pytest.fixture
def stage(private_mounts: None) -> Iterator[Stage]:
    assert private_mounts is None
    with open_ground() as ground:
        yield Stage(ground)


def points() -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return [line.split()[4] for line in lines]


def make(folder: Path, program: bytes, name: str = "data/evil", mode: int = 0o4755) -> None:
    """Make a program with this mode: what a container does with its volume."""
    path = folder / name
    path.write_bytes(program)
    path.chmod(mode)


def attack(at: Path) -> None:
    in_container(START, partial(make, at, ID.read_bytes()))


# By each path, a process of uid 1000 that is about to run what the container will have made.

Way = Callable[[Stage], AbstractContextManager[Callable[[], str]]]
EVIL = "data/evil"


@contextmanager
def by_the_source(stage: Stage) -> Iterator[Callable[[], str]]:
    with about_to_run(stage.volume / EVIL) as run:
        yield run


@contextmanager
def by_a_bind_mount(stage: Stage) -> Iterator[Callable[[], str]]:
    bind(stage.volume, stage.place / "bound")
    with about_to_run(stage.place / "bound" / EVIL) as run:
        yield run


@contextmanager
def by_a_bind_mount_of_a_part(stage: Stage) -> Iterator[Callable[[], str]]:
    bind(stage.volume / "data", stage.place / "bound")
    with about_to_run(stage.place / "bound/evil") as run:
        yield run


@contextmanager
def by_another_namespace(stage: Stage) -> Iterator[Callable[[], str]]:
    (stage.place / "bound").mkdir()
    step = partial(bind, stage.volume, stage.place / "bound")
    with about_to_run(stage.place / "bound" / EVIL, own_mounts, step) as run:
        yield run


@contextmanager
def by_its_current_folder(stage: Stage) -> Iterator[Callable[[], str]]:
    with about_to_run(EVIL, partial(os.chdir, stage.volume)) as run:
        yield run


@contextmanager
def by_a_folder_in_it(stage: Stage) -> Iterator[Callable[[], str]]:
    with about_to_run("../data/evil", partial(os.chdir, stage.volume / "data")) as run:
        yield run


@contextmanager
def by_the_link_of_its_current_folder(stage: Stage) -> Iterator[Callable[[], str]]:
    with about_to_run("/proc/self/cwd/data/evil", partial(os.chdir, stage.volume)) as run:
        yield run


@contextmanager
def by_its_own_descriptor(stage: Stage) -> Iterator[Callable[[], str]]:
    descriptor = os.open(stage.volume, os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    try:
        with about_to_run(f"/proc/self/fd/{descriptor}/data/evil") as run:
            yield run
    finally:
        os.close(descriptor)


@contextmanager
def by_a_folder_beside_it(stage: Stage) -> Iterator[Callable[[], str]]:
    """It is below the folder that is shut, and above the volume."""
    with about_to_run("web/data/evil", partial(os.chdir, stage.above)) as run:
        yield run


WAYS: dict[str, Way] = {
    "source": by_the_source,
    "bind": by_a_bind_mount,
    "part": by_a_bind_mount_of_a_part,
    "namespace": by_another_namespace,
    "cwd": by_its_current_folder,
    "inner-cwd": by_a_folder_in_it,
    "proc-cwd": by_the_link_of_its_current_folder,
    "descriptor": by_its_own_descriptor,
    "beside": by_a_folder_beside_it,
}


@pytest.mark.parametrize("way", WAYS)
def test_without_the_refusal_it_would_succeed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way in {"namespace", "bind", "part"}:
        stage.above.chmod(0o700)
    with WAYS[way](stage) as run:
        monkeypatch.setattr(sheltering, "refuse_open", lambda *_, **__: None)
        attack(stage.mount())
        assert (stage.volume / EVIL).stat().st_uid == 0
        assert run() == "0"


@pytest.mark.parametrize("way", WAYS)
def test_each_way_is_refused_and_named(stage: Stage, way: str) -> None:
    if way != "source":
        # The only other way is the one that is tried.
        (stage.root / "srv").chmod(0o700)
    with WAYS[way](stage):
        said = stage.refusal()
        assert (
            f"{stage.volume}: through the mount, web could make files with the power of root"
            in said
        )
        named = {
            "bind": f"{stage.place}/bound is open to others",
            "part": f"{stage.place}/bound is open to others",
            "namespace": f"{stage.place}/bound, as process ",
            "source": f"{stage.volume} is open to others",
        }
        assert named.get(way, f"of uid {USER} has {stage.above}") in said


@pytest.mark.parametrize("protect", ["nosuid", "parent"])
@pytest.mark.parametrize(
    "way", ["source", "beside", "bind", "namespace", "cwd", "descriptor", "part"]
)
def test_protected_it_gains_nothing_or_is_refused(stage: Stage, way: str, protect: str) -> None:
    with WAYS[way](stage) as run:
        # Who is in the folder that is then shut does not get into anything in it any more.
        if way not in {"source", "beside"}:
            stage.refusal("--protect", protect)
            return
        attack(stage.mount("--protect", protect))
        evil = (stage.volume / EVIL).stat()
        assert (evil.st_uid, evil.st_mode & 0o7777) == (0, 0o4755)
        assert run() == {"nosuid": str(USER), "parent": "Permission denied"}[protect]


def test_who_comes_later_gains_nothing_either(stage: Stage) -> None:
    subprocess.run(["mount", "--make-shared", stage.place], check=True)
    with about_to_run(stage.volume / EVIL, receiving) as other:
        attack(stage.mount("--protect", "nosuid"))
        assert other() == str(USER)
    bind(stage.volume, stage.place / "later")
    for path in (stage.volume, stage.place / "later"):
        with about_to_run(path / EVIL) as run:
            assert run() == str(USER)
    with about_to_run(EVIL, partial(os.chdir, stage.volume)) as run:
        assert run() == str(USER)


def test_in_the_container_setuid_works(stage: Stage) -> None:
    at = stage.mount("--protect", "nosuid")
    attack(at)
    out = stage.place / "out"
    out.touch(0o666)
    out.chmod(0o666)

    def become_root() -> None:
        os.dup2(os.open(out, os.O_WRONLY), 1)
        os.execv(at / EVIL, ["id", "-u"])  # noqa: S606 - setuid works without a shell only

    # The folder of its mounts is open to the group of container root only.
    above = at.parent
    assert (above.stat().st_gid, above.stat().st_mode & 0o7777) == (START, 0o710)
    above.chmod(0o711)
    in_container(START, become_root, uid=33)
    assert out.read_text(encoding="ascii") == "0\n"


def test_a_capability_gains_nothing_either(stage: Stage) -> None:
    at = stage.mount("--protect", "nosuid")

    def give() -> None:
        make(at, Path("/bin/cat").resolve().read_bytes(), mode=0o755)
        os.setxattr(at / EVIL, CAPABILITY, capability_v2())

    in_container(START, give)
    # On disk it is as good as root's own: without nosuid it counts.
    assert os.getxattr(stage.volume / EVIL, CAPABILITY)[:4] == capability_v2()[:4]
    bind(stage.volume, stage.place / "bare", "suid")
    told = {
        path: subprocess.run(
            [path / EVIL, "/proc/self/status"],
            user=USER,
            group=USER,
            text=True,
            capture_output=True,
            check=True,
        ).stdout
        for path in (stage.volume, stage.place / "bare")
    }
    none = "CapEff:\t0000000000000000\n"
    assert none in told[stage.volume]
    assert none not in told[stage.place / "bare"]


def test_own_mode_gives_the_power_of_an_account_on_disk(stage: Stage) -> None:
    os.chown(stage.volume, USER, USER)
    os.chown(stage.volume / "data", USER, USER)
    said = stage.refusal(mode="own")
    assert f"with the power of alice (uid {USER})" in said
    at = stage.mount("--protect", "nosuid", mode="own")
    attack(at)
    assert (stage.volume / EVIL).stat().st_uid == USER
    with about_to_run(stage.volume / EVIL, uid=1001) as run:
        assert run() == "1001"
    stage.undo()
    with about_to_run(stage.volume / EVIL, uid=1001) as run:
        assert run() == str(USER), "the file itself stays: it is the container's work"


@pytest.mark.parametrize(("uid", "more"), [(70000, ()), (0, ("--read-only",))])
def test_what_gives_nobodys_power_needs_no_protection(
    stage: Stage, uid: int, more: tuple[str, ...]
) -> None:
    os.chown(stage.volume, uid, uid)
    stage.mount(*more, mode="own")
    stage.undo()
