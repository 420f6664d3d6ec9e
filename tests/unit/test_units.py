"""The unit that makes a mount again at boot."""

from __future__ import annotations

from dataclasses import replace

from tests.each import each
from usernsplan import IdMap
from usernsplan.mapping import Mapping
from usernsplan.model import VolumeMount
from usernsplan.planner.units import ENGINES, how, name_of, unit

IDS = IdMap.of((0, 589824, 65536))
MOUNT = VolumeMount("/mnt/web", "/srv/web", "web", "shift", Mapping(IDS, IDS), lasting="service")
# A map that fills more than a page.
HOLES = IdMap.of(*((n * 2, 589824 + n * 2, 1) for n in range(300)))


def setting(mount: VolumeMount, key: str) -> list[str]:
    lines = unit(mount, "/opt/u/bin/python", "7").body.splitlines()
    return [line.removeprefix(f"{key}=") for line in lines if line.startswith(f"{key}=")]


@each(
    ("changes", "is_file", "honours", "expected"),
    [
        ({}, False, True, "mount"),
        ({"options": ("ro",)}, False, True, "mount"),
        ({}, False, False, "service"),
        ({}, True, True, "service"),
        ({"crosses": True}, False, True, "service"),
        ({"protect": "nosuid"}, False, True, "service"),
        ({"source": "/srv/my web"}, False, True, "service"),
        ({"at": "/mnt/50%"}, False, True, "service"),
        ({"at": "/mnt/" + "x" * 245}, False, True, "mount"),
        ({"at": "/mnt/" + "x" * 246}, False, True, "service"),
        ({"mapping": Mapping(HOLES, HOLES)}, False, True, "service"),
    ],
)
def test_what_mounts_a_volume_at_boot(
    changes: dict[str, object], is_file: bool, honours: bool, expected: str
) -> None:
    mount = replace(MOUNT, **changes)  # type: ignore[arg-type]
    assert how(mount, is_file=is_file, honours=honours) == expected


def test_a_service_restores_its_mount_after_the_disks_and_before_the_engines() -> None:
    assert name_of(MOUNT) == "usernsplan-volume-mnt-web.service"
    [start] = setting(MOUNT, "ExecStart")
    assert start == '"/opt/u/bin/python" -I -m usernsplan volumes --restore "/mnt/web"'
    assert setting(MOUNT, "ExecStop") == ['-/bin/umount "/mnt/web"']
    assert setting(MOUNT, "RequiresMountsFor") == [
        '"/srv/web" "/mnt" "/var/lib/usernsplan" "/opt/u/bin/python"'
    ]
    [before] = setting(MOUNT, "Before")
    assert before.split() == [*ENGINES, "systemd-nspawn@web.service"]
    assert setting(MOUNT, "WantedBy") == ["multi-user.target"]


def test_a_mount_unit_has_the_name_of_its_mount_point_and_the_map() -> None:
    ids = Mapping(IdMap.of((0, 589824, 1)), IdMap.of((0, 589824, 2), (33, 700000, 1)))
    mount = replace(MOUNT, lasting="mount", at="/mnt/my-web", options=("nodev", "ro"), mapping=ids)
    assert name_of(mount) == r"mnt-my\x2dweb.mount"
    assert setting(mount, "What") == ["/srv/web"]
    assert setting(mount, "Where") == ["/mnt/my-web"]
    # mount(8): ids on disk, ids as seen, count.
    idmap = "X-mount.idmap=u:0:589824:1 g:0:589824:2 g:33:700000:1"
    assert setting(mount, "Options") == [f"bind,nodev,ro,{idmap}"]
    assert setting(mount, "RequiresMountsFor") == ['"/srv/web" "/mnt"']


def test_a_unit_says_who_wrote_it_and_how_to_remove_it() -> None:
    head = unit(MOUNT, "/opt/u/bin/python", "20261130-092948").head
    assert "usernsplan" in head
    assert "/srv/web" in head
    assert "usernsplan undo 20261130-092948" in head


def test_a_unit_of_another_run_is_the_same_unit() -> None:
    one, other = (unit(MOUNT, "/opt/u/bin/python", run) for run in ("1", "2"))
    assert (one.name, one.body) == (other.name, other.body)
