"""Idmapped mounts as they are on the machine: volumes, check, whois and find-owned know what stands."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.command import here
from tests.documents import document_in
from tests.volume.bystanders import open_ground
from tests.volume.mounted import mount_many, mount_one
from tests.volume.tree import Host, acl_of, finish
from usernsplan import IdMap, Mapping
from usernsplan.host import idmap, mounts, spaces, statmount

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AT = "run/usernsplan/volumes/web/srv-vol"


@pytest.fixture
def web(host: Host) -> Iterator[Host]:
    """A host where /srv/vol is mounted for web with its ids."""
    host.allocate("web")
    (host.volume / "file").touch()
    os.chown(host.volume / "file", 33, 34)
    mount(host)
    yield host
    take_down(host)


def mount(host: Host, *words: str) -> None:
    here(
        "mount-volume",
        "/srv/vol",
        "--container",
        "web",
        "--mode",
        "shift",
        *words,
        "--root",
        host.root,
    )


def take_down(host: Host) -> None:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        points = [line.split(" ")[4] for line in file if f" {host.root}/" in line]
    for point in reversed(points):
        subprocess.run(["umount", point], check=True)


def mounted_over(place: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)


def told(host: Host, *words: str) -> dict[str, Any]:
    return document_in(here(*words, "--root", host.root, "--json", status=None)[0])


def wrong(host: Host) -> list[str]:
    [volume] = told(host, "volumes")["volumes"]
    return [one["message"] for one in volume["wrong"]]


def codes(host: Host) -> list[str]:
    return [one["code"] for one in told(host, "check", "--select", "USN17")["findings"]]


def remedy(host: Host) -> str:
    [volume] = told(host, "volumes")["volumes"]
    found = re.search(r"(umount|usernsplan) .*", volume["wrong"][0]["hint"])
    assert found
    return found[0]


def test_a_mount_that_stands_looks_right(web: Host) -> None:
    [volume] = told(web, "volumes")["volumes"]
    assert (volume["path"], volume["container"], volume["method"], volume["right"]) == (
        f"{web.root}/srv/vol",
        "web",
        "idmap",
        True,
    )
    assert volume["mount"]["path"] == f"{web.root}/{AT}"
    assert codes(web) == []
    assert told(web, "list")["volumes"] == []


def test_the_table_names_the_container_the_place_the_ids_and_that_it_is_lost_at_boot(
    web: Host,
) -> None:
    line = here("volumes", "web", "--root", web.root)[0].splitlines()[2]
    start = web.starts["web"]
    assert line.split() == [
        "web",
        f"{web.root}/srv/vol",
        "idmap",
        "shift",
        f"{web.root}/{AT}",
        "0-65535",
        "as",
        f"{start}-{start + 65535}",
        "no",
        "right",
    ]


def test_only_the_volumes_of_a_name_and_a_name_that_nobody_has(web: Host) -> None:
    web.allocate("db")
    assert told(web, "volumes", "db")["volumes"] == []
    assert len(told(web, "volumes", "db", "web")["volumes"]) == 1
    assert "did you mean web?" in here("volumes", "wbe", "--root", web.root, status=1)[1]


def test_only_the_volume_at_a_path_or_a_mount_point(web: Host) -> None:
    web.fix("--container", "web", "--mode", "own", path=web.outside)
    for words in (f"/{AT}", "/srv/vol/", f"{web.root}/srv/vol"):
        [one] = told(web, "volumes", words)["volumes"]
        assert one["path"] == f"{web.root}/srv/vol"
    [one] = told(web, "volumes", "/srv/outside")["volumes"]
    assert one["method"] == "chown"


def test_both_methods_are_listed(web: Host) -> None:
    web.fix("--container", "web", "--mode", "own", path=web.outside)
    found = told(web, "volumes")["volumes"]
    assert [(one["method"], one["mode"], one["user"]) for one in found] == [
        ("chown", "own", "0:0"),
        ("idmap", "shift", None),
    ]


def test_a_mount_that_is_gone_comes_back_with_the_remedy(web: Host) -> None:
    subprocess.run(["umount", web.root / AT], check=True)
    assert wrong(web) == ["nothing is mounted there"]
    assert codes(web) == ["USN174"]
    here(*remedy(web).split()[1:])
    assert wrong(web) == []


def test_the_source_is_gone_too(web: Host) -> None:
    subprocess.run(["umount", web.root / AT], check=True)
    shutil.rmtree(web.volume)
    assert wrong(web) == [f"nothing is mounted there, and {web.root}/srv/vol does not exist"]


@pytest.mark.parametrize("over", [AT, "run/usernsplan/volumes/web", "run"])
def test_a_mount_that_another_one_hides(web: Host, over: str) -> None:
    mounted_over(web.root / over)
    assert wrong(web) == [f"the mount at {web.root}/{over} hides it"]
    assert codes(web) == ["USN175"]
    subprocess.run(remedy(web).split(), check=True)
    assert wrong(web) == []


def test_something_else_stands_there(web: Host) -> None:
    subprocess.run(["umount", web.root / AT], check=True)
    mounted_over(web.root / AT)
    assert "does not show what is now at" in wrong(web)[0]
    assert codes(web) == ["USN175"]
    unmount, again = remedy(web).split(" && ")
    subprocess.run(unmount.split(), check=True)
    here(*again.split()[1:])
    assert wrong(web) == []


def test_a_plain_mount_of_the_source_is_something_else(web: Host) -> None:
    subprocess.run(["umount", web.root / AT], check=True)
    subprocess.run(["mount", "--bind", web.volume, web.root / AT], check=True)
    assert codes(web) == ["USN175"]


@pytest.mark.parametrize("replaced", [True, False])
def test_a_source_that_was_exchanged(web: Host, replaced: bool) -> None:
    web.volume.rename(web.root / "srv/moved")
    if replaced:
        web.volume.mkdir()
    assert "does not show what is now at" in wrong(web)[0]
    assert codes(web) == ["USN175"]


def test_a_source_that_was_removed(web: Host) -> None:
    shutil.rmtree(web.volume)
    assert wrong(web) == [f"{web.root}/srv/vol was removed: only the mount still shows its files"]


def test_a_source_below_another_mount(web: Host) -> None:
    mounted_over(web.root / "srv")
    assert codes(web) == ["USN175"]


def test_a_mount_over_the_source_of_itself_hides_nothing(web: Host) -> None:
    subprocess.run(["mount", "--bind", web.volume, web.volume], check=True)
    assert wrong(web) == []


def test_options_are_compared(web: Host) -> None:
    subprocess.run(["mount", "-o", "remount,bind,ro", web.root / AT], check=True)
    assert wrong(web) == ["it is read-only, which nobody asked for"]
    assert codes(web) == ["USN176"]


def test_another_map_is_seen(web: Host) -> None:
    subprocess.run(["umount", web.root / AT], check=True)
    ids = IdMap.of((0, web.starts["web"], 65535))
    mount_one(web.volume, web.root / AT, Mapping(ids, ids))
    assert wrong(web) == ["it has another map than the recorded one"]
    assert codes(web) == ["USN176"]
    here("remap", "web", "--root", web.root)
    assert wrong(web) == []


def without_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """As before Linux 6.15."""

    def unknown(_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(statmount, "idmapped", unknown)


def test_an_older_kernel_tells_no_map(web: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    without_maps(monkeypatch)
    [volume] = told(web, "volumes")["volumes"]
    assert (volume["right"], volume["map_told"]) == (True, False)
    assert "right; map not told" in here("volumes", "--root", web.root)[0]


def test_a_mount_in_our_folder_that_the_ledger_lacks(web: Host) -> None:
    other = web.root / "run/usernsplan/volumes/web/by-hand"
    other.mkdir()
    subprocess.run(["mount", "--bind", web.root / AT, other], check=True)
    [finding] = told(web, "check", "--select", "USN179")["findings"]
    assert (finding["place"], finding["hint"]) == (str(other), f"umount {other}")
    subprocess.run(finding["hint"].split(), check=True)
    assert codes(web) == []


def test_the_ids_of_our_own_mount_are_no_stranger_s(web: Host) -> None:
    found = told(web, "check")["findings"]
    assert [one for one in found if "idmapped mount" in json.dumps(one)] == []
    here("allocate", "web", "--root", web.root)


@pytest.fixture
def reachable(private_mounts: None) -> Iterator[Host]:
    """A host that everybody may enter, but for the folder above a volume that is mounted for web."""
    assert private_mounts is None
    with open_ground() as ground:
        host = Host(ground / "host", "tmpfs")
        for folder in ("etc", "srv/vol"):
            (host.root / folder).mkdir(parents=True)
        (host.root / "srv").chmod(0o700)
        host.allocate("web")
        mount(host)
        yield host


def test_a_source_that_others_can_reach_again(reachable: Host) -> None:
    assert codes(reachable) == []
    assert wrong(reachable) == []
    (reachable.root / "srv").chmod(0o711)
    assert f"{reachable.root}/srv/vol is open to others than root" in wrong(reachable)[0]
    shown = here("show", "web", "--root", reachable.root)[0]
    assert "no folder above it keeps others than root out" in shown
    [finding] = told(reachable, "check", "--select", "USN178")["findings"]
    assert f"{reachable.root}/srv/vol is open to others than root" in finding["message"]
    assert "mount-volume /srv/vol" in finding["hint"]
    assert "--protect nosuid" in finding["hint"]


def test_check_and_volumes_know_ways_that_show_does_not_look_for(reachable: Host) -> None:
    other = reachable.root / "bound"
    other.mkdir()
    subprocess.run(["mount", "--bind", reachable.volume, other], check=True)
    assert "keeps others" not in here("show", "web", "--root", reachable.root)[0]
    assert f"{other} is open to others than root" in wrong(reachable)[0]
    [finding] = told(reachable, "check", "--select", "USN178")["findings"]
    assert f"{other} is open to others than root" in finding["message"]


def test_check_looks_at_each_of_many_sources(reachable: Host) -> None:
    mount_many(reachable.root, "web", 60)
    assert codes(reachable) == []
    (reachable.root / "srv").chmod(0o755)
    places = {one["place"] for one in told(reachable, "check", "--select", "USN178")["findings"]}
    assert places == {
        str(reachable.root / at)
        for at in (AT, *(f"run/usernsplan/volumes/web/many-{number}" for number in range(60)))
    }


def test_many_sources_cost_one_look_at_the_processes(
    reachable: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount_many(reachable.root, "web", 60)
    looks = []
    look = spaces.look

    def counted() -> spaces.Spaces:
        looks.append(look())
        return looks[-1]

    monkeypatch.setattr(spaces, "look", counted)
    assert codes(reachable) == []
    # A process that ends in between makes it look again.
    assert 1 <= len(looks) <= 5


def test_a_folder_that_an_acl_opens_keeps_nobody_out(reachable: Host) -> None:
    above = reachable.root / "srv"
    finish(os.fsencode(above), 0, 0, 0o700, acl=acl_of(0o700, {1000: 7}, {}, 0))
    assert "is open to others than root" in wrong(reachable)[0]


def test_nosuid_over_the_source_shuts_its_path(reachable: Host) -> None:
    (reachable.root / "srv").chmod(0o755)
    source = reachable.volume
    subprocess.run(["mount", "--bind", source, source], check=True)
    subprocess.run(["mount", "-o", "remount,bind,nosuid", source], check=True)
    assert wrong(reachable) == []
    assert codes(reachable) == []


def test_list_and_show_have_mounts(web: Host) -> None:
    [mount] = told(web, "show", "web")["mounts"]
    assert (mount["source"]["path"], mount["right"], mount["wrong"]) == (
        f"{web.root}/srv/vol",
        True,
        [],
    )
    assert f"/{AT} of /srv/vol (shift): looks right" in here("show", "web", "--root", web.root)[0]
    assert AT not in here("list", "--root", web.root)[0]
    subprocess.run(["umount", web.root / AT], check=True)
    for words in (("show", "web"), ("list",)):
        assert "nothing is mounted there" in here(*words, "--root", web.root)[0]
        assert told(web, *words)["mounts"][0]["right"] is False


def test_a_source_is_no_volume_whose_files_were_changed(web: Host) -> None:
    assert told(web, "check")["findings"] == []
    assert told(web, "show", "web")["volumes"] == []
    shutil.rmtree(web.volume)
    assert [one["code"] for one in told(web, "check")["findings"]] == ["USN175"]


def test_the_history_names_a_mount_and_its_end(web: Host) -> None:
    here("undo", "--last", "--root", web.root)
    *_, made, gone = told(web, "history")["entries"]
    assert made["lines"] == [f"volume /srv/vol is mounted at /{AT} for web (shift)"]
    assert gone["lines"] == [f"the mount at /{AT} was taken away"]
    assert told(web, "volumes")["volumes"] == []


def test_whois_says_the_id_on_disk_and_the_one_that_is_shown(web: Host) -> None:
    first = web.starts["web"]
    [file] = told(web, "whois", "--file", f"{web.root}/{AT}/file")["files"]
    assert [(one["role"], one["id"], one["on_disk"]) for one in file["ids"]] == [
        ("owner", first + 33, 33),
        ("group", first + 34, 34),
    ]
    assert file["mount"] == {"path": f"{web.root}/{AT}"}
    text = here("whois", "--file", f"/{AT}/file", "--root", web.root)[0]
    assert f"shown by the idmapped mount at {web.root}/{AT}\n" in text
    assert f"owner {first + 33} (33 on disk): container web: 33" in text


def test_whois_of_an_owner_that_the_map_lacks(web: Host) -> None:
    os.chown(web.volume / "file", 70000, 34)
    [file] = told(web, "whois", "--file", f"{web.root}/{AT}/file")["files"]
    owner, _ = file["ids"]
    assert (owner["id"], owner["on_disk"]) == (65534, None)
    text = here("whois", "--file", f"/{AT}/file", "--root", web.root)[0]
    assert "owner 65534 (the mount's map lacks the id on disk): " in text


def test_whois_of_the_source_says_no_more_than_before(web: Host) -> None:
    [file] = told(web, "whois", "--file", f"{web.root}/srv/vol/file")["files"]
    assert [(one["id"], one["on_disk"]) for one in file["ids"]] == [(33, 33), (34, 34)]
    assert file["mount"] is None
    assert "on disk" not in here("whois", "--file", "/srv/vol/file", "--root", web.root)[0]


def test_whois_on_an_older_kernel_says_that_the_ids_on_disk_are_others(
    web: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_maps(monkeypatch)
    [file] = told(web, "whois", "--file", f"{web.root}/{AT}/file")["files"]
    assert [one["on_disk"] for one in file["ids"]] == [None, None]
    assert (
        "the kernel tells from Linux 6.15 on"
        in here(*("whois", "--file", f"/{AT}/file", "--root", web.root))[0]
    )


def found_owned(host: Host, what: str, *words: str) -> tuple[list[str], list[tuple[str, bool]]]:
    """The paths, and the mounts that were met, each with whether it was searched."""
    document = told(host, "find-owned", what, *words)
    mounts = [(one["path"], one["searched"]) for one in document["mounts"]]
    return [one["path"].removeprefix(f"{host.root}/") for one in document["entries"]], mounts


def test_find_owned_counts_no_file_twice(web: Host) -> None:
    place = f"{web.root}/{AT}"
    # The same files are shown at both, and an id that both have is the trap.
    both = f"0-{web.starts['web'] + 65535}"
    paths, met = found_owned(web, both, "/srv", "/run", "--cross-mounts")
    assert [path for path in paths if path.endswith("file")] == ["srv/vol/file"]
    assert met == [(place, False)]
    # Who names the mount point wants to see what it shows.
    paths, met = found_owned(web, both, "/run", f"/{AT}", "--cross-mounts")
    assert [path for path in paths if path.endswith("file")] == [f"{AT}/file"]
    assert met == [(place, True)]


def test_find_owned_on_a_mount_says_what_is_on_disk(web: Host) -> None:
    first = web.starts["web"]
    out, err = here("find-owned", "web", f"/{AT}", "--root", web.root)
    assert [line.partition(AT)[2] for line in out.splitlines()] == ["", "/file"]
    assert f"shows {web.root}/srv/vol with other ids" in err
    assert f"0-65535 as {first}-{first + 65535}" in err
    err = here("find-owned", "web", "/run", "--cross-mounts", "--root", web.root)[1]
    assert f"{web.root}/{AT} was not searched: it shows {web.root}/srv/vol" in err


def read(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often our own mountinfo is read, and the kernel asked for mounts."""
    counts = {"mountinfo": 0, "asked": 0}
    lines, call = mounts._mounts_of, idmap.system_call

    def counted_lines(pid: int | str) -> list[mounts.MountPoint]:
        counts["mountinfo"] += pid == "self"
        return lines(pid)

    def counted_call(number: int, *arguments: object) -> int:
        counts["asked"] += 1
        return call(number, *arguments)

    monkeypatch.setattr(mounts, "_mounts_of", counted_lines)
    monkeypatch.setattr(statmount, "system_call", counted_call)
    return counts


@pytest.mark.parametrize("many", [3, pytest.param(1000, marks=pytest.mark.slow)])
def test_mountinfo_is_read_twice_and_each_mount_asked_once(
    host: Host, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    host.allocate("web")
    mount_many(host.root, "web", many)
    try:
        others = len(mounts.all_mounts()) - many
        counts = read(monkeypatch)
        found = told(host, "volumes")["volumes"]
        assert [one["right"] for one in found] == [True] * many
        # For the mounts, and for the ways to their sources.
        assert counts["mountinfo"] == 2
        # listmount gives 1024 at a time, and says once that there are no more.
        assert counts["asked"] <= others + many + (others + many) // 1024 + 2
    finally:
        monkeypatch.undo()
        take_down(host)


def test_a_host_without_mounts_asks_for_none(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.allocate("web")
    counts = read(monkeypatch)
    assert told(host, "volumes")["volumes"] == []
    assert counts == {"mountinfo": 0, "asked": 0}
