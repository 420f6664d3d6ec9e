"""The bytes of ACLs and capabilities, built by hand from the kernel's headers: posix_acl_xattr.h and capability.h."""

from __future__ import annotations

import struct

import pytest

from tests.unit.xattrs import (
    EFFECTIVE,
    GROUP,
    GROUP_OBJ,
    HIGH,
    MASK,
    NET_BIND,
    NET_RAW,
    NOBODY,
    OTHER,
    PLAIN,
    REVISION_1,
    REVISION_2,
    USER,
    USER_OBJ,
    acl,
    v2,
    v3,
)
from usernsplan.errors import InvalidValueError
from usernsplan.volume.metadata import CARRIED, capability_for, capability_rootid, moved_acl


def up(number: int) -> int | None:
    """Ids below 1000 go up by 100000; the others have no place."""
    return number + 100000 if number < 1000 else None


def up_more(number: int) -> int | None:
    return number + 200000 if number < 2000 else None


def unchanged(number: int) -> int:
    return number


def collapsed(_: int) -> int:
    return 7


# ACLs


def test_named_users_and_groups_move_each_by_their_own_map_and_nothing_else_does() -> None:
    entries = (
        (USER_OBJ, 6, NOBODY),
        (USER, 4, 33),
        (GROUP_OBJ, 4, NOBODY),
        (GROUP, 7, 33),
        (MASK, 7, NOBODY),
    )
    moved = moved_acl(acl(*entries, (OTHER, 0, NOBODY)), up, up_more)
    expected = (
        (USER_OBJ, 6, NOBODY),
        (USER, 4, 100033),
        (GROUP_OBJ, 4, NOBODY),
        (GROUP, 7, 200033),
        (MASK, 7, NOBODY),
    )
    assert moved == (acl(*expected, (OTHER, 0, NOBODY)), (), (), ())


def test_the_ids_of_unnamed_entries_are_left_even_where_they_look_like_ids() -> None:
    # The kernel writes -1 there, but takes anything.
    odd = acl((USER_OBJ, 7, 5), (GROUP_OBJ, 5, 6), (MASK, 7, 8), (OTHER, 0, 9))
    assert moved_acl(odd, up, up).raw == odd


def test_every_entry_of_one_kind_moves_and_the_order_stays_also_where_it_is_not_by_id() -> None:
    ids = (900, 3, 500, 0, 77)
    raw = acl(
        *PLAIN,
        *((USER, number % 8, number) for number in ids),
        *((GROUP, 1, number) for number in ids),
    )
    assert moved_acl(raw, up, up_more).raw == acl(
        *PLAIN,
        *((USER, number % 8, number + 100000) for number in ids),
        *((GROUP, 1, n + 200000) for n in ids),
    )


def test_an_id_without_a_place_stays_and_is_told_by_its_kind() -> None:
    raw = acl(
        *PLAIN, (USER, 4, 1000), (USER, 4, 1), (USER, 4, 5000), (GROUP, 4, 2000), (GROUP, 4, 1000)
    )
    moved = moved_acl(raw, up, up_more)
    assert moved.raw == acl(
        *PLAIN,
        (USER, 4, 1000),
        (USER, 4, 100001),
        (USER, 4, 5000),
        (GROUP, 4, 2000),
        (GROUP, 4, 201000),
    )
    assert (moved.unmapped_uids, moved.unmapped_gids, moved.duplicates) == (
        (1000, 5000),
        (2000,),
        (),
    )


def test_two_users_that_become_one_are_a_duplicate_and_a_user_and_a_group_are_not() -> None:
    one_each = acl(*PLAIN, (USER, 4, 5), (GROUP, 4, 6))
    assert moved_acl(one_each, collapsed, collapsed).duplicates == ()
    twice = acl(*PLAIN, (USER, 4, 5), (USER, 6, 7), (GROUP, 4, 5), (GROUP, 6, 6), (GROUP, 6, 9))
    assert moved_acl(twice, collapsed, collapsed).duplicates == ("user 7", "group 7", "group 7")


@pytest.mark.parametrize("ids", [(5, 1005), (1005, 5)])
def test_an_id_that_stays_and_one_that_moves_onto_it_are_a_duplicate(ids: tuple[int, int]) -> None:
    raw = acl(*PLAIN, *((USER, 4, number) for number in ids))
    assert moved_acl(raw, lambda _: 1005, unchanged).duplicates == ("user 1005",)


def test_ids_that_only_swap_are_no_duplicates() -> None:
    raw = acl(*PLAIN, (USER, 4, 1), (USER, 6, 2))
    moved = moved_acl(raw, lambda number: {1: 2, 2: 1}[number], unchanged)
    assert moved == (acl(*PLAIN, (USER, 4, 2), (USER, 6, 1)), (), (), ())


def test_an_acl_may_have_the_largest_id_and_a_header_alone() -> None:
    assert moved_acl(acl((USER, 4, 0)), lambda _: 4294967294, unchanged).raw == acl(
        (USER, 4, 4294967294)
    )
    assert moved_acl(acl(), up, up).raw == acl()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x02",
        b"\x02\x00\x00",
        struct.pack(">I", 2),
        struct.pack("<I", 1),
        struct.pack("<I", 3) + acl(*PLAIN)[4:],
        acl(*PLAIN)[:-1],
        acl(*PLAIN) + b"\0",
        acl(*PLAIN) + b"\0" * 7,
    ],
)
def test_an_acl_of_another_form_is_an_error_of_ours(raw: bytes) -> None:
    with pytest.raises(InvalidValueError, match="unknown ACL format"):
        moved_acl(raw, up, up)


# Capabilities


@pytest.mark.parametrize("flags", [0, EFFECTIVE, 0xFFFFFF])
@pytest.mark.parametrize("rootid", [1, 1000, 100000, 4294967294])
def test_a_capability_becomes_one_for_a_container_and_comes_back_byte_for_byte(
    flags: int, rootid: int
) -> None:
    assert capability_for(v2(flags), rootid) == v3(rootid, flags)
    assert capability_for(v3(rootid, flags), 0) == v2(flags)
    assert capability_for(capability_for(v2(flags), rootid), 0) == v2(flags)


def test_a_capability_of_one_container_becomes_one_for_another() -> None:
    assert capability_for(v3(1000), 100000) == v3(100000)


def test_the_root_of_a_capability_is_the_host_s_for_version_2() -> None:
    assert capability_rootid(v2()) == 0
    assert capability_rootid(v2(0)) == 0
    assert capability_rootid(v3(1000)) == 1000
    assert capability_rootid(v3(4294967294, 0)) == 4294967294
    assert capability_rootid(v3(0)) == 0


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0" * 3,
        v2()[:-1],
        v2() + b"\0",
        v2() + b"\0" * 4,
        v3(1)[:-1],
        v3(1)[:-4],
        v3(1) + b"\0",
        struct.pack("<3I", REVISION_1, NET_BIND, NET_RAW),
        struct.pack("<5I", REVISION_1, NET_BIND, NET_RAW, HIGH, 0),
        struct.pack("<6I", 0x04000000, NET_BIND, NET_RAW, HIGH, 0, 1),
        struct.pack(">5I", REVISION_2, NET_BIND, NET_RAW, HIGH, 0),
    ],
)
def test_a_capability_of_another_form_is_an_error_of_ours(raw: bytes) -> None:
    with pytest.raises(InvalidValueError, match="unknown capability format"):
        capability_rootid(raw)


def test_what_a_chown_destroys_or_leaves_stale_is_carried_and_nothing_else() -> None:
    assert {"system.posix_acl_access", "system.posix_acl_default", "security.capability"} == CARRIED
