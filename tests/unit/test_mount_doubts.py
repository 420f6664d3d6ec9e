"""Whether a recorded mount is as it was asked for: what the kernel shows, and the answers by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.each import each
from tests.unit.states import per_container
from usernsplan import IdMap, Layout, Mapping
from usernsplan.model import LedgerState, MountSeen, VolumeMount
from usernsplan.planner.mount_doubts import doubts

WEB = per_container("web", 589824)
AT = "/run/usernsplan/volumes/web/srv-web"
MOUNT = VolumeMount(AT, "/srv/web", "web", "shift", WEB.mapping)
RIGHT = MountSeen(AT, is_standing=True, mapping=WEB.mapping, options=("rw", "nosuid", "idmapped"))
OTHER = Mapping(IdMap.of((0, 655360, 65536)), WEB.mapping.gids)
AGAIN = "usernsplan mount-volume /srv/web --container web --mode shift"
INSTEAD = f"umount {AT} && {AGAIN}"


def seen(mount: VolumeMount = MOUNT, **shown: Any) -> list[tuple[str, str, str]]:
    ledger = LedgerState((WEB,), mounts=(mount,))
    one = RIGHT._replace(at=mount.at, **shown)
    return [found[1:] for found in doubts(ledger, [one], Layout())]


@each(
    ("shown", "code", "fact", "remedy"),
    [
        ({"is_standing": False}, "USN174", "nothing is mounted there", f"again: {AGAIN}"),
        (
            {"is_standing": False, "has_source": False},
            "USN174",
            "nothing is mounted there, and /srv/web does not exist",
            f"restore or mount /srv/web, then: {AGAIN}",
        ),
        ({"is_standing": False, "why": "no /proc"}, "USN174", "unknown: no /proc", ""),
        (
            {"is_standing": False, "hidden_by": "/run/a b"},
            "USN175",
            "the mount at /run/a b hides it",
            "umount '/run/a b'",
        ),
        (
            {"is_standing": False, "is_other": True},
            "USN175",
            "does not show what is now at /srv/web",
            INSTEAD,
        ),
        ({"is_removed": True}, "USN175", "/srv/web was removed", INSTEAD),
        ({"mapping": OTHER}, "USN176", "another map", "usernsplan remap web"),
        ({"options": ("ro", "idmapped")}, "USN176", "read-only, which nobody asked", INSTEAD),
        ({"forgotten": "no unit"}, "USN177", "does not return at boot: no unit", AGAIN),
        (
            {"reached": ("/srv is open to all", "and more")},
            "USN178",
            "what the container puts into /srv/web: /srv is open to all; and more",
            f"{AGAIN} --protect nosuid",
        ),
        ({"is_open": True}, "USN178", "no folder above it keeps others", "--protect nosuid"),
    ],
)
def test_what_is_wrong_has_a_code_a_fact_and_a_remedy(
    shown: dict[str, Any], code: str, fact: str, remedy: str
) -> None:
    [(found, told, help_)] = seen(**shown)
    assert found == code
    assert fact in told
    assert remedy in help_


@each(
    "shown",
    [
        {},
        # Before Linux 6.15 the kernel does not tell the map.
        {"mapping": None},
        # The mount kept what the source's own mount has.
        {"options": ("ro", "idmapped"), "of_source": ("ro", "relatime")},
    ],
)
def test_what_is_right_has_no_doubt(shown: dict[str, Any]) -> None:
    assert seen(**shown) == []


@each(
    "mount",
    [
        replace(MOUNT, options=("ro",)),
        replace(MOUNT, mode="own", mapping=Mapping(IdMap.of((1000, 589824, 1)), OTHER.gids)),
    ],
)
def test_an_open_source_gives_no_power_that_the_mount_does_not_give(mount: VolumeMount) -> None:
    shown = {"options": ("ro",), "of_source": ("ro",), "mapping": mount.mapping}
    assert seen(mount, is_open=True, **shown) == []


def test_a_map_of_many_extents_may_be_told_in_another_order() -> None:
    parts = [(n, 589824 + n, 1) for n in range(7)]
    asked, told = (Mapping(IdMap.of(*p), IdMap.of(*p)) for p in (parts[::-1], parts))
    mount = replace(MOUNT, mode="own", mapping=asked)
    assert seen(mount, mapping=told) == []
    assert seen(mount, mapping=Mapping(IdMap.of(*parts[1:]), told.gids))[0][0] == "USN176"


def test_a_mount_of_before_a_remap_is_seen() -> None:
    [(code, fact, _)] = seen(replace(MOUNT, mapping=OTHER), mapping=OTHER)
    assert (code, fact) == ("USN176", "it shows the ids of a former map of 'web'")


def test_a_mount_that_lacks_what_was_asked_for_is_seen() -> None:
    [(code, fact, _)] = seen(replace(MOUNT, options=("ro",)))
    assert (code, fact) == ("USN176", "it is mounted without ro")


def test_several_things_can_be_wrong_at_once() -> None:
    found = seen(is_standing=False, reached=("x",), forgotten="y")
    assert [code for code, *_ in found] == ["USN174", "USN177", "USN178"]


def test_a_mount_that_nobody_recorded_is_not_judged() -> None:
    assert doubts(LedgerState((WEB,)), [RIGHT], Layout()) == []
