"""Random trees and random maps, against the naive expectation."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.command import here
from tests.examples import examples
from tests.volume.tree import (
    Host,
    Rule,
    Snapshot,
    UnmappedError,
    acl_of,
    age,
    busy,
    capability_v2,
    capability_v3,
    counted,
    differences,
    expected,
    finish,
    folder,
    maps,
    snapshot,
    write,
)

# So few ids that maps meet them, and each other.
IDS = st.integers(0, 11)
MODES = st.sampled_from(
    [0o644, 0o600, 0o000, 0o755, 0o4755, 0o2755, 0o6711, 0o2644, 0o1777, 0o7777]
)
NAMES = [b"a", b"b", b"c", b"d", b"\xff", b"-n\n"]
# Without it, most trees are refused.
KEEP = st.sampled_from([True, True, True, False])
NUMBERS = count()
ENDING = ("--jobs", "1")


@dataclass(frozen=True)
class Entry:
    """One name of a tree that is to be made."""

    kind: str
    folder: int
    uid: int
    gid: int
    mode: int
    users: dict[int, int]
    groups: dict[int, int]
    default: bool
    capability: int


ENTRIES = st.lists(
    st.builds(
        Entry,
        kind=st.sampled_from(["file", "file", "folder", "folder", "symlink", "fifo", "link"]),
        folder=st.integers(0, 5),
        uid=IDS,
        gid=IDS,
        mode=MODES,
        users=st.dictionaries(IDS, st.integers(0, 7), max_size=3),
        groups=st.dictionaries(IDS, st.integers(0, 7), max_size=2),
        default=st.booleans(),
        capability=st.integers(-8, 11),
    ),
    max_size=14,
)


@st.composite
def extents(draw: st.DrawFn) -> tuple[tuple[int, int, int], ...]:
    """Some ids, and where they go: anywhere, into each other too, but no two to one."""
    found: list[tuple[int, int, int]] = []
    for _ in range(draw(st.integers(1, 3))):
        start, to, size = (
            draw(st.integers(0, 12)),
            draw(st.integers(0, 24)),
            draw(st.integers(1, 12)),
        )
        if all(
            (start + size <= s or s + n <= start) and (to + size <= t or t + n <= to)
            for s, t, n in found
        ):
            found.append((start, to, size))
    return tuple(found)


@st.composite
def swaps(draw: st.DrawFn) -> tuple[tuple[int, int, int], ...]:
    """All ids of the tree, in another order."""
    return tuple((start, to, 1) for start, to in enumerate(draw(st.permutations(range(12)))))


def make(top: bytes, entries: list[Entry]) -> None:
    """Make the tree; every entry finds some folder and some name."""
    folders = [top]
    files: list[bytes] = []
    for number, entry in enumerate(entries):
        path = folders[entry.folder % len(folders)] + b"/%d-" % number + NAMES[number % len(NAMES)]
        named = entry.users or entry.groups
        acl = acl_of(entry.mode, entry.users, entry.groups) if named else []
        capability = b""
        default = []
        if entry.kind == "folder":
            folders.append(folder(path))
            default = acl if entry.default else []
        elif entry.kind == "symlink":
            os.symlink(b"/etc/passwd", path)
            acl = []
        elif entry.kind == "fifo":
            os.mkfifo(path)
        elif entry.kind == "link" and files:
            os.link(files[entry.folder % len(files)], path)
            continue
        else:
            files.append(write(path))
            if entry.capability >= -2:
                capability = (
                    capability_v2() if entry.capability < 0 else capability_v3(entry.capability)
                )
        finish(
            path,
            entry.uid,
            entry.gid,
            entry.mode,
            acl=acl,
            default_acl=default,
            capability=capability,
        )


@contextmanager
def volume_of(host: Host, entries: list[Entry], *, is_busy: bool) -> Iterator[Host]:
    """A fresh volume with this tree, on the same host's file system; as of long ago, or as if it changed right now."""
    one = Host(host.root / f"example-{next(NUMBERS)}", host.file_system)
    one.volume.mkdir(parents=True)
    (one.root / "etc").mkdir(exist_ok=True)
    make(os.fsencode(one.volume), entries)
    (busy if is_busy else age)(one.volume)
    yield one
    shutil.rmtree(one.root)


def overlaps(rule: Rule) -> bool:
    """Whether some id is in what is moved and in where it goes, and is not itself there."""
    for found in (rule.uids, rule.gids):
        moved = {start + n: to + n for start, to, size in found for n in range(size)}
        if any(number != to and number in moved.values() for number, to in moved.items()):
            return True
    return False


def collides(after: Snapshot) -> bool:
    """Whether an ACL names one id twice."""
    return any(
        len({(tag, number) for tag, _, number in acl}) < len(acl)
        for inode in after.values()
        for acl in (inode.acl, inode.default_acl)
    )


def by_itself(host: Host, *words: str) -> dict[str, Any]:
    """Run fix-volume within this process, which is to carry everything; its report."""
    printed, said = here(
        "fix-volume", host.volume, *words, "--json", *ENDING, "--root", host.root, status=None
    )
    assert printed, said
    report: dict[str, Any] = json.loads(printed)
    assert report["failed"] == []
    return report


def root_after(rule: Rule) -> int | None:
    """The root of the container: where 0 goes, if it goes anywhere."""
    return next((to - start for start, to, size in rule.uids if start <= 0 < start + size), None)


def judged(before: Snapshot, rule: Rule) -> Snapshot | None:
    """The tree after the run; None where it is to be refused."""
    has_v2 = any(len(inode.capability) == 20 for inode in before.values())
    if has_v2 and rule.root is None and not rule.keep:
        return None
    try:
        after = expected(before, rule)
    except UnmappedError:
        return None
    return None if collides(after) else after


UNCHECKED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@given(
    entries=ENTRIES,
    uids=extents() | swaps(),
    gids=extents() | swaps(),
    keep=KEEP,
    is_busy=st.booleans(),
)
@settings(max_examples=examples(80), suppress_health_check=UNCHECKED)
def test_any_tree_is_carried_by_any_map(  # noqa: PLR0917 - hypothesis fills them in
    host: Host,
    entries: list[Entry],
    uids: tuple[tuple[int, int, int], ...],
    gids: tuple[tuple[int, int, int], ...],
    keep: bool,
    is_busy: bool,
) -> None:
    rule = Rule(uids, gids, None, keep=keep)
    rule = Rule(uids, gids, None, keep=keep, source_wins=overlaps(rule))
    rule = Rule(uids, gids, root_after(rule), keep=keep, source_wins=rule.source_wins)
    # Ids that low are the host's: none is a mere image, and what would become another's is dropped.
    words = [*maps(rule), *(["--unmapped", "keep"] if keep else []), "--drop-power"]
    with volume_of(host, entries, is_busy=is_busy) as one:
        before = snapshot(one.volume)
        wanted = judged(before, rule)
        if wanted is None:
            event("refused")
            here("fix-volume", one.volume, *words, "--again", *ENDING, "--root", one.root, status=9)
            assert snapshot(one.volume) == before
            return
        event("overlapping" if rule.source_wins else "disjoint")
        # Some of these trees look as if the map had been carried out before.
        foretold = by_itself(one, *words, "--again", "--dry-run")
        assert snapshot(one.volume) == before
        done = by_itself(one, *words, "--again")
        after = snapshot(one.volume)
        assert differences(after, wanted) == []
        assert foretold["counts"] == done["counts"]
        counts = counted(before, after)
        assert {key: done["counts"][key] for key in counts} == counts
        again = by_itself(one, *words)
        assert again["changed"] is False
        assert snapshot(one.volume) == after
        if done["run"]:
            here("undo", done["run"], "--root", one.root)
        assert differences(snapshot(one.volume), before) == []


@given(entries=ENTRIES, user=st.integers(0, 9), group=st.integers(0, 9), is_busy=st.booleans())
@settings(max_examples=examples(30), suppress_health_check=UNCHECKED)
def test_any_tree_is_owned_by_one(
    host: Host, entries: list[Entry], user: int, group: int, is_busy: bool
) -> None:
    with volume_of(host, entries, is_busy=is_busy) as one:
        [start] = one.allocate("web", size=12)
        before = snapshot(one.volume)
        rule = Rule(((0, start, 12),), ((0, start, 12),), start, own=(start + user, start + group))
        by_itself(one, "--user", f"{user}:{group}")
        after = snapshot(one.volume)
        assert differences(after, expected(before, rule)) == []
        # What is not a folder or a file has no bits that a chown could cost.
        assert all(inode.mode == 0o777 for inode in after.values() if inode.kind == stat.S_IFLNK)
        by_itself(one, "--user", f"{user}:{group}")
        assert snapshot(one.volume) == after
