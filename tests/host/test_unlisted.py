"""The ids that programs have without a line: read from real folders, and asked for by each command."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.command import json_of, needs_root, usernsplan
from tests.unit.states import state
from usernsplan import AllocateRequest, PerContainer, UsernsplanError, allocate, check, lookup
from usernsplan.errors import NotPermittedError
from usernsplan.host import files
from usernsplan.host.files import layout_at
from usernsplan.host.unlisted import docker, nspawn, podman, snapd
from usernsplan.ids import IdRange, IdSet
from usernsplan.ledger import open_ledger
from usernsplan.space import pool_space

if TYPE_CHECKING:
    from usernsplan.layout import Layout

SLOT = 65536


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with nothing in it."""
    (tmp_path / "host/etc").mkdir(parents=True)
    return tmp_path / "host"


def put(root: Path, name: str, text: str = "") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def owned(root: Path, name: str, uid: int, gid: int | None = None) -> Path:
    path = root / name
    path.mkdir(parents=True)
    os.chown(path, uid, uid if gid is None else gid)
    return path


def spans(found: tuple[object, ...]) -> list[tuple[object, ...]]:
    return [
        (one.container, one.kind, one.start, one.stop, one.path, one.number)  # type: ignore[attr-defined]
        for one in found
    ]


@needs_root
def test_a_tree_has_the_ids_that_nspawn_takes_from_its_owner(root: Path) -> None:
    deb, odd = "var/lib/machines/deb", "var/lib/machines/odd"
    owned(root, deb, 655360)
    # Another user of the image owns the top, and its group is of another range.
    owned(root, odd, 720896 + 33, 786432 + 65535)
    owned(root, "var/lib/machines/host", 0)
    owned(root, "var/lib/machines/person", 1000)
    # systemd's foreign ids, which are every machine's.
    owned(root, "var/lib/machines/foreign", 2147352576)
    os.chown(put(root, "var/lib/machines/image.raw"), 851968, 851968)
    (root / "var/lib/machines/link").symlink_to("/srv/there")
    owned(root, "srv/there", 917504)
    (root / "var/lib/machines/nowhere").symlink_to("/srv/nowhere")
    assert spans(nspawn.trees(layout_at(str(root)))) == [
        ("deb", "uid", 655360, 720896, f"/{deb}", 0),
        ("deb", "gid", 655360, 720896, f"/{deb}", 0),
        ("link", "uid", 917504, 983040, "/srv/there", 0),
        ("link", "gid", 917504, 983040, "/srv/there", 0),
        ("odd", "uid", 720896, 786432, f"/{odd}", 0),
        ("odd", "gid", 786432, 851968, f"/{odd}", 0),
    ]


def test_of_several_settings_of_a_machine_the_first_counts(root: Path) -> None:
    text = "[Exec]\nPrivateUsers={}\n"
    put(root, "etc/systemd/nspawn/web.nspawn", text.format("655360:131072"))
    put(root, "run/systemd/nspawn/web.nspawn", text.format(1310720))
    put(root, "run/systemd/nspawn/db.nspawn", text.format(786432))
    put(root, "etc/systemd/nspawn/picks.nspawn", text.format("pick"))
    put(root, "etc/systemd/nspawn/own.nspawn", text.format("0:65536"))
    put(root, "etc/systemd/nspawn/README", text.format(1310720))
    put(root, "var/lib/machines/beside.nspawn", text.format(851968))
    found = spans(nspawn.settings(layout_at(str(root))))
    assert found[::2] == [
        ("web", "uid", 655360, 786432, "/etc/systemd/nspawn/web.nspawn", 2),
        ("db", "uid", 786432, 851968, "/run/systemd/nspawn/db.nspawn", 2),
        ("beside", "uid", 851968, 917504, "/var/lib/machines/beside.nspawn", 2),
    ]
    assert [(*one[:1], "uid", *one[2:]) for one in found[1::2]] == found[::2]


def test_settings_that_cannot_be_read_are_an_error(root: Path) -> None:
    put(root, "etc/systemd/nspawn/x")
    os.mkfifo(root / "etc/systemd/nspawn/web.nspawn")
    with pytest.raises(UsernsplanError, match=r"web\.nspawn is not a regular file"):
        nspawn.settings(layout_at(str(root)))
    assert (
        "web.nspawn"
        in usernsplan(
            "allocate", "--strategy", "per-container", "aa", "--root", root, status=9
        ).stderr
    )
    found = json_of("check", "--root", root, status=1)["findings"]
    assert any("web.nspawn" in finding["place"] for finding in found), found


def test_dockers_data_roots_are_below_its_default_folder_and_the_one_it_is_set_to(
    root: Path,
) -> None:
    for name in ("589824.655360", "2.2", "overlay2", "1.2.3", f"{'9' * 200}.0"):
        (root / "var/lib/docker" / name).mkdir(parents=True)
    (root / "srv/docker/786432.786432").mkdir(parents=True)
    put(root, "etc/docker/daemon.json", '{"data-root": "/srv/docker"}')
    found = docker.data_roots(layout_at(str(root)))
    nines = int("9" * 200)
    assert [one[2:5] for one in found] == [
        ("uid", 589824, 655360),
        ("gid", 655360, 720896),
        ("uid", nines, nines + 65536),
        ("uid", 786432, 851968),
        ("gid", 786432, 851968),
    ]


@pytest.mark.parametrize("text", ['{"data-root": "/a\\u0000b"}', '{"data-root": "\\ud800"}', "{"])
def test_a_data_root_that_is_no_path_has_nothing(root: Path, text: str) -> None:
    put(root, "etc/docker/daemon.json", text)
    assert docker.data_roots(layout_at(str(root))) == ()


def test_where_snapd_is_its_slot_has_a_holder(root: Path) -> None:
    assert snapd.users(layout_at(str(root))) == ()
    put(root, "usr/bin/snap")
    found = snapd.users(layout_at(str(root)))
    assert [(one.kind, one.start, one.stop, one.path) for one in found] == [
        ("uid", 524288, 589824, "/usr/bin/snap"),
        ("gid", 524288, 589824, "/usr/bin/snap"),
    ]


def allocated(root: Path, *words: str, status: int = 0) -> list[int]:
    found = json_of(
        "allocate", "--strategy", "per-container", *words, "--root", root, status=status
    )
    return [one["reserved_range"]["start"] for one in found["allocations"]]


@needs_root
def test_no_new_range_is_that_of_a_machine(root: Path) -> None:
    owned(root, "var/lib/machines/deb", 655360)
    assert allocated(root, "aa", "bb", "cc") == [589824, 720896, 786432]
    assert json_of("check", "--root", root)["findings"] == []


@needs_root
def test_a_machine_in_our_range_is_an_error_until_it_is_recorded(root: Path) -> None:
    assert allocated(root, "web") == [589824]
    tree = owned(root, "var/lib/machines/deb", 589824)
    [finding] = json_of("check", "--root", root, status=1)["findings"]
    assert (finding["code"], finding["place"]) == ("USN080", str(tree))
    words = finding["hint"].partition("'usernsplan ")[2].partition("'")[0].split()
    usernsplan(*words)
    assert json_of("check", "--root", root)["findings"] == []
    space = json_of("map", "--root", root)
    assert space["conflicts"] == []


@needs_root
def test_its_place_is_named_wherever_it_is_asked_for(root: Path) -> None:
    put(root, "etc/systemd/nspawn/deb.nspawn", "[Exec]\nPrivateUsers=655360\n")
    refused = usernsplan(
        "allocate",
        "--strategy",
        "per-container",
        "aa",
        "--start",
        "655360",
        "--root",
        root,
        status=9,
    )
    place = f"{root}/etc/systemd/nspawn/deb.nspawn"
    assert f"655360-720895 is used by systemd-nspawn (machine deb), see {place}:2" in refused.stderr
    assert (
        f"systemd-nspawn (machine deb): 655360-720895 ({place}:2)"
        in usernsplan("whois", "655360", "--root", root).stdout
    )
    [shown] = [
        one for one in json_of("map", "--root", root)["segments"] if one["kind"] == "unlisted"
    ]
    assert shown["details"] == [f"{place}:2"]
    # The machine of this name has them already.
    assert allocated(root, "deb", "--start", "655360") == [655360]
    assert json_of("check", "--root", root)["findings"] == []


def test_the_slot_of_snapd_is_never_given_out_and_what_has_it_stays(root: Path) -> None:
    words = ("allocate", "--strategy", "per-container", "--root", root)
    assert (
        "snapd"
        in usernsplan(
            *words, "aa", "--start", "524288", "--pool", "524288-9999999", status=9
        ).stderr
    )
    assert allocated(root, "aa", "--pool", "524288-9999999") == [589824]
    for name in ("subuid", "subgid"):
        with (root / "etc" / name).open("a") as file:
            file.write("usernsplan-old:524288:65536\n")
    assert allocated(root, "old", "--start", "524288") == [524288]
    [finding] = json_of("check", "--root", root)["findings"]
    assert (finding["code"], finding["severity"]) == ("USN081", "warning")
    # A lost line is restored, and a released range comes back.
    (root / "etc/subuid").write_text("")
    usernsplan(*words, "old", "aa")
    assert "usernsplan-old:524288:65536" in (root / "etc/subuid").read_text()
    usernsplan("release", "old", "--with-lines", "--root", root)
    put(root, "usr/bin/snap")
    assert allocated(root, "old") == [524288]


@needs_root
def test_a_name_of_any_bytes_reaches_no_terminal_and_no_parser(root: Path) -> None:
    path = os.path.join(os.fsencode(root), b"var/lib/machines/x\xff\x1b[31m\n::error::y")
    os.makedirs(path)
    os.chown(path, 655360, 655360)
    words = ("allocate", "--strategy", "per-container", "aa", "--start", "655360", "--root", root)
    refused = usernsplan(*words, status=9)
    assert "\x1b" not in refused.stderr
    assert "\n::error" not in refused.stderr
    for command in (("whois", "655360"), ("map",), ("check",)):
        document = json_of(*command, "--root", root)
        assert "machine x" in str(document) or command == ("check",)
        # No half of a surrogate pair, which other parsers refuse.
        assert json.dumps(document, ensure_ascii=False).encode()
        assert "\x1b" not in usernsplan(*command, "--root", root).stdout


def test_what_cannot_be_read_is_said_and_is_not_free(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = files.names

    def closed(layout: Layout, folder: str) -> list[str]:
        if folder == nspawn.MACHINES:
            raise NotPermittedError(f"{layout.path(folder)}: permission denied")
        return names(layout, folder)

    monkeypatch.setattr(files, "names", closed)
    place = f"{root}/var/lib/machines"
    layout = layout_at(str(root))
    _, notes = lookup.facts(layout, open_ledger(layout), {700000})
    assert notes[:1] == (f"{place}: permission denied: the ids that are used there are unknown",)
    [finding] = [one for one in check(str(root)) if place in one.place]
    assert (finding.code, finding.severity) == ("USN035", "error")
    with pytest.raises(NotPermittedError, match="machines: permission denied"):
        allocate(AllocateRequest(("web",), PerContainer()), root=str(root))


@needs_root
def test_capacity_and_whois_name_who_else_has_ids_of_the_pool_and_the_place(root: Path) -> None:
    owned(root, "var/lib/machines/deb", 655360)
    put(root, "etc/systemd/nspawn/web.nspawn", "[Exec]\nPrivateUsers=786432:10\n")
    # Below the pool, and so not of interest.
    owned(root, "var/lib/machines/low", 131072)
    shown = usernsplan("capacity", "--root", root).stdout
    assert [line.strip() for line in shown.splitlines()[-2:]] == [
        f"others       systemd-nspawn (machine deb): 655360-720895 ({root}/var/lib/machines/deb)",
        f"systemd-nspawn (machine web): 786432-786441 ({root}/etc/systemd/nspawn/web.nspawn:2)",
    ]
    assert json_of("capacity", "--root", root)["others"] == [
        {
            "kind": "unlisted",
            "holder": "systemd-nspawn (machine deb)",
            "places": [f"{root}/var/lib/machines/deb"],
            "ranges": [{"start": 655360, "count": SLOT}],
        },
        {
            "kind": "unlisted",
            "holder": "systemd-nspawn (machine web)",
            "places": [f"{root}/etc/systemd/nspawn/web.nspawn:2"],
            "ranges": [{"start": 786432, "count": 10}],
        },
    ]
    lines = usernsplan("whois", "655361", "786433", "--root", root).stdout.splitlines()
    assert f"used by systemd-nspawn (machine deb) ({root}/var/lib/machines/deb)" in lines[0]
    assert f"(machine web) ({root}/etc/systemd/nspawn/web.nspawn:2)" in lines[1]


@needs_root
def test_capacity_names_a_few_of_many_and_json_all(root: Path) -> None:
    for number in range(20):
        owned(root, f"var/lib/machines/m{number:02}", 655360 + number * SLOT)
    shown = usernsplan("capacity", "--root", root).stdout
    assert shown.count("machine m") == 8
    assert "and 12 more (--json has them)" in shown
    assert len(json_of("capacity", "--root", root)["others"]) == 20


def test_capacity_names_what_useradd_computes_in_the_pool(root: Path) -> None:
    put(
        root,
        "etc/login.defs",
        "SUB_UID_MIN 100000\nSUB_GID_MIN 100000\nUID_MAX 1009\n"
        "SUB_UID_DETERMINISTIC yes\nSUB_GID_DETERMINISTIC yes\n",
    )
    shown = usernsplan("capacity", "--pool", "589824-900000", "--root", root).stdout
    assert f"589824-755359 ({root}/etc/login.defs:4" in shown, shown
    [other] = json_of("capacity", "--pool", "589824-900000", "--root", root)["others"]
    assert other["kind"] == "useradd"
    assert other["places"] == [f"{root}/etc/login.defs:4", f"{root}/etc/login.defs:5"]


def test_capacity_names_what_a_container_lacks() -> None:
    host = replace(state(), exists=(IdSet([IdRange(0, 655360)]), IdSet([IdRange(0, 655360)])))
    [part] = pool_space(host).parts
    assert (part.source, str(part.ids)) == ("absent", "655360-600100000")
    assert part.places == ("/proc/self/uid_map", "/proc/self/gid_map")


@needs_root
def test_a_stopped_unit_of_roots_podman_keeps_its_ids(root: Path) -> None:
    """Podman takes the ids of a unit without a line. Only the unit tells, while it is stopped."""
    units = "etc/containers/systemd"
    put(root, f"{units}/web.container", "[Container]\nUIDMap=0:589824:65536\n")
    put(
        root,
        f"{units}/apps/db.container",
        "[Container]\nContainerName=base\nUIDMap=0:700000:9\nGIDMap=0:700000:9\nGIDMap=9:104\n",
    )
    # One kind alone, ids of the host under their own numbers, and what has no map of its own.
    put(root, f"{units}/one.pod", "[Pod]\nUIDMap=+u0:800000:5\nUIDMap=1:1:4294967294\n")
    put(root, f"{units}/users/1000/hers.container", "[Container]\nUIDMap=0:900000:9\n")
    put(root, f"{units}/auto.container", "[Container]\nUserNS=auto\n")
    put(root, f"{units}/odd.container", "[Container]\nUIDMap=0:x:9\n")
    web, base, one = (f"/{units}/{x}" for x in ("web.container", "apps/db.container", "one.pod"))
    expected = {
        *(("web", kind, 589824, 655360, web, 2) for kind in ("uid", "gid")),
        *(("base", kind, 700000, 700009, base, 3) for kind in ("uid", "gid")),
        ("one", "uid", 800000, 800005, one, 2),
    }
    layout = layout_at(str(root))
    assert {*spans(podman.of_root(layout))} == expected

    # A new range keeps clear of them, and the slot of the unit of its name is its own.
    words = ("--strategy", "per-container", "--root", root)
    [new] = json_of("allocate", "new", *words)["allocations"]
    assert (
        new["uid_map"][0]["host"] == 720896
    )  # web has 589824 on, and base is in the slot behind it
    usernsplan("allocate", "other", "--start", "589824", "--root", root, status=9)
    told = usernsplan("whois", "589825", "--root", root).stdout
    assert "used by Podman (container web)" in told
    usernsplan("allocate", "web", "--start", "589824", "--root", root)
    assert "USN08" not in usernsplan("check", "--root", root, status=None).stdout

    # The map of a unit may be that of an allocation with another name; part of it is another's.
    (root / web[1:]).rename(root / f"{units}/blog.container")
    assert "USN08" not in usernsplan("check", "--root", root, status=None).stdout
    (root / f"{units}/blog.container").write_text("[Container]\nUIDMap=0:589000:65536\n")
    told = usernsplan("check", "--root", root, status=None).stdout
    assert (
        "Podman (container blog) uses 589000-654535, which overlaps with usernsplan-web's" in told
    )
    assert "USN080 " in told


def test_a_unit_whose_ids_are_known_only_at_its_start_stops_what_gives_ids(root: Path) -> None:
    unit = put(root, "etc/containers/systemd/web@.container", "[Container]\nUIDMap=0:%i:9\n")
    words = ("allocate", "--strategy", "per-container", "web", "--root", root)
    told = usernsplan(*words, status=1).stderr
    assert f"{unit}:2: which ids '0:%i:9' are is known only when the unit starts" in told
    assert "write the numbers" in told
    # A check looks at the rest.
    told = usernsplan("check", "--root", root, status=None).stdout
    assert "known only when the unit starts" in told


def test_a_unit_with_other_ids_than_the_allocation_of_its_name_is_told(root: Path) -> None:
    words = ("--strategy", "per-container", "--root", root)
    usernsplan("allocate", "web", *words)
    lines = usernsplan("render", "quadlet", "web", "--root", root).stdout
    unit = put(root, "etc/containers/systemd/web.container", lines)
    assert "USN138" not in usernsplan("allocate", "web", "--root", root).stderr
    # A remap moves the ids, and the unit still has the old ones.
    told = usernsplan("remap", "web", "--start", "720896", "--yes", "--root", root).stderr
    assert f"{unit}:" in told
    assert "maps 589824-655359, not the ids of the allocation" in told
    assert "render quadlet web" in told
