"""The compiled step and the one in Python do the same with any folder: twins of it, one for each.

What ``folder.step`` hands back is compared, and what the twins are afterwards. For another function that is written twice,
add a test that calls it in ``on_twins``.
"""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.command import missing, needs_root
from tests.examples import CI
from tests.unit.xattrs import GROUP, MASK, NOBODY, PLAIN, USER, acl, v2
from usernsplan.ids import EVERY_ID
from usernsplan.volume import compiled, syscalls
from usernsplan.volume.folder import BY_NAME, FolderListing, StepOptions, packed, step_in_python
from usernsplan.volume.metadata import ACL_ACCESS, ACL_DEFAULT, CAPABILITY

pytestmark = needs_root

# An owner of an entry is likely to be one that gets another, and ids have 32 bits.
OWNERS = [(uid, gid) for uid in (0, 33, 4_294_967_294) for gid in (0, 1000)]
RULES = [
    BY_NAME,
    0,
    syscalls.BENEATH | syscalls.NO_SYMLINKS | syscalls.NO_MAGICLINKS | syscalls.NO_XDEV,
    1 << 60,
]
MOMENTS = [-(1 << 63), 0, (1 << 63) - 1]
ACL = acl(PLAIN[0], (USER, 4, 33), PLAIN[1], (GROUP, 6, 1000), (MASK, 5, NOBODY), PLAIN[2])
ATTRIBUTES = {
    ACL_ACCESS: ACL,
    ACL_DEFAULT: ACL,
    CAPABILITY: v2(),
    "user.one": b"x",
    "trusted.one": b"x",
    # A list of them is longer than what is asked for at first.
    **{f"trusted.{letter * 200}": b"" for letter in "abcd"},
}


class Entry(NamedTuple):
    """One entry of a folder, before it gets a name."""

    kind: Callable[[str], object]
    mode: int
    owner: tuple[int, int]
    attributes: frozenset[str]
    linked: bool


def file(name: str) -> None:
    Path(name).touch()


def symlink(name: str) -> None:
    os.symlink("anywhere", name)


def listening(name: str) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        # An address has room for 107 bytes.
        one.bind(":socket")
    Path(":socket").rename(name)


def character_device(name: str) -> None:
    os.mknod(name, stat.S_IFCHR, os.makedev(1, 3))


def whiteout(name: str) -> None:
    os.mknod(name, stat.S_IFCHR, os.makedev(0, 0))


def block_device(name: str) -> None:
    os.mknod(name, stat.S_IFBLK, os.makedev(7, 0))


Make = Callable[[str], object]
KINDS: list[Make] = [file, file, file, os.mkdir, symlink, os.mkfifo, listening]
KINDS += [character_device, whiteout, block_device]

MODES = [0o644, 0, 0o1755, 0o2755, 0o2644, 0o4755, 0o6711]
modes = st.sampled_from(MODES) | st.integers(0, 0o7777)
attributes = st.frozensets(st.sampled_from(list(ATTRIBUTES)), max_size=3) | st.just(
    frozenset(ATTRIBUTES)
)
entries = st.builds(
    Entry,
    st.sampled_from(KINDS),
    modes,
    st.sampled_from(OWNERS),
    st.just(frozenset[str]()) | attributes,
    st.integers(0, 5).map(lambda one: one == 0),
)
# Any bytes that are a name. Names may be asked for that are not there, or too long, or twice.
names = (
    st.binary(min_size=1, max_size=12)
    .map(lambda name: name.replace(b"/", b"-").replace(b"\0", b"\n"))
    .filter(lambda name: name not in {b".", b"..", b":socket", b":links"})
    .map(os.fsdecode)
)
asked = st.lists(names | st.sampled_from(["n" * 255, "n" * 256, "\udcff" * 255]), max_size=4)
folders = st.dictionaries(names, entries, max_size=8)
options = st.builds(
    StepOptions,
    st.dictionaries(st.sampled_from(OWNERS), st.sampled_from(OWNERS)).map(
        lambda owners: tuple(owners.items())
    ),
    st.sampled_from(MOMENTS),
    st.sampled_from(RULES),
    until=st.sampled_from(MOMENTS),
    search=st.booleans(),
    uids=st.sampled_from([b"", packed(EVERY_ID)]),
    threads=st.integers(-1, 3),
)


def make(wanted: dict[str, Entry]) -> None:
    """Make these entries in the current folder."""
    os.mkdir(":links")
    for number, (name, entry) in enumerate(wanted.items()):
        entry.kind(name)
        os.lchown(name, *entry.owner)
        for attribute in sorted(entry.attributes):
            # Not every kind of entry may have each, nor on every file system.
            with suppress(OSError):
                os.setxattr(name, attribute, ATTRIBUTES[attribute], follow_symlinks=False)
        if entry.kind is not symlink:
            os.chmod(name, entry.mode)
        if entry.linked and entry.kind is not os.mkdir:
            os.link(name, f":links/{number}", follow_symlinks=False)


def state() -> dict[str, Any]:
    """All of the current folder that a step could change."""
    found = {}
    for name in sorted(os.listdir()):
        seen = os.lstat(name)
        has = os.listxattr(name, follow_symlinks=False)
        values = {one: os.getxattr(name, one, follow_symlinks=False) for one in has}
        found[name] = (seen.st_mode, seen.st_uid, seen.st_gid, seen.st_nlink, seen.st_rdev, values)
    return found


def on_twins(
    wanted: dict[str, Entry], one: Callable[[int], object], other: Callable[[int], object]
) -> None:
    """Call one function in a folder with these entries, and the other in its twin: both do the same.

    Each gets a descriptor of its folder.
    """
    before = os.getcwd()
    outcomes = []
    for call in (one, other):
        with tempfile.TemporaryDirectory() as place:
            opened = os.open(place, os.O_RDONLY)
            try:
                os.chdir(place)
                make(wanted)
                descriptors = os.listdir("/proc/self/fd")
                os.chdir(before)
                answer = call(opened)
                assert os.getcwd() == os.path.realpath(place)
                assert os.listdir("/proc/self/fd") == descriptors
                outcomes.append((answer, state()))
            finally:
                os.chdir(before)
                os.close(opened)
    assert outcomes[0] == outcomes[1]


def one_of_each() -> dict[str, Entry]:
    """A folder with an entry of each kind with each mode, and with each attribute, with all and with none."""
    sets = [frozenset(ATTRIBUTES), *(frozenset({attribute}) for attribute in ATTRIBUTES)]
    found = [
        Entry(kind, mode, OWNERS[1], has, linked)
        for kind in dict.fromkeys(KINDS)
        for mode, has, linked in [
            *((mode, frozenset[str](), False) for mode in MODES),
            *((0o644, has, False) for has in sets),
            (0o644, frozenset[str](), True),
        ]
    ]
    return {f"{number}": entry for number, entry in enumerate(found)}


@pytest.fixture(autouse=True, scope="module")
def is_compiled() -> None:
    if compiled.step is None:
        missing("the compiled step")


def step_in_c(where: int, given_names: list[str], chosen: StepOptions) -> FolderListing:
    assert compiled.step
    return FolderListing(*compiled.step(where, given_names, chosen))


EACH = ((OWNERS[1], OWNERS[2]),)


@settings(max_examples=1000 if CI else 20)
@given(wanted=folders, more=asked, chosen=options, turned=st.booleans())
@example(one_of_each(), [], StepOptions(EACH), False)
@example(one_of_each(), [], StepOptions(EACH, pinning=BY_NAME), False)
@example(one_of_each(), [], StepOptions(search=True), True)
def test_both_steps_do_the_same_with_any_folder(
    wanted: dict[str, Entry], more: list[str], chosen: StepOptions, turned: bool
) -> None:
    given_names = [*wanted, *more]
    if turned:
        given_names.reverse()

    on_twins(
        wanted,
        lambda where: step_in_c(where, given_names, chosen),
        lambda where: step_in_python(where, given_names, chosen),
    )
