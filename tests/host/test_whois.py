"""whois on a root of its own, and find-owned's words; what they say beside the files that they say it of."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.command import PROGRAM, files_of, here, ids, json_of, needs_root, slow, usernsplan
from tests.each import each

ACCOUNTS = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"
GROUP = "root:x:0:\nalice:x:1000:\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with web (524288 on), a released one, and lines and accounts of others."""
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
    """Run whois with this on its standard input."""
    raw = io.BytesIO(text.encode() if isinstance(text, str) else text)
    with mock.patch.object(sys, "stdin", io.TextIOWrapper(raw)):
        out, err = here("whois", *words, status=status)
    return err if status else out


def answer(*words: str | Path) -> dict[str, Any]:
    [found] = json_of("whois", *words)["answers"]
    assert isinstance(found, dict)
    return found


def test_an_id_of_a_container_is_told_with_everything_that_is_known(root: Path) -> None:
    found = answer("524321", "--root", root, "--passwd", root / "image/etc/passwd")
    assert found["id"] == 524321
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
        "range": ids(524288, 65536),
        "since": history["at"],
        "by": {name: history[name] for name in ("at", "uid", "sudo_uid", "login_uid", "command")},
    }
    assert uid["by"]["sudo_uid"] == 1234
    [gid] = found["gid"]
    assert gid["container_name"] == "web"
    text = usernsplan(
        "whois", "524321", "--root", root, "--passwd", root / "image/etc/passwd"
    ).stdout
    for word in (
        "web",
        "33 (www-data)",
        "524288-589823",
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
    [released] = answer("589824", "--root", root)["uid"]
    assert (released["kind"], released["name"], released["range"]) == (
        "quarantine",
        "old",
        ids(589824, 65536),
    )
    assert "release --forget old" in usernsplan("whois", "589824", "--root", root).stdout
    kinds = [one["kind"] for one in answer("1000", "--root", root)["uid"]]
    assert kinds == ["account", "reserved"]


def test_what_nobody_has_is_free_in_the_pool_or_outside_of_it(root: Path) -> None:
    free, outside = (answer(str(number), "--root", root) for number in (655360, 70000))
    assert (free["free"], free["in_pool"]) == (True, True)
    assert (outside["free"], outside["in_pool"]) == (True, False)
    assert (
        "free in the pool (524288-600100000)"
        in usernsplan("whois", "655360", "--root", root).stdout
    )
    (root / "etc/login.defs").write_text("SUB_UID_MAX 600000\n")
    assert answer("655360", "--root", root)["in_pool"] is False
    (root / "etc/login.defs").write_text("SUB_UID_MAX 5\n")
    assert answer("655360", "--root", root)["in_pool"] is None


def test_65534_says_that_what_is_unmapped_reads_so(root: Path) -> None:
    assert (
        "every id that its map lacks as 65534"
        in usernsplan("whois", "65534", "--root", root).stdout
    )
    assert answer("65534", "--root", root)["remarks"]


def test_many_ids_get_a_line_each_in_their_order(root: Path) -> None:
    text = "524288 1000\n\n524288\n70000\n"
    lines = piped(text, "--root", root).splitlines()
    # And from a real pipe.
    command = [*PROGRAM, "whois", "--root", str(root)]
    found = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == lines
    assert [line.split()[0] for line in lines] == ["524288", "1000", "524288", "70000"]
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
        (524321, 524321),
        (None, None),
    ]
    named = json_of(*words, "www-data", "--passwd", root / "image/etc/passwd")["answers"]
    assert [(one["container_uid"], one["uid"]) for one in named] == [(33, 524321)]
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
    subprocess.run(["setfacl", "-m", "u:524321:r,g:1000:rx", path], check=True)
    subprocess.run(["setfacl", "-m", "d:u:100000:r", folder], check=True)
    os.chown(path, 524288, 1000)
    # VFS_CAP_REVISION_3, cap_chown permitted, rootid 524288.
    raw = b"\x01\x00\x00\x03" + b"\x01\x00\x00\x00" + bytes(12) + (524288).to_bytes(4, "little")
    os.setxattr(path, "security.capability", raw)
    document = json_of("whois", "--file", "/srv/odd\nname", "--file", "/srv", "--root", root)
    assert document["answers"] == []
    told, above = document["files"]
    assert [
        (one["role"], one["id"], [claim["kind"] for claim in one["claims"]]) for one in told["ids"]
    ] == [
        ("owner", 524288, ["allocation"]),
        ("group", 1000, ["group", "reserved"]),
        ("ACL user", 524321, ["allocation"]),
        ("ACL group", 1000, ["group", "reserved"]),
        ("capability for the root of", 524288, ["allocation"]),
    ]
    assert [(one["role"], one["id"]) for one in above["ids"]][2:] == [("default ACL user", 100000)]
    text = usernsplan("whois", "--file", "/srv/odd\nname", "--root", root).stdout
    assert "'/srv/odd\\nname' (file)" in text
    assert "ACL user 524321: container web: 33" in text


@needs_root
def test_of_a_symlink_it_is_the_link_itself(root: Path) -> None:
    (root / "srv").mkdir()
    link = root / "srv/link"
    link.symlink_to("/etc/passwd")
    os.lchown(link, 524290, 0)
    [told] = json_of("whois", "--file", "/srv/link", "--root", root)["files"]
    assert (told["type"], told["ids"][0]["id"]) == ("symlink", 524290)
    # A folder that is a symlink is followed as a chroot would: /etc is the root's own.
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
    usernsplan("whois", "524288", "--root", root)
    usernsplan("whois", "1000", "--json", "--root", root)
    assert files_of(root) == before


def test_a_host_without_anything_has_nobody(tmp_path: Path) -> None:
    assert answer("655360", "--root", tmp_path)["free"] is True


@pytest.mark.parametrize(
    "words",
    [
        "whois 655360",
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
        ("whois 524288", 0),
        ("whois 524288 5 --json", 0),
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
        words = [*PROGRAM, "whois", "524288", "--root", str(root)]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "could not be printed" in done.stderr
    assert "history" not in done.stderr


@needs_root
def test_whoever_may_not_read_the_ledger_is_told_by_the_lines(root: Path) -> None:
    for path in (root, *root.parents):
        if stat.S_IMODE(path.stat().st_mode) & 0o005 != 0o005:
            path.chmod(path.stat().st_mode | 0o055)
        if path == Path("/tmp"):
            break
    nobody = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", *PROGRAM]

    def told(*words: str | Path) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*nobody, *words, "--root", root],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[2],
        )
        assert done.returncode == 0, done.stderr
        return done

    done = told("whois", "524300", "--json")
    [answer] = json.loads(done.stdout)["answers"]
    assert [one["owner"] for one in answer["uid"]] == ["usernsplan-web"]
    assert answer["free"] is False
    assert "ledger" in done.stderr
    # Of the range that was released no file tells: it is not to be told as free.
    [answer] = json.loads(told("whois", "589824", "--json").stdout)["answers"]
    assert answer["free"] is None
    done = told("whois", "589824")
    assert "as far as can be seen" in done.stdout
    assert "free in the pool" not in done.stdout
    assert "quarantined" in done.stderr
    # Who spells the ids out needs no ledger.
    assert told("find-owned", "524288-524290", "/image").stdout == ""


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
