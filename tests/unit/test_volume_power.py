"""Nobody gains power: the rule, tried on every file of a small space, every map and every direction."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from tests.command import needs_root
from tests.unit.xattrs import v2, v3
from usernsplan import IdMap, IdRange, IdSet, Mapping
from usernsplan.fixing import FixRequest
from usernsplan.mapping import Extent
from usernsplan.mapping import Pass as Passed
from usernsplan.model import Allocation, LedgerState
from usernsplan.volume import decide, power, targets
from usernsplan.volume.decide import HostIds
from usernsplan.volume.passes import Form, Leg, Pass
from usernsplan.volume.power import (
    Images,
    commands,
    images,
    is_setgid,
    is_setuid,
    lawful,
    lost,
    without,
)
from usernsplan.volume.targets import OwnershipRule

WEB, OLD = 100000, 200000
ALICE = 70000  # an account of the host, with an id that lies high
KINDS = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFIFO)
MODES = (0o755, 0o4755, 0o2755, 0o2745, 0o6755, 0o4644)
IDS = (0, 1, 2, WEB, WEB + 1, OLD, ALICE)
CAPABILITIES = (None, v2(), v3(1), v3(WEB), v3(OLD), v3(ALICE))


def mapping(*extents: tuple[int, int, int]) -> Mapping:
    return Mapping(IdMap.of(*extents), IdMap.of(*extents))


def allocation(name: str, start: int, *extents: tuple[int, int, int]) -> Allocation:
    return Allocation(name, name, "per-container", mapping(*extents), IdRange(start, 10))


TEN = allocation("web", WEB, (0, WEB, 10))
FORMER = allocation("old", OLD, (0, OLD, 10))
BOTH = LedgerState(allocations=(TEN, FORMER))
HOST = HostIds(IdSet([IdRange(0, 3), IdRange(ALICE, 1)]))
# ALICE passes through as container id 5.
PASSING = allocation("web", WEB, (0, WEB, 5), (5, ALICE, 1))

Case = tuple[OwnershipRule, FixRequest, LedgerState, Allocation | None]


def explicit(*extents: tuple[int, int, int], reverse: bool = False) -> Case:
    ids = IdMap.of(*extents)
    words = tuple(":".join(map(str, extent)) for extent in extents)
    request = FixRequest(("/vol",), uid_map=words, gid_map=words, reverse=reverse)
    return targets.explicit(ids, ids, reverse=reverse, keep=True), request, BOTH, None


CASES: dict[str, Case] = {
    "shift": (targets.shift(TEN.mapping, keep=True), FixRequest(("/vol",)), BOTH, TEN),
    "passing": (
        targets.shift(PASSING.mapping, keep=True),
        FixRequest(("/vol",)),
        LedgerState((PASSING,)),
        PASSING,
    ),
    "own": (targets.own(TEN.mapping, (0, 0), keep=True), FixRequest(("/vol",)), BOTH, TEN),
    "own-1": (targets.own(TEN.mapping, (1, 2), keep=True), FixRequest(("/vol",)), BOTH, TEN),
    "reverse": (
        targets.shift(TEN.mapping, reverse=True, keep=True),
        FixRequest(("/vol",), reverse=True),
        BOTH,
        TEN,
    ),
    "from-one-that-stands": (
        targets.move(FORMER.mapping, TEN.mapping, keep=True),
        FixRequest(("/vol",), source="old"),
        BOTH,
        TEN,
    ),
    "from-a-released-one": (
        targets.move(FORMER.mapping, TEN.mapping, keep=True),
        FixRequest(("/vol",), source="old"),
        LedgerState((TEN,)),
        TEN,
    ),
    "explicit-to-nobody": explicit((0, 300000, 10)),
    "explicit-to-root": explicit((1, 0, 1)),
    "explicit-to-people": explicit((1, 1000, 5), (WEB, 2000, 10)),
    "explicit-to-an-account": explicit((1, ALICE, 1)),
    "explicit-to-two-containers": explicit((0, WEB, 1), (1, OLD, 1)),
    "explicit-back": explicit((0, 300000, 10), reverse=True),
}
# Which new ids are nothing but images of old ones: told from the story of each case, not from the code.
IMAGES: dict[str, set[int]] = {
    "shift": {*range(WEB, WEB + 10)},
    "passing": {*range(WEB, WEB + 5)},
    "from-a-released-one": {*range(WEB, WEB + 10)},
    "explicit-to-nobody": {*range(300000, 300010)},
}


def becomes(form: Form) -> tuple[set[int], set[int], set[int]]:
    """Whom one can become through a file: users, groups, and roots whose capabilities one gets. Root is everybody."""
    users, groups, roots = set(), set(), set()
    if stat.S_ISREG(form.mode):
        if form.mode & stat.S_ISUID:
            users.add(form.owner[0])
        if form.mode & stat.S_ISGID and form.mode & stat.S_IXGRP:
            groups.add(form.owner[1])
        if form.capability is not None:
            roots.add(int.from_bytes(form.capability[20:], "little"))
    return users, groups, roots


def may(old: Form, before: set[int], after: set[int], same: set[int], everybody: bool) -> bool:
    return (
        bool(before) and (everybody or before == after or after <= same)
        if after
        else old is not None
    )


@pytest.mark.parametrize("case", CASES)
def test_nobody_can_become_more_than_before_and_all_else_stays(case: str) -> None:
    rule, request, ledger, to = CASES[case]
    same = IMAGES.get(case, set())
    rule = replace(rule, same=decide.images_of(request, ledger, rule, HOST, to))
    there = Pass(rule)
    tried = 0
    for kind, mode, uid, gid, capability in product(KINDS, MODES, IDS, IDS, CAPABILITIES):
        if capability is not None and kind != stat.S_IFREG:
            continue
        old = Form((uid, gid), kind | mode, capability=capability)
        new, whole = there.forms(old)[1], there.whole(old)
        was, is_, could = becomes(old), becomes(new), becomes(whole)
        users = may(old, was[0], could[0], same, 0 in was[0])
        groups = may(old, was[1], could[1], same, bool(was[1]) and old.owner == (0, 0))
        roots = may(old, was[2], could[2], same, 0 in was[2])
        if rule.owner is not None and uid not in {0, rule.owner[0]}:
            roots = not could[2]
        expected = tuple(
            ids if allowed else set()
            for ids, allowed in zip(could, (users, groups, roots), strict=True)
        )
        assert is_ == expected, (case, oct(mode), uid, gid, capability, new)
        # What is no power stays as it is.
        assert without(new) == without(whole)
        tried += 1
    assert tried == (len(CAPABILITIES) + 2) * len(MODES) * len(IDS) ** 2


@pytest.mark.parametrize("case", CASES)
def test_the_way_back_gives_nobody_more_than_he_has_now(case: str) -> None:
    """Without a proof: what undo may give in place."""
    rule = CASES[case][0]
    back = Pass(rule, Leg.BACK)
    for mode, uid, gid, capability in product(MODES, IDS, IDS, CAPABILITIES):
        first = Form((uid, gid), stat.S_IFREG | mode, capability=capability)
        now, wanted = back.forms(first)
        assert wanted == first
        given, has = becomes(lawful(now, first)), becomes(now)
        for there, here, is_root in zip(
            given,
            has,
            (0 in has[0], bool(has[1]) and now.owner == (0, 0), 0 in has[2]),
            strict=True,
        ):
            assert not there or there == here or is_root


def test_power_is_on_regular_files_and_setgid_needs_group_execute() -> None:
    assert is_setuid(stat.S_IFREG | 0o4644)
    assert not any(
        map(is_setuid, (stat.S_IFREG | 0o755, stat.S_IFDIR | 0o4755, stat.S_IFIFO | 0o4755))
    )
    assert is_setgid(stat.S_IFREG | 0o2755)
    # Mandatory locking, long ago: it is no power, and chown leaves it.
    assert not any(map(is_setgid, (stat.S_IFREG | 0o2745, stat.S_IFDIR | 0o2775)))


def test_images_are_the_targets_less_the_host_accounts_and_whatever_two_could_have() -> None:
    ids = IdSet([IdRange(0, 100), IdRange(70000, 100)])
    high = IdSet([IdRange(70000, 100)])
    assert images((ids, high), IdSet(), ()) == Images(high, high)
    assert images((ids, ids), IdSet([IdRange(70000, 1)]), ()).uids == IdSet([IdRange(70001, 99)])
    one, two = IdSet([IdRange(70000, 50)]), IdSet([IdRange(70050, 1)])
    assert images((high, high), IdSet(), (one,)).uids == high
    assert images((high, high), IdSet(), (one, IdSet([IdRange(90000, 1)]))).uids == high
    assert images((high, high), IdSet(), (one, two)).uids == IdSet([IdRange(70051, 49)])


def test_images_are_the_same_after_json() -> None:
    some = Images(IdSet([IdRange(5, 6), IdRange(100, 1)]), IdSet())
    assert Images.from_json(some.to_json()) == some


def test_a_capability_of_a_form_that_is_not_known_stays_only_as_it_is() -> None:
    old = Form((0, 0), stat.S_IFREG | 0o755, capability=b"strange")
    assert lawful(old, old) == old
    assert (
        lawful(old, Form((0, 0), stat.S_IFREG | 0o755, capability=b"stranger")).capability is None
    )


def test_other_capabilities_are_more_than_those_that_were_there() -> None:
    old = Form((0, 0), stat.S_IFREG | 0o755, capability=v2())
    more = bytes([*v2()[:4], 0xFF, *v2()[5:]])
    assert lawful(old, Form((0, 0), stat.S_IFREG | 0o755, capability=more)).capability is None


def test_what_is_lost_is_said_with_the_commands_that_give_it_back() -> None:
    whole = Form((33, 44), stat.S_IFREG | 0o6755, capability=v2())
    left = without(whole)
    assert lost(whole, left) == "setuid 33, setgid 44, capability"
    assert lost(whole, whole) == commands(whole, whole, "/a") == ""
    assert commands(whole, left, "/a b").startswith("chmod 6755 '/a b' && setcap ")


@needs_root
@pytest.mark.parametrize(
    "raw",
    [v2(), v3(100000), v2()[:4] + bytes([0, 0x20, 1, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0])],
)
def test_the_commands_give_it_back(tmp_path: Path, raw: bytes) -> None:
    if shutil.which("setcap") is None:
        pytest.skip("setcap is not installed")
    path = tmp_path / "a file"
    path.write_bytes(b"")
    whole = Form((0, 0), stat.S_IFREG | 0o4711, capability=raw)
    subprocess.run(["sh", "-c", commands(whole, without(whole), str(path))], check=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o4711
    assert os.getxattr(path, "security.capability") == raw


def test_power_is_what_a_form_has() -> None:
    assert power.has_power(Form((0, 0), stat.S_IFREG | 0o755, capability=v2()))
    assert not power.has_power(Form((0, 0), stat.S_IFREG | 0o755))
    assert not power.has_power(Form((0, 0), stat.S_IFDIR | 0o6777))


def test_ids_that_pass_are_images_of_nothing_for_any_container() -> None:
    # A person of a directory, whom no file names: container 3.
    person = 900_003
    ids = IdMap.of((0, WEB, 3), (3, person, 1), (4, WEB + 4, 6))
    web = replace(
        TEN,
        mapping=Mapping(ids, TEN.mapping.gids),
        passes=(Passed("uid", Extent(3, person, 1)),),
    )
    request, rule = FixRequest(("/vol",)), targets.shift(web.mapping)
    same = decide.images_of(request, LedgerState((web,)), rule, HOST, web)
    assert same.uids == IdSet([IdRange(WEB, 3), IdRange(WEB + 4, 6)])
    assert same.gids == IdSet([IdRange(WEB, 10)])
    # Nor if another container shows them, or has them in a slice of the same lines.
    shows = replace(FORMER, passes=(Passed("uid", Extent(0, WEB, 1)),))
    cut = replace(FORMER, name="cut", within="x", mapping=TEN.mapping, reserved_range=None)
    for other, left in ((shows, IdSet([IdRange(WEB + 1, 2), IdRange(WEB + 4, 6)])), (cut, IdSet())):
        same = decide.images_of(request, LedgerState((web, other)), rule, HOST, web)
        assert same.uids == left
    explicit_rule, asked, _, _ = explicit((0, person, 1))
    same = decide.images_of(asked, LedgerState((web,)), explicit_rule, HOST, None)
    assert same.uids == IdSet()
    # What another container has now is no image of it.
    moved = targets.move(FORMER.mapping, web.mapping)
    by_map = FixRequest(("/vol",), from_map=("b 0 1 1",))
    assert decide.images_of(by_map, LedgerState((web, FORMER)), moved, HOST, web) == Images()
    assert decide.images_of(by_map, LedgerState((web,)), moved, HOST, web).uids
