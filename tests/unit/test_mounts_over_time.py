"""What becomes of recorded mounts: later runs, other names, other maps, and ranges that are given back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.each import each
from tests.unit.states import per_container, state
from usernsplan.errors import RefusedError
from usernsplan.ids import IdRange, IdSet
from usernsplan.mapping import Extent, IdMap, Mapping
from usernsplan.model import HostState, LedgerChange, LedgerState, MountSeen, VolumeMount
from usernsplan.planner import mounts

FIRST, SECOND = 589824, 655360
WEB, DB = per_container("web", FIRST), per_container("db", SECOND)
OURS = "/run/usernsplan/volumes"


def mount(at: str = f"{OURS}/web/srv-web", source: str = "/srv/web", **more: object) -> VolumeMount:
    made = VolumeMount(at, source, "web", "shift", WEB.mapping, run="one")
    return replace(made, **more)  # type: ignore[arg-type]


def ledger(*noted: VolumeMount) -> LedgerState:
    return replace(state(allocations=[WEB, DB]).ledger, mounts=noted)


def host(*noted: VolumeMount, seen: tuple[MountSeen, ...] = ()) -> HostState:
    return replace(state(), ledger=ledger(*noted), mounts=seen)


def one_id(disk: int, host: int) -> IdMap:
    return IdMap((Extent(disk, host, 1),))


@each(
    ("noted", "now"),
    [
        # Nothing is recorded: what the run made may still stand.
        ((), (mount(), "")),
        ((mount(),), (mount(), "")),
        # Renamed, and remapped.
        ((mount(name="shop", mapping=DB.mapping),), (mount(name="shop", mapping=DB.mapping), "")),
        ((mount(run=""),), (mount(run=""), "")),
        ((mount(run="two", name="db"),), (mount(), "two")),
        ((mount("/elsewhere", run="two"),), (mount(), "")),
    ],
)
def test_a_run_has_its_mounts_until_a_later_one_makes_them(
    noted: tuple[VolumeMount, ...], now: tuple[VolumeMount, str]
) -> None:
    assert mounts.present(ledger(*noted), [mount()], "one") == [now]


@each(
    ("noted", "name", "lasting", "point"),
    [
        ((), "web", False, f"{OURS}/web/srv-web"),
        ((), "web", True, "/var/lib/usernsplan/volumes/web/srv-web"),
        ((mount(),), "web", False, f"{OURS}/web/srv-web"),
        ((mount(),), "web", True, "/var/lib/usernsplan/volumes/web/srv-web"),
        # It was renamed: its mounts stay, and nobody else gets its folder.
        ((mount(name="shop"),), "shop", False, f"{OURS}/web/srv-web"),
        ((mount(name="shop"),), "web", False, f"{OURS}/web.2/srv-web"),
        (
            (mount(name="shop"), mount(f"{OURS}/web.2/a", "/a", name="db")),
            "web",
            False,
            f"{OURS}/web.3/srv-web",
        ),
        # A place that the user named is no default.
        ((mount("/mnt/web"),), "web", False, f"{OURS}/web/srv-web"),
    ],
)
def test_a_mount_point_is_kept_and_a_folder_is_one_containers(
    noted: tuple[VolumeMount, ...], name: str, lasting: bool, point: str
) -> None:
    assert mounts.default_at(ledger(*noted), name, "/srv/web", lasting=lasting) == point


@each(
    ("seen", "lasting", "stands"),
    [
        ((), "", True),
        ((MountSeen(mount().at, is_standing=True),), "", True),
        ((MountSeen(mount().at, hidden_by="/run"),), "", True),
        ((MountSeen(mount().at, is_other=True),), "", True),
        ((MountSeen(mount().at, why="no /proc"),), "", True),
        ((MountSeen(mount().at),), "", False),
        ((MountSeen(mount().at),), "service", True),
    ],
)
def test_only_what_is_gone_for_certain_does_not_stand(
    seen: tuple[MountSeen, ...], lasting: str, stands: bool
) -> None:
    noted = mount(lasting=lasting)
    now = host(noted, seen=seen)
    assert mounts.may_stand(now, noted) is stands
    assert mounts.of_names(now, {"web"}) == [noted] * stands
    assert mounts.of_names(now, {"db"}) == []


@each(
    ("noted", "seen", "ids", "shown"),
    [
        (mount(), None, IdRange(FIRST, 65536), True),
        (mount(), None, IdRange(FIRST + 65535, 1), True),
        (mount(), None, IdRange(SECOND, 65536), False),
        # A remap was interrupted: the kernel still shows the former map.
        (mount(mapping=DB.mapping), WEB.mapping, IdRange(FIRST, 1), True),
        (mount(mapping=DB.mapping), DB.mapping, IdRange(FIRST, 1), False),
        # Of a gid alone.
        (mount(mapping=Mapping(one_id(0, 7), one_id(0, 9))), None, IdRange(9, 1), True),
        (mount(mapping=Mapping(one_id(0, 7), one_id(0, 9))), None, IdRange(8, 1), False),
    ],
)
def test_a_range_is_shown_by_the_map_that_is_recorded_or_stands(
    noted: VolumeMount, seen: Mapping | None, ids: IdRange, shown: bool
) -> None:
    now = host(noted, seen=(MountSeen(noted.at, is_standing=True, mapping=seen),))
    assert mounts.of_ids(now, IdSet((ids,))) == [noted] * shown


@each(
    ("noted", "uids", "gids"),
    [
        (mount(), DB.mapping.uids, DB.mapping.gids),
        (
            mount(mode="own", user="7:8", mapping=Mapping(one_id(33, FIRST + 7), one_id(34, 0))),
            one_id(33, SECOND + 7),
            one_id(34, SECOND + 8),
        ),
    ],
)
def test_a_new_map_changes_what_a_mount_shows_and_not_what_is_on_disk(
    noted: VolumeMount, uids: IdMap, gids: IdMap
) -> None:
    new = replace(DB, name="web")
    assert mounts.remapped(noted, new) == replace(noted, mapping=Mapping(uids, gids))


def test_a_user_whom_the_new_map_lacks_is_shown_nowhere() -> None:
    noted = mount(mode="own", user="65535:0", mapping=Mapping(one_id(0, 5), one_id(0, 5)))
    assert mounts.remapped(noted, WEB) is not None
    assert mounts.remapped(noted, replace(WEB, mapping=Mapping(one_id(0, 9), one_id(0, 9)))) is None


def test_what_is_recorded_again_by_another_run_is_noted() -> None:
    assert mounts.record(ledger(mount()), [mount()]) == LedgerChange()
    assert mounts.record(ledger(mount()), [mount(run="")]) == LedgerChange()
    assert mounts.record(ledger(mount()), [mount(run="two")]).mounts == (mount(run="two"),)
    # A container that was released since then gets none.
    assert mounts.record(ledger(), [mount(name="gone")]) == LedgerChange()
    removed = mounts.record(ledger(mount()), [], [mount().at, "/never"])
    assert removed == LedgerChange(no_mounts=(mount().at,))


def test_a_mount_that_stands_is_named_with_its_undo() -> None:
    noted = [mount(f"{OURS}/web/{n}", f"/srv/{n}", run=f"run-{n}") for n in range(7)]
    with pytest.raises(RefusedError) as refused:
        mounts.refuse_standing(host(*noted), noted, "released")
    assert "/srv/0 at /run/usernsplan/volumes/web/0" in str(refused.value)
    assert "and 2 more" in str(refused.value)
    assert "usernsplan undo run-4" in refused.value.hint
    assert "run-5" not in refused.value.hint
    mounts.refuse_standing(host(), [], "released")
