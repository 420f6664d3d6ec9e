"""whois and find-owned on their own root: their output, compared with the files."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.command import (
    PROGRAM,
    files_of,
    here,
    ids,
    json_of,
    needs_root,
    open_to_others,
    slow,
    usernsplan,
)
from tests.each import each

ACCOUNTS = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"
GROUP = "root:x:0:\nalice:x:1000:\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with web (589824 on), a quarantined range, and lines and accounts of others."""
    root = tmp_path / "host"
    usernsplan(
        "allocate",
        "--strategy",
        "per-container",
        "web",
        "old",
        "--root",
        root,
        env={"SUDO_UID": "1234"},
    )
    usernsplan("release", "old", "--root", root)
    (root / "etc/passwd").write_text(ACCOUNTS)
    (root / "etc/group").write_text(GROUP)
    with (root / "etc/subuid").open("a") as file:
        file.write("alice:100000:65536\n bob:100010:5\r\n")
    image = root / "image/etc"
    image.mkdir(parents=True)
    (image / "passwd").write_text("www-data:x:33:33::/:/bin/sh\n")
    (image / "group").write_text("web:x:33:\n")
    return root


def piped(text: str | bytes, *words: str | Path, status: int = 0) -> str:
    """Run whois with this text on standard input."""
    raw = io.BytesIO(text.encode() if isinstance(text, str) else text)
    with mock.patch.object(sys, "stdin", io.TextIOWrapper(raw)):
        out, err = here("whois", *words, status=status)
    return err if status else out


def answer(*words: str | Path) -> dict[str, Any]:
    [found] = json_of("whois", *words)["answers"]
    assert isinstance(found, dict)
    return found


def test_an_id_of_a_container_is_told_with_everything_that_is_known(root: Path) -> None:
    found = answer("589857", "--root", root, "--passwd", root / "image/etc/passwd")
    assert found["id"] == 589857
    [uid] = found["uid"]
    history = json_of("history", "--root", root)["entries"][0]
    assert uid == {
        "kind": "allocation",
        "name": "web",
        "owner": "usernsplan-web",
        "strategy": "per-container",
        "pool": None,
        "container_id": 33,
        "container_name": "www-data",
        "range": ids(589824, 65536),
        "since": history["at"],
        "by": {name: history[name] for name in ("at", "uid", "sudo_uid", "login_uid", "command")},
    }
    assert uid["by"]["sudo_uid"] == 1234
    [gid] = found["gid"]
    assert gid["container_name"] == "web"
    text = usernsplan(
        "whois", "589857", "--root", root, "--passwd", root / "image/etc/passwd"
    ).stdout
    for word in (
        "web",
        "33 (www-data)",
        "589824-655359",
        "per-container",
        history["at"],
        "sudo by 1234",
        "allocate",
    ):
        assert word in text


def test_others_lines_the_released_range_and_accounts(root: Path) -> None:
    found = answer("100012", "--root", root)
    assert [(one["kind"], one["owner"], one["line"], one["range"]) for one in found["uid"]] == [
        ("subid", "alice", 2, ids(100000, 65536)),
        ("subid", "bob", 3, ids(100010, 5)),
    ]
    assert "CR LF" in found["uid"][1]["problem"]
    assert found["gid"] == []
    [released] = answer("655360", "--root", root)["uid"]
    assert (released["kind"], released["name"], released["range"]) == (
        "quarantine",
        "old",
        ids(655360, 65536),
    )
    assert "release --forget old" in usernsplan("whois", "655360", "--root", root).stdout
    kinds = [one["kind"] for one in answer("1000", "--root", root)["uid"]]
    assert kinds == ["account", "reserved"]


def test_what_nobody_has_is_free_in_the_pool_or_outside_of_it(root: Path) -> None:
    free, outside = (answer(str(number), "--root", root) for number in (720896, 70000))
    assert (free["free"], free["in_pool"]) == (True, True)
    assert (outside["free"], outside["in_pool"]) == (True, False)
    assert (
        "free in the pool (589824-600100000)"
        in usernsplan("whois", "720896", "--root", root).stdout
    )
    (root / "etc/login.defs").write_text("SUB_UID_MAX 665536\n")
    assert answer("720896", "--root", root)["in_pool"] is False
    (root / "etc/login.defs").write_text("SUB_UID_MAX 5\n")
    assert answer("720896", "--root", root)["in_pool"] is None


def test_65534_says_that_what_is_unmapped_reads_so(root: Path) -> None:
    assert (
        "every id that its map lacks as 65534"
        in usernsplan("whois", "65534", "--root", root).stdout
    )
    assert answer("65534", "--root", root)["remarks"]


def test_many_ids_get_a_line_each_in_their_order(root: Path) -> None:
    text = "589824 1000\n\n589824\n70000\n"
    lines = piped(text, "--root", root).splitlines()
    # The same from a real pipe.
    command = [*PROGRAM, "whois", "--root", str(root)]
    found = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == lines
    assert [line.split()[0] for line in lines] == ["589824", "1000", "589824", "70000"]
    assert "container web: 0" in lines[0] == lines[2]
    assert piped("1000\n70000", "--root", root, "-").splitlines() == [lines[1], lines[3]]
    answers = json.loads(piped("5 6 5 6", "--root", root, "--json"))["answers"]
    assert [one["id"] for one in answers] == [5, 6]


def test_no_ids_at_all_are_answered_by_nothing(root: Path) -> None:
    assert piped("", "--root", root) == ""
    assert usernsplan("whois", "--root", root).stdout == ""


@each("word", ["4294967295", "-1", "0x10", "1e3", "01", "web", "1.0", "+5", "99999999999999999999"])
def test_what_is_no_id_is_named(root: Path, word: str) -> None:
    assert repr(word) in usernsplan("whois", "--root", root, "--", "5", word, status=2).stderr
    assert f"line 3: {word!r}" in piped(f"1\n2 2\n4 {word}\n", "--root", root, status=2)


def test_bytes_that_are_no_text_are_an_error_that_a_terminal_can_show(root: Path) -> None:
    said = piped(b"1\n\xff\x1b[31m\n", "--root", root, status=2)
    assert "line 2" in said
    assert "\x1b" not in said


def test_the_largest_id_is_one(root: Path) -> None:
    [kept] = answer("4294967294", "--root", root)["uid"]
    assert "FreeIPA" in kept["whose"]


def test_the_other_way_and_what_is_not_mapped(root: Path) -> None:
    words = ("whois", "--container", "web", "--root", root)
    found = json_of(*words, "33", "65536", status=1)
    assert found["container"] == "web"
    assert [(one["uid"], one["gid"]) for one in found["answers"]] == [
        (589857, 589857),
        (None, None),
    ]
    named = json_of(*words, "www-data", "--passwd", root / "image/etc/passwd")["answers"]
    assert [(one["container_uid"], one["uid"]) for one in named] == [(33, 589857)]
    assert "not mapped" in usernsplan(*words, "65536", status=1).stdout
    assert "www-data" in usernsplan(*words, "www-data", status=2).stderr
    assert piped("33\n0\n", *words[1:]).count("\n") == 2
    usernsplan("whois", "--container", "nobody", "1", "--root", root, status=1)
    usernsplan(*words, "33", "--file", "/etc", status=2)


@needs_root
def test_a_file_is_told_with_its_acl_and_the_root_of_its_capability(root: Path) -> None:
    folder = root / "srv"
    folder.mkdir()
    path = folder / "odd\nname"
    path.touch()
    subprocess.run(["setfacl", "-m", "u:589857:r,g:1000:rx", path], check=True)
    subprocess.run(["setfacl", "-m", "d:u:100000:r", folder], check=True)
    os.chown(path, 589824, 1000)
    # VFS_CAP_REVISION_3, cap_chown permitted, rootid 589824.
    raw = b"\x01\x00\x00\x03" + b"\x01\x00\x00\x00" + bytes(12) + (589824).to_bytes(4, "little")
    os.setxattr(path, "security.capability", raw)
    document = json_of("whois", "--file", "/srv/odd\nname", "--file", "/srv", "--root", root)
    assert document["answers"] == []
    told, above = document["files"]
    assert [
        (one["role"], one["id"], [claim["kind"] for claim in one["claims"]]) for one in told["ids"]
    ] == [
        ("owner", 589824, ["allocation"]),
        ("group", 1000, ["group", "reserved"]),
        ("ACL user", 589857, ["allocation"]),
        ("ACL group", 1000, ["group", "reserved"]),
        ("capability for the root of", 589824, ["allocation"]),
    ]
    assert [(one["role"], one["id"]) for one in above["ids"]][2:] == [("default ACL user", 100000)]
    text = usernsplan("whois", "--file", "/srv/odd\nname", "--root", root).stdout
    assert "'/srv/odd\\nname' (file)" in text
    assert "ACL user 589857: container web: 33" in text


@needs_root
def test_of_a_symlink_it_is_the_link_itself(root: Path) -> None:
    (root / "srv").mkdir()
    link = root / "srv/link"
    link.symlink_to("/etc/passwd")
    os.lchown(link, 589826, 0)
    [told] = json_of("whois", "--file", "/srv/link", "--root", root)["files"]
    assert (told["type"], told["ids"][0]["id"]) == ("symlink", 589826)
    # A symlink to a folder is followed as in a chroot: /etc is the root's.
    (root / "srv/dir").symlink_to("/etc")
    [told] = json_of("whois", "--file", "/srv/dir/passwd", "--root", root)["files"]
    assert told["ids"][0]["id"] == os.stat(root / "etc/passwd").st_uid


@each(
    ("path", "status"),
    [("/srv/none", 2), ("", 2), ("/etc/passwd/x", 2), ("/" + "x" * 300, 2), ("/x" * 3000, 2)],
)
def test_a_path_at_which_nothing_lies(root: Path, path: str, status: int) -> None:
    usernsplan("whois", "--file", path, "--root", root, status=status)


def test_names_that_others_wrote_cannot_paint_the_terminal(root: Path) -> None:
    with (root / "etc/subuid").open("ab") as file:
        file.write(b"e\x1b[31mvil:300000:10\nb\xffd:300000:10\n")
    text = piped("300005", "--root", root)
    assert "\x1b" not in text
    assert len(answer("300005", "--root", root)["uid"]) == 2


def test_nothing_is_written(root: Path) -> None:
    before = files_of(root)
    usernsplan("whois", "589824", "--root", root)
    usernsplan("whois", "1000", "--json", "--root", root)
    assert files_of(root) == before


def test_a_host_without_anything_has_nobody(tmp_path: Path) -> None:
    assert answer("720896", "--root", tmp_path)["free"] is True


@pytest.mark.parametrize(
    "words",
    [
        "whois 720896",
        "find-owned 1-2 /srv",
        "list",
        "show web",
        "history",
        "map",
        "capacity",
        "check",
        "export",
    ],
)
def test_a_root_that_was_mistyped_is_named_by_whoever_only_reads(
    tmp_path: Path, words: str
) -> None:
    missing = tmp_path / "hots"
    done = usernsplan(*words.split(), "--root", missing, status=2)
    assert f"--root {missing} does not exist" in done.stderr
    assert done.stdout == ""
    assert not missing.exists()


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("whois 589824", 0),
        ("whois 589824 5 --json", 0),
        ("find-owned web /image --null", 0),
        ("find-owned web /nothing-there", 2),
        *slow(
            ("whois 5 6", 0),
            ("whois --container web 0", 0),
            ("find-owned web /image", 0),
            ("find-owned web /image --count", 0),
            ("find-owned web /image --json", 0),
        ),
    ],
)
def test_with_standard_output_closed_the_status_is_the_same(
    root: Path, words: str, status: int
) -> None:
    command = " ".join((*PROGRAM, *words.split(), "--root", str(root)))
    done = subprocess.run(
        ["sh", "-c", f"{command} >&-"], stderr=subprocess.PIPE, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == status, done.stderr


def test_of_a_command_that_only_looks_nothing_is_said_to_be_done(root: Path) -> None:
    with open("/dev/full", "w") as full:
        words = [*PROGRAM, "whois", "589824", "--root", str(root)]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "cannot print the result" in done.stderr
    assert "history" not in done.stderr


@needs_root
def test_whoever_may_not_read_the_ledger_is_told_by_the_lines(root: Path) -> None:
    nobody = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", *PROGRAM]

    def told(*words: str | Path) -> subprocess.CompletedProcess[str]:
        with open_to_others(root):
            done = subprocess.run(
                [*nobody, *words, "--root", root],
                capture_output=True,
                text=True,
                check=False,
                cwd=Path(__file__).parents[2],
            )
        assert done.returncode == 0, done.stderr
        return done

    done = told("whois", "589836", "--json")
    [answer] = json.loads(done.stdout)["answers"]
    assert [one["owner"] for one in answer["uid"]] == ["usernsplan-web"]
    assert answer["free"] is False
    assert "ledger" in done.stderr
    # No file shows the quarantined range, but it is not free.
    [answer] = json.loads(told("whois", "655360", "--json").stdout)["answers"]
    assert answer["free"] is None
    done = told("whois", "655360")
    assert "as far as can be seen" in done.stdout
    assert "free in the pool" not in done.stdout
    assert "quarantined" in done.stderr
    # A range or an id needs no ledger.
    assert told("find-owned", "589824-589826", "/image").stdout == ""


def test_of_a_pool_it_is_not_told_which_container_it_is(root: Path) -> None:
    usernsplan(
        "allocate",
        "--engine",
        "podman-auto",
        "--auto-containers",
        "5",
        "--strategy",
        "per-container",
        "--root",
        root,
    )
    first = json_of("show", "containers", "--root", root)["allocations"][0]["reserved_range"][
        "start"
    ]
    assert "podman-auto" in usernsplan("whois", str(first + 65569), "--root", root).stdout
    assert (
        "is a pool"
        in usernsplan("whois", "--container", "containers", "33", "--root", root, status=2).stderr
    )
    os.chown(root / "image", first + 65569, 0) if os.geteuid() == 0 else None
    for row in json_of("find-owned", "containers", "/image", "--count", "--root", root)["by_id"]:
        assert row["container_id"] is None


def test_what_a_directory_service_of_another_root_knows_is_not_called_free(root: Path) -> None:
    assert answer("800000", "--root", root)["free"] is True
    (root / "etc/nsswitch.conf").write_text("passwd: files sss\n")
    assert answer("800000", "--root", root)["free"] is None
    out, said = here("whois", "800000", "--root", root)
    assert "as far as can be seen" in out
    assert "sss" in said


def test_lines_that_newuidmap_does_not_read_are_told_as_such(root: Path) -> None:
    (root / "etc/nsswitch.conf").write_text("subid: sss\n")
    assert "do not read" not in here("whois", "100000", "--root", root)[1]
    (root / "usr/lib64").mkdir(parents=True)
    (root / "usr/lib64/libsubid_sss.so").touch()
    assert "nsswitch.conf:1: 'subid: sss': newuidmap" in here("whois", "100000", "--root", root)[1]


def test_what_useradd_computes_is_told_with_its_line(root: Path) -> None:
    usual = "SUB_UID_MIN 100000\nSUB_UID_MAX 600100000\n"
    (root / "etc/login.defs").write_text(f"# c\nSUB_UID_DETERMINISTIC yes\n{usual}UID_MAX 1009\n")
    place = {"program": "useradd", "file": f"{root}/etc/login.defs", "line": 2}
    # 100000 is alice's already; 165536 would be uid 1001's.
    found = answer("165536", "--root", root)
    area = {
        "kind": "useradd",
        "what": "computes ranges of the uids 1000-1009",
        "range": ids(100000, 655360),
    }
    assert found["uid"] == [{**place, **area}]
    assert found["gid"] == []
    (root / "etc/subuid").write_text("")
    own = {
        "kind": "unlisted",
        "what": "the range of alice by its uid 1000",
        "range": ids(100000, 65536),
    }
    assert answer("100000", "--root", root)["uid"][0] == {**place, **own}
    assert f"({root}/etc/login.defs:2)" in usernsplan("whois", "165536", "--root", root).stdout
    more = json_of("capacity", "--root", root)["useradd"]
    assert (more["uids"]["computed"], more["uids"]["more"]) == (2, 9)
    assert more["gids"]["computed"] is None
    shown = usernsplan("capacity", "--root", root).stdout
    assert "computes subordinate ids for 9 more users from their uids (line 2" in shown


def test_a_new_shadow_is_known_by_its_programs_which_are_not_run(root: Path) -> None:
    folder = root / "usr/sbin"
    folder.mkdir(parents=True)
    (folder / "useradd").write_bytes(b"#!/bin/false\nSUB_UID_COUNT\0")
    old = json_of("check", "--select", "USN092", "--root", root)["findings"]
    (folder / "useradd").write_bytes(b"#!/bin/false\nSUB_UID_COUNT\0SUB_UID_STORE_BY_UID\0")
    new = json_of("check", "--select", "USN092", "--root", root)["findings"]
    assert old == []
    assert [one["place"] for one in new] == [f"{root}/etc/subuid:1", f"{root}/etc/subgid:1"]
    assert "usernsplan-web, bob" in new[0]["message"]
    assert f"useradd --prefix {root}" in new[0]["hint"]
