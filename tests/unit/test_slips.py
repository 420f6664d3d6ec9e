"""Maps of LXC as people write them: from guides and repositories, with the slips that are in some."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.each import each
from usernsplan.audit import slips
from usernsplan.ids import IdRange, IdSet

if TYPE_CHECKING:
    from usernsplan.mapping import Kind

UID: Kind = "uid"
LINE = IdSet([IdRange(100000, 65536)])


def rows(text: str) -> list[slips.Row]:
    """ "0 100000 1000, 1000 1000 1" as rows."""
    found = []
    for at, part in enumerate(text.split(", ")):
        container, host, size = map(int, part.split())
        found.append(slips.Row(container, host, size, at))
    return found


@each(
    "text",
    [
        "0 100000 65536",
        "0 100000 1000, 1000 1000 1, 1001 101001 64535",
        "0 100000 44, 44 44 1, 45 100045 59, 104 104 1, 105 100105 65431",
        # The container's number of a group is another than the host's.
        "0 100000 44, 44 44 1, 45 100045 62, 107 104 1, 108 100108 65428",
        "0 100000 5, 5 5 1, 6 100006 95, 101 997 1, 102 100102 2, 104 993 1, 105 100105 65430",
        "0 100000 1000, 1000 101000 1, 1001 101001 64535",
        # In any order, and with a range of another place.
        "1001 101001 64535, 1000 1000 1, 0 100000 1000",
        "0 100000 65536, 65536 1000000 65536",
        "0 100000 65536, 65536 165636 65536",
        # Few ids are wanted, or one belongs to another container.
        "0 100000 10, 33 100033 1, 65534 165534 1",
        "0 9800 100, 1000 9900 100",
        "0 100000 1000, 1000 200033 1, 1001 101001 64535",
        # The line is used to its last id, as Podman's keep-id does.
        "0 100000 1000, 1000 1000 1, 1001 101000 64536",
        "0 1000 1, 1 100000 65536",
        # An account of a directory service passes.
        "0 100000 1000, 1000 1634200001 1, 1001 101001 64535",
        "0 100000 1604, 1604 1604 3, 1607 101607 63929",
        "0 100000 1005, 1005 1005 1, 1006 101006 64530",
        # More ids than usual.
        "0 100000 1000, 1000 1000 1, 1001 101001 98999",
    ],
)
def test_a_map_that_is_meant(text: str) -> None:
    assert slips.refused(rows(text), UID) is None
    granted = LINE | IdSet([IdRange(165636, 65536)])
    assert list(slips.slips(rows(text), UID, granted)) == []


@each(
    ("text", "at", "fact", "meant"),
    [
        # One off after a hole, to either side, at the end or between two holes.
        ("0 100000 104, 104 104 1, 105 100106 65430", 2, "1 id above", "u 105 100105 65431"),
        ("0 100000 1000, 1000 1000 1, 1001 101000 64535", 2, "1 id below", "u 1001 101001 64535"),
        ("0 100000 1026, 1026 1026 1, 1027 101026 64509", 2, "1 id below", "u 1027 101027 64509"),
        (
            "0 100000 44, 44 44 1, 45 100046 59, 104 104 1, 105 100105 65431",
            2,
            "1 id above",
            "u 45 100045 59",
        ),
        # A digit is wrong.
        (
            "0 100000 44, 44 44 1, 45 100045 59, 104 104 1, 105 101105 64432",
            4,
            "1000 ids above",
            "u 105 100105 65431",
        ),
        (
            "0 100000 1000, 1000 1000 1, 1001 10101 64535",
            2,
            "the host ids 10101-74635",
            "u 1001 101001 64535",
        ),
        # The first extent is off: the line begins where the others mean it to.
        ("0 100001 1000, 1000 1000 1, 1001 101001 64535", 0, "1 id above", "u 0 100000 1000"),
        # The count is one too small, so that an id before the hole has no host id; or after it.
        ("0 100000 44, 44 44 1, 45 100045 58, 104 104 1, 105 100105 65431", 3, "uid 103", ""),
        ("0 100000 1000, 1005 1005 1, 1006 101006 64530", 1, "uids 1000-1004", ""),
        ("0 100000 1000, 1000 1000 1, 1002 101002 64534", 2, "uid 1001", ""),
        # The line of the hole was forgotten.
        ("0 100000 44, 45 100045 65491", 1, "uid 44", ""),
        # The last count is that of another hole, or of the whole.
        ("0 100000 1000, 1000 1000 1, 1001 101001 64530", 2, "nobody", "u 1001 101001 64535"),
        ("0 100000 1000, 1000 1000 1, 1001 101001 65536", 2, "66536", "u 1001 101001 64535"),
        ("0 100000 1000, 1000 1000 1, 1001 101001 64536", 2, "65536 (", "u 1001 101001 64535"),
    ],
)
def test_a_slip(text: str, at: int, fact: str, meant: str) -> None:
    assert slips.refused(rows(text), UID) is None
    [found] = slips.slips(rows(text), UID, LINE)
    assert (found.at, found.meant) == (at, meant)
    assert fact in found.fact


@each(
    ("text", "at", "fact", "meant"),
    [
        (
            "0 100000 65536, 1000 1000 1",
            1,
            "overlap in their container ids",
            "u 0 100000 1000, u 1000 1000 1, u 1001 101001 64535",
        ),
        ("0 100000 65536, 0 100000 65536", 1, "is there twice: ids that overlap", ""),
        # The first line was not shortened by the id that passes.
        (
            "0 100000 1001, 1000 1000 1, 1001 101001 64535",
            1,
            "overlap in their container ids",
            "u 0 100000 1000, u 1000 1000 1, u 1001 101001 64535",
        ),
        ("1000 100000 65536", 0, "no line maps container root", "u 0 100000 65536"),
        ("0 100000 104, 104 104 1, 105 104 1", 2, "overlap in their host ids", ""),
        # The host id is first in the line that passes.
        (
            "0 100000 1000, 123 1000 1, 1001 101001 64534",
            1,
            "overlap in their container ids",
            "u 1000 123 1",
        ),
        ("100000 0 65536", 0, "has the host id first", "u 0 100000 65536"),
        ("1000 1000 1", 0, "no line maps container root, uid 0", ""),
        ("1 100001 65535", 0, "no line maps container root", ""),
        ("0 100000 65536, 70000 104 0", 1, "its count is 0", ""),
        ("0 4294967290 65536", 0, "not an extent that the kernel accepts", ""),
        (", ".join(f"{n} {100000 + n} 1" for n in range(341)), 340, "341 extents", ""),
    ],
)
def test_a_map_that_is_refused(text: str, at: int, fact: str, meant: str) -> None:
    found = slips.refused(rows(text), UID)
    assert found is not None
    assert (found.at, found.meant) == (at, meant)
    assert fact in found.fact


def test_what_was_meant_where_ids_are_not_granted() -> None:
    """root:104:1 is there, and the map has the host's 107 as container id 104."""
    has = LINE | IdSet([IdRange(104, 1)])
    wrong = rows("0 100000 104, 104 107 1, 105 100105 65431")
    meant = "u 0 100000 107, u 107 104 1, u 108 100108 65428"
    assert slips.swapped(wrong, UID, has) == meant
    assert slips.swapped(wrong, UID, has | IdSet([IdRange(107, 1)])) == ""
    assert slips.swapped(wrong, UID, LINE) == ""
    # A map of gids alone: the base of the uids is that of the gids.
    gids = rows("0 100000 44, 44 44 1, 45 100045 65491")
    assert slips.lacks(UID, gids).remedy == "add u 0 100000 65536"
    assert slips.lacks("gid", rows("0 0 10")).remedy == ""


def test_the_two_maps_of_container_root_are_nearly_alike() -> None:
    both: dict[Kind, IdSet] = {"uid": LINE, "gid": LINE}
    found = slips.unlike(rows("0 100000 65536"), rows("0 100001 65535"), both)
    assert found is not None
    assert found.meant == "g 0 100000 65535"
    assert slips.unlike(rows("0 100000 65536"), rows("0 100000 65536"), both) is None
    # Two lines that begin in different places are meant.
    apart: dict[Kind, IdSet] = {"uid": LINE, "gid": IdSet([IdRange(100001, 65536)])}
    assert slips.unlike(rows("0 100000 65536"), rows("0 100001 65536"), apart) is None
    assert slips.unlike(rows("0 100000 65536"), rows("0 1000 1, 1 100000 9"), both) is None
