"""The compiled step and the one in Python do the same with any folder: twins of it, one for each.

What they hand back is compared, and what the twins are afterwards: of ``folder.step``, and of ``special.looked`` and
``special.carried`` for the entries that need care. For another function that is written twice, add a test that calls it in
``on_twins``.
"""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.command import missing, needs_root
from tests.examples import CI
from tests.unit.xattrs import GROUP, MASK, NOBODY, PLAIN, USER, acl, v2, v3
from usernsplan.ids import EVERY_ID
from usernsplan.volume import compiled, power, special, syscalls
from usernsplan.volume.folder import BY_NAME, FolderListing, StepOptions, packed, step_in_python
from usernsplan.volume.metadata import ACL_ACCESS, ACL_DEFAULT, CAPABILITY
from usernsplan.volume.passes import Form

if TYPE_CHECKING:
    from usernsplan.volume.entries import Special

pytestmark = needs_root

# An owner of an entry is likely to be one that gets another, and ids have 32 bits.
OWNERS = [(uid, gid) for uid in (0, 33, 4_294_967_294) for gid in (0, 1000)]
BENEATH = syscalls.BENEATH | syscalls.NO_SYMLINKS | syscalls.NO_MAGICLINKS | syscalls.NO_XDEV
RULES = [BY_NAME, 0, BENEATH, 1 << 60]
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


@settings(max_examples=1000 if CI else 20)
@given(wanted=folders, more=asked, pinning=st.sampled_from([0, BENEATH]))
@example(one_of_each(), ["n" * 256, "gone"], BENEATH)
def test_both_looks_at_entries_that_need_care_see_the_same(
    wanted: dict[str, Entry], more: list[str], pinning: int
) -> None:
    def both(where: int) -> None:
        os.fchdir(where)
        assert compiled.care
        given_names = [*wanted, ":links", ".", *more]
        found = compiled.care(given_names, pinning)
        assert found == special.care_in_python(given_names, pinning)

    on_twins(wanted, both, both)


class Plan(NamedTuple):
    """What becomes of the entries: ``back`` and ``lacks`` tell whether it is an undo, and whether they lose power.

    ``meddled`` is what others do to each entry between the look and the change, in turn.
    """

    owner: tuple[int, int]
    olds: tuple[tuple[int, int], ...]
    moves_acls: bool
    back: bool
    lacks: bool
    meddled: list[str]

    def change(self, form: Form) -> special.Change:
        """The change of entries with this form."""
        moved = MOVED if self.moves_acls else ACL
        new = Form(
            self.owner,
            form.mode,
            form.acl and form.acl.replace(USER_33, USER_9) if self.moves_acls else form.acl,
            form.default_acl and moved,
            form.capability and v3(9),
        )
        left = power.without(new) if self.lacks else new
        olds = (form.owner, *self.olds)
        if self.back:
            return special.Change(olds, form, new, form, back=True)
        return special.Change(olds, form, left, new)


USER_33, USER_9 = ((id_).to_bytes(4, "little") for id_ in (33, 9))
MOVED = ACL.replace(USER_33, USER_9)
# What a kill leaves, and what others do.
MEDDLED = ["chowned", "given away", "chmodded", "linked", "moved", "replaced"]
MEDDLED += ["ACL", "another ACL", "capability"]


def meddle(name: str, what: str, change: special.Change) -> None:
    """Do one of these to an entry. Not every kind of entry may have each."""
    away = f":links/{name[:100]}"
    with suppress(OSError):
        match what:
            case "chowned":
                os.lchown(name, *change.new.owner)
            case "given away":
                os.lchown(name, 5, 5)
            case "chmodded" if not os.path.islink(name):
                os.chmod(name, 0o4701)
            case "linked":
                os.link(name, away, follow_symlinks=False)
            case "moved" | "replaced":
                os.rename(name, away)
                if what == "replaced":
                    file(name)
            case "ACL" if change.new.acl:
                os.setxattr(name, ACL_ACCESS, change.new.acl)
            case "another ACL" if not os.path.islink(name):
                os.setxattr(name, ACL_ACCESS, acl(*PLAIN))
            case "capability" if not os.path.islink(name):
                os.setxattr(name, CAPABILITY, v2())


plans = st.builds(
    Plan,
    st.sampled_from([*OWNERS, (9, 9)]),
    st.sampled_from([(), (OWNERS[3],)]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.lists(st.sampled_from(["nothing", *MEDDLED]), min_size=1, max_size=8),
)


def carry_all(
    where: int, given_names: list[str], plan: Plan, pinning: int, *, preview: bool, bulk: bool
) -> dict[str, Any]:
    """Change entries, with ``bulk`` in bulk where that is possible: what became of each."""
    os.fchdir(where)
    groups, _ = special.looked(given_names, 0)
    work = [(group, plan.change(group.form)) for group in groups]
    for group, change in work:
        for name in group.names:
            meddle(name, plan.meddled[given_names.index(name) % len(plan.meddled)], change)

    results = iter(special.carried(work, pinning, preview=preview) if bulk else [])
    found: dict[str, Any] = {}
    for group, change in work:
        for entry in group.entries():
            result = next(results, special.OTHER)
            found[entry.name] = one_carried(entry, change, result, preview=preview)
    return found


def one_carried(
    entry: Special, change: special.Change, result: int, *, preview: bool
) -> tuple[object, ...]:
    """What became of an entry, after what ``carried`` says of it."""
    if result > 0:
        return special.HalfDoneError, str(special.half_done(os.strerror(result)))
    if result != special.OTHER:
        return result == special.CHANGED, False
    one = special.foretell if preview else special.carry
    try:
        return tuple(one(entry, change, special.Care(partial(syscalls.pin, resolve=0)))[:2])
    except (OSError, special.MeanwhileError, special.HalfDoneError) as error:
        return type(error), str(error)


@settings(max_examples=2000 if CI else 60)
@given(
    wanted=folders,
    plan=plans,
    pinning=st.sampled_from([BY_NAME, 0, BENEATH]),
    preview=st.integers(0, 5).map(lambda one: one == 0),
)
@example(one_of_each(), Plan((9, 9), (), True, False, False, ["nothing"]), BENEATH, False)
@example(one_of_each(), Plan((9, 9), (), True, False, False, ["chowned"]), BY_NAME, False)
@example(one_of_each(), Plan((9, 9), (), False, True, False, ["nothing"]), 0, False)
@example(one_of_each(), Plan((9, 9), (), True, False, True, ["nothing"]), 0, False)
def test_what_is_changed_in_bulk_becomes_what_it_becomes_one_by_one(
    wanted: dict[str, Entry], plan: Plan, pinning: int, preview: bool
) -> None:
    change = partial(carry_all, given_names=[*wanted], plan=plan, pinning=pinning, preview=preview)
    on_twins(wanted, partial(change, bulk=True), partial(change, bulk=False))


def test_what_has_a_compiled_way_goes_it() -> None:
    """Otherwise the comparison above would compare Python with itself."""
    plan = Plan((9, 9), (), True, False, False, ["nothing"])
    wanted = {
        "a": Entry(file, 0o4755, OWNERS[1], frozenset(), False),
        "b": Entry(file, 0o644, OWNERS[1], frozenset({ACL_ACCESS}), True),
        "c": Entry(file, 0o6711, OWNERS[1], frozenset({ACL_ACCESS}), False),
    }

    def bulk(where: int) -> list[int]:
        os.fchdir(where)
        work = [(group, plan.change(group.form)) for group in special.looked([*wanted], 0)[0]]
        return special.carried(work, 0)

    with tempfile.TemporaryDirectory() as place:
        before, opened = os.getcwd(), os.open(place, os.O_RDONLY)
        try:
            os.chdir(place)
            make(wanted)
            assert bulk(opened) == [special.CHANGED] * 3
            assert [os.lstat(name).st_mode & 0o7777 for name in wanted] == [0o4755, 0o644, 0o6711]
            assert {os.lstat(name)[4:6] for name in wanted} == {(9, 9)}
            assert bulk(opened) == [special.RIGHT] * 3
        finally:
            os.chdir(before)
            os.close(opened)
