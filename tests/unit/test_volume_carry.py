"""One folder looked at, and its note carried out and back: what the callers of Looker and Carrier build on."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.command import needs_root
from usernsplan import IdMap, Mapping
from usernsplan.volume import logs, special, targets, walk
from usernsplan.volume.carry import Rules
from usernsplan.volume.look import Foreseeing, Looker
from usernsplan.volume.parts import TOP
from usernsplan.volume.passes import Leg, Pass

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("volume_step")

IDS = IdMap.of((0, 100000, 65536))
RULE = targets.shift(Mapping(IDS, IDS))
THERE, BACK = Pass(RULE), Pass(RULE, Leg.BACK)
LATER = 1 << 62


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[walk.OpenVolume]:
    """A volume of one folder below its top; the process stands elsewhere in the end, as it did before."""
    before = os.getcwd()
    top = (tmp_path / "vol").resolve()
    (top / "below").mkdir(parents=True)
    for name in ("a", "b", "below/c"):
        (top / name).write_bytes(b"x")
    of = walk.volume(str(top))
    yield of
    os.close(of.top)
    os.chdir(before)


def owned(of: walk.OpenVolume, uid: int) -> bool:
    return all(os.lstat(f"{of.path}/{name}")[4:6] == (uid, uid) for name in ("a", "b"))


def give(of: walk.OpenVolume, uid: int) -> None:
    for name in ("a", "b"):
        os.chown(f"{of.path}/{name}", uid, uid)


def below(looker: Looker, seen_before: int) -> tuple[list[str], int]:
    assert list(looker.look(0, TOP.below("below"), seen_before))
    return looker.below


def test_a_look_tells_what_to_note_what_to_look_at_next_and_since_when(
    volume: walk.OpenVolume,
) -> None:
    looker = Looker([volume], THERE)
    [note] = looker.look(0, TOP, LATER)
    folders, seen_before = looker.below
    assert (note.parts, folders, seen_before) == (TOP, ["below"], LATER)
    assert below(looker, LATER) == ([], LATER)
    # The top, below, and three files.
    assert looker.found.entries == 5


def test_below_a_folder_that_was_changed_since_nothing_is_known_already(
    volume: walk.OpenVolume,
) -> None:
    changed = os.stat(f"{volume.path}/below").st_ctime_ns
    looker = Looker([volume], THERE)
    assert below(looker, changed + 1) == ([], changed + 1)
    assert below(looker, changed) == ([], 0)
    assert below(looker, 0) == ([], 0)


def test_a_folder_that_is_gone_is_nothing_and_no_failure(volume: walk.OpenVolume) -> None:
    looker = Looker([volume], THERE)
    assert [*looker.look(0, TOP.below("x"), LATER)] == []
    assert looker.below == ([], 0)
    assert (looker.found.entries, looker.found.failed) == (0, [])


@needs_root
def test_a_file_with_power_that_goes_before_its_content_is_read_hides_no_other(
    volume: walk.OpenVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(volume, 33)
    path = Path(volume.path, "a")
    path.chmod(0o4755)
    looked = special.looked

    def looked_then_gone(names: list[str], pinning: int) -> object:
        found = looked(names, pinning)
        if "a" in names:
            path.unlink()
        return found

    monkeypatch.setattr(special, "looked", looked_then_gone)
    looker = Looker([volume], THERE)
    [note] = looker.look(0, TOP)
    assert (looker.found.failed, looker.below[0]) == ([], ["below"])
    assert [(group.names, group.proofs) for group in note.groups] == [(["a"], [None])]
    assert Rules(THERE).carrier([volume]).carry(note) is False
    assert os.lstat(f"{volume.path}/b")[4:6] == (100033, 100033)


@needs_root
def test_a_note_is_carried_out_and_back_and_only_what_is_meant(volume: walk.OpenVolume) -> None:
    give(volume, 33)
    [note] = Looker([volume], THERE).look(0, TOP)
    only = Rules(THERE, only=frozenset({f"{volume.path}/a"})).carrier([volume])
    only.carry(note)
    assert only.done.changed == 1
    assert f"{volume.path}/a" in only.done.carried
    assert not {volume.path, f"{volume.path}/b"} & only.done.carried
    assert os.lstat(f"{volume.path}/b").st_uid == 33
    there = Rules(THERE).carrier([volume])
    assert there.carry(note)
    assert there.done.changed == 1
    assert owned(volume, 100033)
    counting = Rules(BACK, preview=True).carrier([volume])
    assert counting.carry(note)
    assert (counting.done.changed, counting.done.failed) == (2, [])
    assert owned(volume, 100033)
    back = Rules(BACK).carrier([volume])
    assert back.carry(note)
    assert (back.done.changed, back.done.failed) == (2, [])
    assert owned(volume, 33)


@needs_root
def test_what_failed_as_the_content_of_a_folder_is_all_that_is_in_it(
    volume: walk.OpenVolume,
) -> None:
    give(volume, 33)
    [note] = Looker([volume], THERE).look(0, TOP)
    only = Rules(THERE, only=frozenset({f"{volume.path}/."})).carrier([volume])
    assert only.carry(note)
    assert owned(volume, 100033)
    assert {f"{volume.path}/{name}" for name in (".", "a", "b")} <= only.done.carried


@needs_root
def test_a_folder_that_got_the_name_meanwhile_is_left_alone(volume: walk.OpenVolume) -> None:
    give(volume, 33)
    [note] = Looker([volume], THERE).look(0, TOP)
    there = Rules(THERE).carrier([volume])
    assert there.carry(replace(note, inode=note.inode + 1)) is False
    assert there.done.lost
    assert owned(volume, 33)
    # Its device may have got another number at a reboot, and only that one.
    elsewhere = Rules(THERE, devices={note.device: note.device + 1}).carrier([volume])
    assert elsewhere.carry(note) is False
    rebooted = Rules(THERE, devices={note.device + 7: note.device}).carrier([volume])
    assert rebooted.carry(replace(note, device=note.device + 7))
    assert owned(volume, 100033)


@needs_root
def test_of_what_has_power_and_changes_the_content_is_proved_and_of_nothing_else(
    volume: walk.OpenVolume,
) -> None:
    give(volume, 33)
    Path(f"{volume.path}/a").chmod(0o4755)
    os.link(f"{volume.path}/b", f"{volume.path}/again")
    looker = Looker([volume], THERE)
    [note] = looker.look(0, TOP)
    proofs = {entry.name: entry.proof for group in note.groups for entry in group.entries()}
    proof = proofs.pop("a")
    assert proof is not None
    assert proof.size == 1
    assert proofs == {"b": None, "again": None}
    [preview] = Foreseeing([volume], THERE).look(0, TOP)
    assert not any(group.proofs for group in preview.groups)
    # Whether it would lose power, is known only when the host's ids are.
    assert [(one.name, one.left.mode & 0o7777) for one in looker.found.lacking] == [("a", 0o755)]


@needs_root
def test_on_the_way_back_what_had_power_is_named_and_does_without(volume: walk.OpenVolume) -> None:
    give(volume, 33)
    Path(f"{volume.path}/a").chmod(0o4755)
    [note] = Looker([volume], THERE).look(0, TOP)
    there = Rules(THERE).carrier([volume])
    there.carry(note)
    assert os.lstat(f"{volume.path}/a").st_mode & 0o7777 == 0o755
    assert [one.name for one in there.done.lacking] == ["a"]
    back = Rules(BACK).carrier([volume])
    back.carry(note)
    assert back.done.failed == []
    assert [(one.parts, one.name, one.whole.owner, one.changed) for one in back.done.lacking] == [
        (TOP, "a", (33, 33), True)
    ]
    assert os.lstat(f"{volume.path}/a").st_mode & 0o7777 == 0o755
    assert owned(volume, 33)


@needs_root
def test_the_note_of_a_very_large_folder_names_all_that_changes_in_pieces_of_their_own(
    volume: walk.OpenVolume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "BIG", 0)
    monkeypatch.setattr(walk, "_BATCH", 10)
    names = [f"{number:02}" for number in range(35)]
    for name in names:
        Path(volume.path, "below", name).touch()
    # Right before the run, of another owner, and in need of care.
    os.chown(f"{volume.path}/below/00", 100000, 100000)
    os.chown(f"{volume.path}/below/01", 7, 7)
    os.unlink(f"{volume.path}/below/02")
    os.mknod(f"{volume.path}/below/02", 0o20644, os.makedev(0, 0))
    before = {name: os.lstat(f"{volume.path}/below/{name}")[:6] for name in [*names, "c", "."]}

    looker = Looker([volume], THERE)
    log = logs.Writer(str(tmp_path / "log"))
    for note in looker.look(0, TOP.below("below")):
        log.write(note)
    log.close()
    assert looker.found.changes == 36

    *pieces, last = logs.read(str(tmp_path / "log"))
    assert (last.itself(), [piece.itself() for piece in pieces]) == (last, [None] * 4)
    assert [piece.common for piece in pieces] == [None] * 4
    assert sorted(chain.from_iterable(piece.named() for piece in pieces)) == [*names[1:], "c"]

    for pass_, wanted in ((THERE, 100000), (BACK, 0)):
        carrier = Rules(pass_).carrier([volume])
        assert all(carrier.carry(piece) for piece in pieces)
        # The folder itself is right only when all that is in it is.
        assert os.lstat(f"{volume.path}/below").st_uid != wanted
        assert carrier.carry(last)
        assert (carrier.done.changed, carrier.done.failed) == (36, [])
        assert os.lstat(f"{volume.path}/below").st_uid == wanted
        assert os.lstat(f"{volume.path}/below/01").st_uid == 7 + (100000 if wanted else 0)
        assert os.lstat(f"{volume.path}/below/00").st_uid == 100000
    after = {name: os.lstat(f"{volume.path}/below/{name}")[:6] for name in [*names, "c", "."]}
    assert after == before
