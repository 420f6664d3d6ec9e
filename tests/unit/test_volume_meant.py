"""Whose volume it is, how it was fixed before, and what was moved already: decided before anything is looked at."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.unit.states import per_container, shared
from usernsplan import Allocation, IdMap, IdRange, Mapping
from usernsplan.errors import InvalidValueError, RefusedError
from usernsplan.fixing import FixRequest
from usernsplan.formats.accounts import Accounts
from usernsplan.model import LedgerState, Quarantined, Volume
from usernsplan.volume import decide, judge, options, records, targets
from usernsplan.volume.seen import Seen

WEB, DB = per_container("web", 589824), per_container("db", 665536)
# Two fillers of nobody else, as Docker needs them.
DOCKER = shared("web", (0, 2, 1), (1, 700, 2), (3, 3, 100), reserved_range=IdRange(700, 2))
PODMAN = shared("web", (0, 2, 1), (3, 3, 100))
ASKED = FixRequest(("/srv/vol",))
MAPS = {"uid_map": ("0:1000:5",), "gid_map": ("0:1000:5",)}
NOBODY = Accounts()


def ledger(
    *volumes: Volume, allocations: tuple[Allocation, ...] = (WEB, DB), **more: object
) -> LedgerState:
    return LedgerState(allocations, volumes=volumes, **more)  # type: ignore[arg-type]


def volume(path: str, name: str = "web", mode: str = "shift", user: str = "") -> Volume:
    return Volume(path, name, mode, user=user)


def meant(held: LedgerState, *names: str, **words: object) -> decide.Meant:
    asked = replace(ASKED, **words)  # type: ignore[arg-type]
    return decide.understood(asked, held, names or ("/srv/vol",), "usernsplan {}".format)


def refusal(held: LedgerState, *names: str, **words: object) -> RefusedError:
    with pytest.raises(RefusedError) as raised:
        judge.refuse_others(meant(held, *names, **words))
    return raised.value


# Another container's


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/srv/vol", "the volume /srv/vol belongs to 'db'"),
        ("/srv", "the volume /srv/vol lies in /srv, which belongs to 'db'"),
        ("/srv/vol/a", "the volume /srv/vol contains /srv/vol/a, which belongs to 'db'"),
    ],
)
@pytest.mark.parametrize(
    "words", [{"container": "web"}, {"container": "web", "reverse": True}, MAPS]
)
def test_a_volume_of_another_container_is_refused_with_its_name_and_path(
    path: str, said: str, words: dict[str, object]
) -> None:
    held = ledger(volume(path, "db"))
    error = refusal(held, **words)
    assert str(error) == said
    assert "--take" in error.hint
    judge.refuse_others(meant(held, **{**words, "take": True}))


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("/srv/my vol", "usernsplan fix-volume '/srv/my vol' --container web --from db"),
        ("/srv", "usernsplan fix-volume '/srv/my vol' --container web --from db"),
        ("/srv/my vol/a", "usernsplan fix-volume '/srv/my vol/a' --container web --from db"),
    ],
)
def test_the_remedy_is_a_command_that_carries_the_ids_of_the_other_one(
    path: str, command: str
) -> None:
    held = ledger(volume(path, "db"))
    error = refusal(held, "/srv/my vol", container="web", mode="shift")
    first, second = error.hint.splitlines()
    assert first == f"move its ids: {command}"
    assert (
        second.strip()
        == "or take it anyway: usernsplan fix-volume '/srv/my vol' --container web --mode shift --take"
    )
    judge.refuse_others(meant(held, "/srv/my vol", container="web", source="db"))


@pytest.mark.parametrize(
    "held",
    [
        ledger(volume("/srv/vol", "web"), volume("/srv/vol/a", "web", "own")),
        ledger(volume("/srv/volume", "db"), volume("/srv/v", "db"), volume("/srv/vol2/a", "db")),
        # Fixed before its name was released, and allocated anew: its ids are no container's.
        ledger(volume("/srv/vol", "gone")),
        ledger(
            replace(volume("/srv/vol", "db"), event=1),
            allocations=(WEB, replace(DB, event=2)),
        ),
    ],
)
def test_no_other_container_s_is_no_trouble(held: LedgerState) -> None:
    judge.refuse_others(meant(held, container="web", mode="shift"))


def test_to_take_one_from_a_container_opens_none_of_a_third() -> None:
    held = ledger(
        volume("/srv/vol", "db"),
        volume("/srv/vol/a", "third"),
        allocations=(WEB, DB, per_container("third", 0)),
    )
    assert "'third'" in str(refusal(held, container="web", source="db"))


def test_what_the_ledger_forgets_is_what_became_part_of_another_volume() -> None:
    held = ledger(
        volume("/srv"),
        volume("/srv/vol", "db"),
        volume("/srv/vol/a", "db"),
        volume("/srv/vol/b", "web"),
        volume("/srv/vol/c", "web", "own", "33:33"),
        volume("/srv/volume", "db"),
    )
    one = meant(held, container="web", mode="shift", take=True)
    new = records.noted(one, targets.shift(WEB.mapping))
    assert new == (volume("/srv/vol"),)
    assert records.no_longer(one, new) == ("/srv/vol/a", "/srv/vol/c")
    assert records.formerly(one) == {
        "/srv/vol": ["db", "shift", ""],
        "/srv/vol/a": ["db", "shift", ""],
        "/srv/vol/b": ["web", "shift", ""],
        "/srv/vol/c": ["web", "own", "33:33"],
    }
    for words in ({"container": "web", "reverse": True}, MAPS):
        none = meant(held, **words, take=True)
        assert records.noted(none, targets.shift(WEB.mapping)) == ()
        assert records.no_longer(none, ()) == ("/srv/vol", "/srv/vol/a", "/srv/vol/b", "/srv/vol/c")
    assert records.formerly(meant(ledger(), container="web")) == {"/srv/vol": ["", "", ""]}


# Mode and user as they are recorded


@pytest.mark.parametrize(
    ("recorded", "mode", "user"),
    [
        ([volume("/srv/vol")], "shift", None),
        ([volume("/srv")], "shift", None),
        ([volume("/srv/vol", mode="own", user="33:44")], "own", "33:44"),
        ([volume("/srv", mode="own", user="33:44")], "own", "33:44"),
        ([volume("/srv", mode="own", user="33:44"), volume("/srv/vol")], "shift", None),
        # Of an older version, which noted no user.
        ([volume("/srv/vol", mode="own")], None, None),
        ([], None, None),
        ([volume("/srv/volume"), volume("/srv/v")], None, None),
        ([volume("/srv/vol", "db")], None, None),
    ],
)
def test_without_options_a_volume_is_fixed_as_it_was(
    recorded: list[Volume], mode: str | None, user: str | None
) -> None:
    found = meant(ledger(*recorded), container="web").request
    assert (found.mode, found.user) == (mode, user)


@pytest.mark.parametrize(
    "words",
    [
        {"mode": "own"},
        {"mode": "own", "user": "5"},
        {"user": "5"},
        {"reverse": True},
        {"source": "db"},
    ],
    ids="+".join,
)
def test_options_go_before_what_is_recorded(words: dict[str, object]) -> None:
    asked = meant(ledger(volume("/srv/vol")), container="web", **words).request
    assert asked == replace(ASKED, container="web", **words)  # type: ignore[arg-type]


def test_volumes_that_were_fixed_in_different_ways_are_named() -> None:
    held = ledger(volume("/a"), volume("/b", mode="own", user="33:33"))
    with pytest.raises(InvalidValueError) as raised:
        meant(held, "/a", "/b", "/c", container="web")
    assert "/a (shift), /b (own 33:33), /c (own 0:0)" in str(raised.value)
    assert meant(held, "/a", "/b", container="web", mode="shift").request.mode == "shift"
    assert meant(held, "/a", "/a/b", container="web").request.mode == "shift"


@pytest.mark.parametrize("words", [{}, {"user": "33"}])
def test_what_was_shifted_is_flattened_only_where_the_mode_is_said(
    words: dict[str, object],
) -> None:
    held = ledger(volume("/srv/vol/in side"), volume("/srv", mode="own"))
    with pytest.raises(RefusedError, match="/srv/vol/in side in /srv/vol"):
        meant(held, container="web", **words)
    for mode in ("own", "shift"):
        assert meant(held, container="web", mode=mode).request.mode == mode
    # Of another container that is another refusal; shifted with all that is around it, it stays shifted.
    assert meant(ledger(volume("/srv/vol/a", "db")), container="web").request.mode is None
    assert (
        meant(ledger(volume("/srv"), volume("/srv/vol/a")), container="web").request.mode == "shift"
    )


def test_a_mode_that_is_unknown_is_never_taken_for_another() -> None:
    """A ledger may say what only another version knows: then the user says what is meant."""
    for where in ("/srv/vol", "/srv"):
        held = ledger(volume(where, mode="idmap"))
        with pytest.raises(RefusedError, match="mode 'idmap', which this usernsplan does not know"):
            meant(held, container="web")
        for mode in ("own", "shift"):
            assert meant(held, container="web", mode=mode).request.mode == mode
    with pytest.raises(RefusedError, match="fixed with --mode idmap: its owners would be lost"):
        meant(ledger(volume("/srv/vol/a", mode="idmap")), container="web")


# Ids on both sides of a map


@pytest.mark.parametrize("mode", ["own", "shift"])
@pytest.mark.parametrize("words", [{"mode": "shift"}, {"source": "db"}])
def test_an_id_that_the_host_has_too_is_the_container_s_only_in_what_was_given_to_it(
    words: dict[str, object], mode: str
) -> None:
    asked = replace(ASKED, container="web", **words)  # type: ignore[arg-type]
    recorded = [volume("/srv", mode=mode)]
    for held, lacks in (
        (ledger(), True),
        (ledger(volume("/srv", "db")), True),
        (ledger(*recorded), False),
    ):
        rule = options.targets_of(
            asked, replace(held, allocations=(PODMAN, DB)), PODMAN, NOBODY, ("/srv/vol",)
        )
        assert [rule.uids.lacks(2), rule.gids.lacks(2)] == [lacks, lacks]
        assert rule.uids.lacks(1)
    both = options.targets_of(
        asked, ledger(*recorded, allocations=(PODMAN, DB)), PODMAN, NOBODY, ("/srv/vol", "/b")
    )
    assert both.uids.lacks(2)


def test_what_was_taken_from_the_pool_is_the_container_s_wherever_it_is_met() -> None:
    shift = replace(ASKED, mode="shift")
    held = ledger(allocations=(DOCKER, DB))
    rule = options.targets_of(shift, held, DOCKER, NOBODY, ("/srv/vol",))
    assert [rule.uids.lacks(n) for n in (0, 1, 2, 3, 700, 701, 702)] == [False] * 6 + [True]
    assert rule.uids(2) == 701
    assert rule.overlaps()
    rule = options.targets_of(shift, held, WEB, NOBODY, ("/srv/vol",))
    assert rule.uids.lacks(589824) is False
    assert rule == targets.shift(WEB.mapping)


# Moved already


def seen(*owners: tuple[int, int], top: tuple[int, int] = (2, 2), **more: object) -> Seen:
    return Seen(owners=Counter([*owners, top]), tops=[top], **more)  # type: ignore[arg-type]


def refused_as_moved(found: Seen, held: LedgerState, **words: object) -> str:
    asked = meant(held, **{"container": "web", "mode": "shift", **words})
    rule = options.targets_of(asked.request, held, asked.allocation, NOBODY, asked.names)
    told = RefusedError("")
    try:
        judge.refuse_moved(asked, found, rule)
    except RefusedError as error:
        told = error
    if str(told):
        assert told.hint.startswith(
            "nothing was changed; if there was no run before: usernsplan fix-volume /srv/vol "
        )
        assert told.hint.endswith(" --again")
    return str(told)


SHARED = ledger(allocations=(DOCKER, DB))


def test_an_overlapping_map_is_refused_where_all_owners_are_new_ones_and_the_top_is_root_s() -> (
    None
):
    assert "the top belongs to 2," in refused_as_moved(seen((3, 3), (700, 701)), SHARED)
    assert refused_as_moved(seen((3, 3), (700, 701)), SHARED, again=True) == ""
    assert refused_as_moved(seen((3, 3), (0, 3)), SHARED) == ""
    assert refused_as_moved(seen((3, 3), (3, 1)), SHARED) == ""
    assert refused_as_moved(seen((700, 701), top=(3, 3)), SHARED) == ""
    # In reverse, root is the host's.
    assert "the top belongs to 0," in refused_as_moved(
        seen((3, 3), (1, 2), top=(0, 0)), SHARED, reverse=True, mode=None
    )
    assert (
        refused_as_moved(seen((3, 3), (700, 0), top=(0, 0)), SHARED, reverse=True, mode=None) == ""
    )
    # Two users are swapped, and root stays: its top tells nothing.
    swap = {
        "uid_map": ("0:0:1", "1:2:1", "2:1:1"),
        "gid_map": ("0:0:5",),
        "container": None,
        "mode": None,
    }
    assert refused_as_moved(seen((1, 1), (2, 2), top=(0, 0)), SHARED, **swap) == ""
    # A map that does not overlap itself is right already.
    assert refused_as_moved(seen((589824, 589825), top=(589824, 589824)), ledger()) == ""


@pytest.mark.parametrize("path", ["/srv", "/srv/vol", "/srv/vol/a"])
def test_an_overlapping_map_is_refused_where_the_ledger_has_the_volume(path: str) -> None:
    held = replace(SHARED, volumes=(volume(path),))
    assert f"{path} already belongs to 'web'" in refused_as_moved(seen((0, 0), (1, 1)), held)
    assert refused_as_moved(seen((0, 0), (1, 1)), held, reverse=True, mode=None) == ""
    assert refused_as_moved(seen((665536, 665536)), held, source="db", mode=None) == ""


# Whose ids those are that have no place


def test_ids_of_another_range_have_a_command_that_carries_them() -> None:
    released = Quarantined("old one", IdRange(786432, 65536), "")
    held = ledger(quarantined=(released,))
    found = Seen(unmapped_uids=Counter({665569: 3, 70000: 1}), unmapped_gids=Counter({786436: 1}))
    asked = meant(held, "/srv/my vol", "/b", container="web", mode="shift")
    remedies = judge.former(asked, found)
    assert remedies == (
        "usernsplan fix-volume '/srv/my vol' /b --container web --from db",
        "usernsplan fix-volume '/srv/my vol' /b --container web --from 'old one'",
    )
    with pytest.raises(RefusedError) as raised:
        judge.weigh(found, frozenset(), asked.request, remedies)
    assert [line.split(": ", 1)[-1] for line in raised.value.hint.splitlines()][:2] == list(
        remedies
    )
    assert "--unmapped keep" in raised.value.hint
    assert judge.former(asked, Seen(unmapped_uids=Counter({70000: 1}))) == ()


def test_in_reverse_the_command_is_that_of_the_other_container() -> None:
    asked = meant(ledger(), container="web", reverse=True)
    found = Seen(unmapped_uids=Counter({665569: 3}))
    assert judge.former(asked, found) == (
        "usernsplan fix-volume /srv/vol --container db --reverse",
    )


@pytest.mark.parametrize(
    "held",
    [
        # Of what a name had that stands again, and of several ranges of one name, --from means no single one.
        ledger(quarantined=(Quarantined("db", IdRange(786432, 65536), ""),)),
        ledger(
            quarantined=tuple(
                Quarantined("old", IdRange(start, 65536), "") for start in (786432, 851968)
            )
        ),
    ],
)
def test_no_command_is_said_that_would_carry_others(held: LedgerState) -> None:
    found = Seen(unmapped_uids=Counter({786432: 3}))
    assert judge.former(meant(held, container="web", mode="shift"), found) == ()


def test_a_former_range_of_the_same_name_is_carried_from_that_name() -> None:
    held = ledger(quarantined=(Quarantined("web", IdRange(786432, 65536), ""),))
    found = Seen(unmapped_uids=Counter({786432: 3}))
    assert judge.former(meant(held, container="web", mode="shift"), found) == (
        "usernsplan fix-volume /srv/vol --container web --from web",
    )


# A map and a user


def test_a_user_of_a_typed_map_owns_everything() -> None:
    asked = replace(ASKED, user="3:4", **MAPS)  # type: ignore[arg-type]
    ids = IdMap.of((0, 1000, 5))
    rule = options.targets_of(asked, ledger(), None, NOBODY)
    assert rule == targets.own(Mapping(ids, ids), (3, 4))
    assert rule.owner == (1003, 1004)
    with pytest.raises(InvalidValueError, match="no uid 5"):
        options.targets_of(replace(asked, user="5"), ledger(), None, NOBODY)
