"""Words, ledger and what was seen become a decision: which path, which container, which rule, and whether it may be."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from dataclasses import replace

import pytest

from tests.each import each
from tests.unit.states import per_container
from usernsplan import Allocation, IdMap, IdRange, Mapping
from usernsplan.errors import InvalidValueError, RefusedError
from usernsplan.fixing import FixRequest
from usernsplan.formats.accounts import Accounts, Group, User
from usernsplan.layout import Layout
from usernsplan.model import LedgerState, Quarantined, Volume
from usernsplan.volume import targets
from usernsplan.volume.decide import container_of, source_of
from usernsplan.volume.judge import Judgement, weigh
from usernsplan.volume.options import targets_of
from usernsplan.volume.seen import Linked, Seen, merged

WEB, DB = per_container("web", 589824), per_container("db", 665536)
NOBODY = Accounts()
IMAGE = Accounts(
    (User("root", 0, 0), User("www-data", 33, 34), User("twin", 33, 99), User("far", 70000, 0)),
    (Group("www", 55), Group("far", 70000)),
)
ASKED = FixRequest(("/srv/vol",))


# Which path


@pytest.mark.parametrize(
    ("words", "source"),
    [
        ("/srv/vol", "/srv/vol"),
        ("/srv/vol:/data", "/srv/vol"),
        ("/srv/vol:/data:U", "/srv/vol"),
        ("/srv/vol:/data:", "/srv/vol"),
        ("/srv/vol:/data:ro,U,z", "/srv/vol"),
        ("/srv/vol:/data:size=5", "/srv/vol"),
        ("/srv/vol:/", "/srv/vol"),
        ("srv/vol:/data", "srv/vol"),
        ("/srv/a:b:/data:U", "/srv/a:b"),
        ("/srv/a:/b:/data:U", "/srv/a:/b"),
        ("/srv/a:/b:/data", "/srv/a:/b"),
        ("/srv/a\nb:/data:U", "/srv/a\nb"),
        # These are names.
        ("/srv/a:b", "/srv/a:b"),
        ("/srv/vol:", "/srv/vol:"),
        ("/srv/vol:U", "/srv/vol:U"),
        (":/data:U", ":/data:U"),
        ("", ""),
        ("/srv/vol:/data:idmap:U", "/srv/vol:/data:idmap:U"),
    ],
)
def test_a_mount_means_its_source(words: str, source: str) -> None:
    assert source_of(words, exists=False) == source


@pytest.mark.parametrize("words", ["/srv/vol:/data:U", "/srv/vol:/data:idmap", "/srv/vol"])
def test_a_folder_of_the_whole_name_is_meant_where_there_is_one(words: str) -> None:
    assert source_of(words, exists=True) == words


@pytest.mark.parametrize("options", ["idmap", "U,idmap", "ro,idmap,U", "idmap=uids=0-1-10"])
def test_a_mount_with_idmap_needs_no_fixing(options: str) -> None:
    with pytest.raises(InvalidValueError, match="idmap"):
        source_of(f"/srv/vol:/data:{options}", exists=False)


@pytest.mark.parametrize("options", ["noidmap", "idmapped", "U,noidmap=idmap"])
def test_what_only_looks_like_idmap_is_an_option_like_others(options: str) -> None:
    assert source_of(f"/srv/vol:/data:{options}", exists=False) == "/srv/vol"


# Which container


def ledger(*allocations: Allocation, volumes: dict[str, str] | None = None) -> LedgerState:
    return LedgerState(
        allocations, volumes=tuple(Volume(p, name, "own") for p, name in (volumes or {}).items())
    )


@pytest.mark.parametrize(
    ("held", "asked", "names", "chosen"),
    [
        # --container is always what is meant.
        (ledger(WEB, DB), "db", ("/a",), DB),
        (ledger(WEB, DB, volumes={"/a": "web"}), "db", ("/a",), DB),
        # The one that has it recorded.
        (ledger(WEB, DB, volumes={"/a": "web"}), None, ("/a",), WEB),
        (ledger(WEB, DB, volumes={"/a": "db", "/b": "db"}), None, ("/a", "/b"), DB),
        # The only one.
        (ledger(WEB), None, ("/a",), WEB),
        (ledger(WEB), None, ("/a", "/b"), WEB),
        (ledger(WEB, volumes={"/elsewhere": "web"}), None, ("/a",), WEB),
        # A container that is gone is no candidate.
        (ledger(WEB, volumes={"/a": "gone"}), None, ("/a",), WEB),
        (ledger(WEB, volumes={"/a": "gone", "/b": "web"}), None, ("/b",), WEB),
    ],
)
def test_the_container_is_the_named_the_recorded_or_the_only_one(
    held: LedgerState, asked: str | None, names: tuple[str, ...], chosen: Allocation
) -> None:
    assert container_of(replace(ASKED, container=asked), held, names, Layout().command) == chosen


def test_the_only_container_is_meant_also_where_just_one_of_the_volumes_is_recorded() -> None:
    assert (
        container_of(ASKED, ledger(WEB, volumes={"/a": "web"}), ("/a", "/b"), Layout().command)
        == WEB
    )


@pytest.mark.parametrize(
    ("held", "names"),
    [
        (ledger(WEB, DB), ("/a",)),
        (ledger(WEB, DB, volumes={"/a": "web", "/b": "db"}), ("/a", "/b")),
        (ledger(WEB, DB, volumes={"/a": "web"}), ("/a", "/b")),
        (ledger(WEB, DB, volumes={"/a": "gone"}), ("/a",)),
        (ledger(WEB, DB, volumes={"/a/b": "web"}), ("/a",)),
        (ledger(WEB, DB, volumes={"/a": "web"}), ("/a/b",)),
    ],
)
def test_where_more_than_one_could_be_meant_the_candidates_are_listed(
    held: LedgerState, names: tuple[str]
) -> None:
    with pytest.raises(InvalidValueError) as raised:
        container_of(ASKED, held, names, Layout().command)
    assert "db, web" in raised.value.hint


@pytest.mark.parametrize("held", [ledger(), ledger(volumes={"/a": "gone"})])
def test_without_a_container_it_is_said_how_to_get_one(held: LedgerState) -> None:
    with pytest.raises(InvalidValueError) as raised:
        container_of(ASKED, held, ("/a",), Layout().command)
    assert "allocate" in raised.value.hint
    assert "--uid-map" in raised.value.hint


@pytest.mark.parametrize(
    ("held", "fact", "remedy"),
    [
        (ledger(), "no container has ids yet", "allocate dbb"),
        (ledger(WEB), "--container dbb", "web"),
    ],
)
def test_a_container_that_nobody_knows_is_an_error(
    held: LedgerState, fact: str, remedy: str
) -> None:
    with pytest.raises(InvalidValueError, match=fact) as raised:
        container_of(replace(ASKED, container="dbb"), held, ("/a",), Layout().command)
    assert remedy in (raised.value.hint or "")


def test_typed_maps_are_for_no_container() -> None:
    asked = replace(ASKED, uid_map=("0:1:1",), gid_map=("0:1:1",))
    assert (
        container_of(
            asked, ledger(WEB, volumes={"/srv/vol": "web"}), ("/srv/vol",), Layout().command
        )
        is None
    )


# Which rule


def test_the_default_is_own_by_the_root_of_the_container() -> None:
    assert targets_of(ASKED, ledger(WEB), WEB, NOBODY) == targets.own(WEB.mapping, (0, 0))
    own = replace(ASKED, mode="own", keep_unmapped=True)
    assert targets_of(own, ledger(WEB), WEB, NOBODY) == targets.own(WEB.mapping, (0, 0), keep=True)


def test_shift_reverse_and_from_are_the_rules_of_their_names() -> None:
    held = ledger(WEB, DB)
    shift = replace(ASKED, mode="shift")
    assert targets_of(shift, held, WEB, NOBODY) == targets.shift(WEB.mapping)
    for words in (replace(ASKED, reverse=True), replace(shift, reverse=True)):
        assert targets_of(words, held, WEB, NOBODY) == targets.shift(WEB.mapping, reverse=True)
    for words in (replace(ASKED, source="db"), replace(shift, source="db")):
        assert targets_of(words, held, WEB, NOBODY) == targets.move(DB.mapping, WEB.mapping)
    kept = replace(shift, keep_unmapped=True)
    assert targets_of(kept, held, WEB, NOBODY) == targets.shift(WEB.mapping, keep=True)


def test_typed_maps_are_a_shift_each_extent_of_them() -> None:
    asked = replace(ASKED, uid_map=("0:100000:10", "50:200000:1"), gid_map=("0:7:1",))
    uids, gids = IdMap.of((0, 100000, 10), (50, 200000, 1)), IdMap.of((0, 7, 1))
    assert targets_of(asked, ledger(), None, NOBODY) == targets.explicit(uids, gids)
    for more in ({"mode": "shift"}, {}):
        words = replace(asked, reverse=True, **more)  # type: ignore[arg-type]
        assert targets_of(words, ledger(), None, NOBODY) == targets.explicit(
            uids, gids, reverse=True
        )


MAPS: dict[str, object] = {"uid_map": ("0:1:1",), "gid_map": ("0:1:1",)}


@pytest.mark.parametrize(
    "words",
    [
        {"mode": "own", "reverse": True},
        {"mode": "own", "source": "db"},
        {"mode": "own", **MAPS},
        {"user": "33", "mode": "shift"},
        {"user": "33", "reverse": True},
        {"user": "33", "source": "db"},
        {"user": "33", "reverse": True, **MAPS},
        {"user": "33", "mode": "shift", **MAPS},
        {"reverse": True, "source": "db"},
        {"source": "web"},
        {"source": "web", "container": "web"},
        {"container": "web", **MAPS},
        {"source": "db", **MAPS},
        {"passwd": "/p"},
        {"passwd": "/p", "mode": "shift"},
        {"uid_map": ("0:1:1",)},
        {"gid_map": ("0:1:1",)},
    ],
    ids="+".join,
)
def test_words_that_say_two_different_things_are_refused_whatever_the_container(
    words: dict[str, object],
) -> None:
    asked = replace(ASKED, **words)  # type: ignore[arg-type]
    for allocation in (WEB, None):
        with pytest.raises(InvalidValueError):
            targets_of(asked, ledger(WEB, DB), allocation, NOBODY)


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"mode": "own"},
        {"mode": "shift"},
        {"user": "33"},
        {"user": "33", "mode": "own"},
        {"user": "33", "passwd": "/p"},
        {"reverse": True, "mode": "shift"},
        {"source": "db", "mode": "shift"},
        {"source": "db", "container": "web"},
        {"container": "web", "reverse": True},
        {"keep_unmapped": True, "reverse": True},
        {"user": "0", **MAPS},
        {"user": "0", "mode": "own", **MAPS},
    ],
    ids=lambda words: "+".join(words) or "nothing",
)
def test_words_that_go_together_are_taken(words: dict[str, object]) -> None:
    targets_of(replace(ASKED, **words), ledger(WEB, DB), WEB, NOBODY)  # type: ignore[arg-type]


@each(
    "text",
    [
        "",
        "0",
        "0:1",
        "0:1:",
        "0:1:1:1",
        "a:1:1",
        "0:-1:1",
        "0x0:1:1",
        "0 1 1",
        "0:1:1,5:6:1",
        " 0:1:1",
        "0:1:1\n",
    ],
)
@each("option", ["--uid-map", "--gid-map"])
def test_a_map_is_three_numbers(text: str, option: str) -> None:
    words = {**MAPS, option[2:].replace("-", "_"): ("5:6:1", text)}
    with pytest.raises(InvalidValueError, match=re.escape(f"{option} {text}")):
        targets_of(replace(ASKED, **words), ledger(), None, NOBODY)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "texts", [("0:1:0",), ("4294967295:0:1",), ("0:4294967294:2",), ("0:1:2", "1:9:1")]
)
def test_a_map_that_no_kernel_takes_is_an_error_of_ours(texts: tuple[str, ...]) -> None:
    with pytest.raises(InvalidValueError):
        targets_of(replace(ASKED, uid_map=texts, gid_map=("0:1:1",)), ledger(), None, NOBODY)


@pytest.mark.parametrize(
    "words", [{"uid_map": ("0:" + "9" * 5000 + ":1",), "gid_map": ("0:1:1",)}, {"user": "9" * 5000}]
)
def test_a_number_of_thousands_of_digits_is_an_error_of_ours(words: dict[str, object]) -> None:
    allocation = None if "uid_map" in words else WEB
    with pytest.raises(InvalidValueError):
        targets_of(replace(ASKED, **words), ledger(WEB), allocation, NOBODY)  # type: ignore[arg-type]


def test_files_can_be_moved_out_of_a_range_that_was_released() -> None:
    released = Quarantined("old", IdRange(786432, 65536), "")
    before = replace(ledger(WEB, DB), quarantined=(released,))
    old = Mapping(IdMap.of((0, 786432, 65536)), IdMap.of((0, 786432, 65536)))
    assert targets_of(replace(ASKED, source="old"), before, WEB, NOBODY) == targets.move(
        old, WEB.mapping
    )
    # Released and allocated anew under one name: out of the former range.
    again = replace(ledger(WEB, DB), quarantined=(replace(released, name="web"),))
    assert targets_of(replace(ASKED, source="web"), again, WEB, NOBODY) == targets.move(
        old, WEB.mapping
    )
    # A name that stands is meant, whatever was released under it.
    both = replace(ledger(WEB, DB), quarantined=(replace(released, name="db"),))
    assert targets_of(replace(ASKED, source="db"), both, WEB, NOBODY) == targets.move(
        DB.mapping, WEB.mapping
    )
    twice = replace(
        before, quarantined=(released, replace(released, reserved_range=IdRange(851968, 65536)))
    )
    with pytest.raises(InvalidValueError, match="786432-851967, 851968-917503"):
        targets_of(replace(ASKED, source="old"), twice, WEB, NOBODY)


def test_a_container_that_nobody_knows_cannot_be_moved_from() -> None:
    with pytest.raises(InvalidValueError, match="--from gone"):
        targets_of(replace(ASKED, source="gone"), ledger(WEB, DB), WEB, NOBODY)


# --user


@pytest.mark.parametrize(
    ("user", "passwd", "owner"),
    [
        ("0", NOBODY, (0, 0)),
        ("33", NOBODY, (33, 0)),
        ("33:33", NOBODY, (33, 33)),
        ("33:44", IMAGE, (33, 44)),
        ("33", IMAGE, (33, 34)),
        ("34", IMAGE, (34, 0)),
        ("www-data", IMAGE, (33, 34)),
        ("twin", IMAGE, (33, 99)),
        ("www-data:www", IMAGE, (33, 55)),
        ("www-data:5", IMAGE, (33, 5)),
        ("7:www", IMAGE, (7, 55)),
        ("0065535:00", NOBODY, (65535, 0)),
    ],
)
def test_a_user_is_a_number_or_a_name_of_the_image(
    user: str, passwd: Accounts, owner: tuple[int, int]
) -> None:
    rule = targets_of(replace(ASKED, user=user), ledger(WEB), WEB, passwd)
    assert rule.owner == (589824 + owner[0], 589824 + owner[1])


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ("www-data", "no such user"),
        ("", "no such user"),
        (":33", "no such user"),
        ("-1", "no such user"),
        ("+5", "no such user"),
        ("³", "no such user"),
        ("\u0661", "no such user"),
        ("33:www", "no such group"),
        ("33:", "no such group"),
        ("33:33:33", "no such group"),
        ("33:-1", "no such group"),
        ("65536", "no uid 65536"),
        ("0:65536", "no gid 65536"),
    ],
)
def test_a_user_that_there_is_not_is_an_error(user: str, said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        targets_of(replace(ASKED, user=user), ledger(WEB), WEB, NOBODY)


@pytest.mark.parametrize(("user", "said"), [("far", "no uid 70000"), ("0:far", "no gid 70000")])
def test_a_name_whose_number_the_container_lacks_is_an_error(user: str, said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        targets_of(replace(ASKED, user=user), ledger(WEB), WEB, IMAGE)


# May it be


def judged(found: Seen, request: FixRequest) -> Judgement:
    return weigh(found, found.linked.outside(), request)


def refused(found: Seen, **words: object) -> tuple[str, str]:
    with pytest.raises(RefusedError) as raised:
        judged(found, replace(ASKED, **words))  # type: ignore[arg-type]
    assert raised.value.exit_status == 9
    assert "nothing was changed" in raised.value.hint
    return str(raised.value), raised.value.hint


def test_a_tree_without_trouble_may_be_fixed() -> None:
    whole = Seen(
        entries=5,
        linked=linked((2, 2, 7), (2, 2, 7)),
        skipped=[("/a", "x")],
        failed=[("/b", "y")],
    )
    assert judged(whole, ASKED).outside == frozenset()
    assert judged(whole, ASKED).skipped == ()


def test_unmapped_ids_are_a_table_of_ids_and_counts() -> None:
    found = Seen(unmapped_uids=Counter({70000: 3, 900: 1}), unmapped_gids=Counter({70001: 12}))
    said, hint = refused(found)
    rows = [line.split() for line in said.splitlines() if re.search(r"\d", line)]
    assert rows == [
        ["uid", "900", "1", "entry"],
        ["uid", "70000", "3", "entries"],
        ["gid", "70001", "12", "entries"],
    ]
    assert "--unmapped keep" in hint
    assert judged(found, replace(ASKED, keep_unmapped=True)).skipped == ()
    assert "gid" in refused(Seen(unmapped_gids=Counter({5: 1})))[0]


def test_a_table_of_thousands_of_ids_is_cut_and_the_rest_counted() -> None:
    said, _ = refused(Seen(unmapped_uids=Counter(dict.fromkeys(range(1000), 1))))
    shown = len(re.findall(r"uid \d+", said))
    assert shown < 50
    assert f"{1000 - shown} more" in said


def test_entries_that_cannot_be_carried_are_named_whatever_the_words() -> None:
    found = Seen(refusals=[(f"/v/{n:02}", "an ACL") for n in range(15)] + [("/v/new\nline", "b")])
    for words in ({}, {"keep_unmapped": True, "skip_outside_links": True, "protected": True}):
        said, _ = refused(found, **words)
        assert said.startswith("16 entries")
        assert "/v/00: an ACL" in said
        assert "6 more" in said
    said, _ = refused(Seen(refusals=found.refusals[-1:]))
    assert "'/v/new\\nline': b" in said


def arrays(*names: tuple[int, int]) -> tuple[array[int], array[int]]:
    """Names of linked inodes: the inode and the ctime of each."""
    return array("Q", [inode for inode, _ in names]), array("q", [ctime for _, ctime in names])


def linked(
    *names: tuple[int, int, int], device: int = 1, kinds: tuple[str, ...] | None = None
) -> Linked:
    """Names of linked inodes: the link count, the inode and the ctime of each."""
    found = Linked()
    for links, inode, ctime in names:
        found.add((device, links, kinds), *arrays((inode, ctime)))
    return found


def test_links_to_outside_are_refused_and_named_or_skipped_and_named() -> None:
    found = Seen(linked=linked((3, 2, 7), (3, 2, 7), (2, 3, 7), (2, 3, 7)))
    found.linked.add((2, 2, None), *arrays((2, 7)))
    found.outside = ["/v/b", "/v/a", "/v/z"]
    said, hint = refused(found)
    assert [line.strip() for line in said.splitlines()[1:]] == ["/v/a", "/v/b", "/v/z"]
    assert "--outside-links skip" in hint
    judgement = judged(found, replace(ASKED, skip_outside_links=True))
    assert judgement.outside == {(1, 2), (2, 2)}
    assert [place.path for place in judgement.skipped] == ["/v/a", "/v/b", "/v/z"]
    assert all("links outside" in place.reason for place in judgement.skipped)


def test_an_inode_is_inside_where_all_its_names_were_found_each_where_it_stayed() -> None:
    one = linked((2, 2, 7))
    assert one.outside() == {(1, 2)}
    one.add((1, 2, None), *arrays((2, 7)))
    assert one.outside() == frozenset()


@pytest.mark.parametrize(
    "names",
    [
        [(2, 2, 7), (2, 2, 8)],
        # Somebody gave it one more name meanwhile.
        [(2, 2, 7), (2, 2, 7), (3, 2, 8)],
        [(3, 2, 8), (3, 2, 8), (3, 2, 8), (2, 2, 7)],
    ],
)
def test_one_name_that_was_renamed_meanwhile_does_not_count_for_two(
    names: list[tuple[int, int, int]],
) -> None:
    """A rename changes the ctime: it may be the same name, which was seen before and after."""
    for order in (names, names[::-1]):
        found = merged([Seen(linked=linked(one)) for one in order])
        found.linked.add((1, 2, None), *arrays((3, 7), (3, 7)))
        assert found.linked.outside() == {(1, 2)}


def test_an_inode_that_changes_counts_once_under_whatever_kinds_it_has() -> None:
    found = linked((2, 2, 7), (2, 2, 7), (2, 5, 7), (3, 9, 7), kinds=("acl",))
    found.add((1, 2, None), *arrays((3, 7)))
    assert found.changing_names() == 4
    assert found.changes({(1, 2), (1, 5)})
    assert not found.changes({(1, 2), (1, 5), (1, 9)})
    assert found.changing({(1, 5), (2, 9)}) == {("acl",): 2}


def test_what_several_workers_saw_is_put_together_by_device_and_inode() -> None:
    parts = [
        Seen(
            entries=3,
            changes=1,
            owners=Counter({(0, 0): 3}),
            linked=linked((3, 2, 7), (2, 3, 7)),
        ),
        Seen(
            entries=4,
            changes=2,
            owners=Counter({(0, 0): 1, (5, 5): 3}),
            kinds=Counter(acl=1),
            unmapped_uids=Counter({9: 1}),
            refusals=[("/r", "r")],
            linked=linked((3, 2, 7)),
        ),
        Seen(linked=linked((2, 3, 7), device=2)),
        Seen(linked=linked((3, 2, 7)), skipped=[("/s", "s")], failed=[("/f", "f")]),
    ]
    whole = merged(parts)
    assert (whole.entries, whole.changes, whole.owners) == (7, 3, Counter({(0, 0): 4, (5, 5): 3}))
    assert (whole.kinds, whole.unmapped_uids, whole.unmapped_gids) == (
        Counter(acl=1),
        Counter({9: 1}),
        Counter(),
    )
    assert (whole.refusals, whole.skipped, whole.failed) == (
        [("/r", "r")],
        [("/s", "s")],
        [("/f", "f")],
    )
    asked = replace(ASKED, skip_outside_links=True)
    assert judged(replace(whole, refusals=[], unmapped_uids=Counter()), asked).outside == {
        (1, 3),
        (2, 3),
    }


def test_both_maps_of_a_container_are_used_each_for_its_kind() -> None:
    mapping = Mapping(IdMap.of((0, 1000, 10)), IdMap.of((0, 2000, 10)))
    rule = targets_of(replace(ASKED, user="3:4"), ledger(), replace(WEB, mapping=mapping), NOBODY)
    assert rule.owner == (1003, 2004)
