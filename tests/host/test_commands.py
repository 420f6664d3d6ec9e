"""The commands on their own root, from the command line to the bytes written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.command import extents, files_of, ids, json_of, needs_root, usernsplan
from tests.each import each


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "host"


def put(root: Path, name: str, text: str) -> Path:
    path = root / "etc" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_two_names_get_the_first_two_ranges_of_the_pool(root: Path) -> None:
    usernsplan("allocate", "--strategy", "per-container", "web", "db", "--root", root)
    expected = "usernsplan-web:589824:65536\nusernsplan-db:655360:65536\n"
    assert (root / "etc/subuid").read_text() == expected
    assert (root / "etc/subgid").read_text() == expected
    assert not (root / "etc/docker").exists()
    assert not list((root / "etc").glob("sub*.lock"))
    assert (root / "var/lib/usernsplan/ledger.sqlite3").stat().st_mode & 0o7777 == 0o600


def test_the_json_document_has_the_promised_form(root: Path) -> None:
    document = json_of("allocate", "--strategy", "per-container", "web", "--root", root)
    assert document["kind"] == "allocate"
    assert document["changed"] is True
    [allocation] = document["allocations"]
    assert allocation["name"] == "web"
    assert allocation["owner"] == "usernsplan-web"
    assert allocation["strategy"] == "per-container"
    assert allocation["uid_map"] == extents((0, 589824, 65536)) == allocation["gid_map"]
    assert [change["path"] for change in document["changes"]] == [
        f"{root}/etc/subuid",
        f"{root}/etc/subgid",
    ]
    assert "+usernsplan-web:589824:65536" in document["changes"][0]["diff"]
    assert document["findings"] == []
    assert document["next_steps"]


def test_list_and_show_give_the_same_allocation_object(root: Path) -> None:
    usernsplan(
        "allocate", "--strategy", "single-uid", "web", "--container-id", "33", "--root", root
    )
    listed = json_of("list", "--root", root)["allocations"]
    shown = json_of("show", "web", "--root", root)["allocations"]
    assert listed == shown
    assert listed[0]["uid_map"] == extents((33, 1000000000, 1))


def test_the_same_words_again_touch_no_file(root: Path) -> None:
    words = ("allocate", "--strategy", "per-container", "web", "db", "--root", root)
    usernsplan(*words)
    before = files_of(root)
    again = json_of(*words)
    assert again["changed"] is False
    assert again["changes"] == []
    assert files_of(root) == before
    assert "Already up to date" in usernsplan(*words).stdout
    usernsplan(*words, "--check")


@pytest.mark.parametrize(("flag", "status"), [("--dry-run", 0), ("--check", 4)])
def test_a_preview_shows_the_bytes_and_writes_nothing(root: Path, flag: str, status: int) -> None:
    done = usernsplan(
        "allocate", "--strategy", "per-container", "web", "--root", root, flag, status=status
    )
    assert "+usernsplan-web:589824:65536" in done.stdout
    assert not root.exists()


def test_another_size_of_a_known_name_is_refused_with_what_to_do(root: Path) -> None:
    usernsplan("allocate", "--strategy", "per-container", "web", "--root", root)
    before = files_of(root)
    done = usernsplan(
        "allocate",
        "--strategy",
        "per-container",
        "web",
        "--size",
        "131072",
        "--root",
        root,
        status=9,
    )
    assert f"usernsplan remap web --size 131072 --root {root}" in done.stderr
    done = usernsplan("allocate", "--strategy", "shared", "web2", "--root", root, status=9)
    assert "per-container" in done.stderr
    assert "web" in done.stderr
    assert files_of(root) == before


def test_a_released_range_is_not_given_out_before_it_is_forgotten(root: Path) -> None:
    allocate = ("allocate", "--strategy", "per-container", "--root", root)
    usernsplan(*allocate, "web", "db")
    put(root, "subuid", (root / "etc/subuid").read_text() + "someone:100000:65536\n")
    usernsplan("release", "web", "--root", root)
    assert (root / "etc/subuid").read_text() == "usernsplan-db:655360:65536\nsomeone:100000:65536\n"
    assert (root / "etc/subgid").read_text() == "usernsplan-db:655360:65536\n"
    assert json_of(*allocate, "new")["allocations"][0]["uid_map"] == extents((0, 720896, 65536))
    [kept] = json_of("list", "--root", root)["quarantined"]
    assert (kept["name"], kept["range"]) == ("web", ids(589824, 65536))
    usernsplan("release", "--forget", "web", "--root", root)
    assert json_of(*allocate, "newer")["allocations"][0]["uid_map"] == extents((0, 589824, 65536))


@pytest.mark.parametrize(
    "words", [("release", "nobody"), ("release", "--forget", "nobody"), ("show", "nobody")]
)
def test_an_unknown_name_is_an_error(root: Path, words: tuple[str, ...]) -> None:
    usernsplan("allocate", "--strategy", "per-container", "web", "--root", root)
    assert "nobody" in usernsplan(*words, "--root", root, status=1).stderr


def test_history_says_who_did_what_with_which_words(root: Path) -> None:
    words = ("allocate", "--strategy", "per-container", "web", "--root", str(root))
    usernsplan(*words, env={"SUDO_UID": "1234"})
    [entry] = json_of("history", "--root", root)["entries"]
    assert entry["sudo_uid"] == 1234
    assert entry["command"].endswith(" ".join(words))
    assert f"{root}/etc/subgid: + usernsplan-web:589824:65536" in entry["lines"]
    assert "1234" in usernsplan("history", "--root", root).stdout


@needs_root
def test_with_no_names_docker_is_remapped_and_again_nothing_happens(root: Path) -> None:
    put(root, "docker/daemon.json", '{\n    "debug": true\n}\n')
    document = json_of("allocate", "--strategy", "per-container", "--root", root)
    assert document["allocations"][0]["owner"] == "dockremap"
    assert (
        root / "etc/docker/daemon.json"
    ).read_text() == '{\n    "debug": true,\n    "userns-remap": "dockremap"\n}\n'
    assert (root / "etc/subuid").read_text() == "dockremap:589824:65536\n"
    assert "dockremap:" in (root / "etc/passwd").read_text()
    assert "dockremap:" in (root / "etc/group").read_text()
    assert any(
        "/var/lib/docker/589824.589824" in finding["message"] for finding in document["findings"]
    )
    before = files_of(root)
    assert json_of("allocate", "--strategy", "per-container", "--root", root)["changed"] is False
    assert files_of(root) == before


@needs_root
def test_where_useradd_cannot_run_the_command_is_left_to_do_and_docker_is_left_alone(
    root: Path,
) -> None:
    code = (
        "import sys, usernsplan.host.accounts as a; a._SBIN = '/nonexistent'\n"
        "sys.argv[0] = 'usernsplan'\nfrom usernsplan.cli import main; main()"
    )
    words = [
        sys.executable,
        "-c",
        code,
        "allocate",
        "--strategy",
        "per-container",
        "--root",
        str(root),
        "--json",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    document = json.loads(done.stdout)
    assert any(step.startswith(f"useradd --prefix {root} ") for step in document["next_steps"])
    assert not (root / "etc/docker").exists()
    assert (root / "etc/subuid").read_text() == "dockremap:589824:65536\n"
    usernsplan("allocate", "--strategy", "per-container", "--root", root)
    assert (root / "etc/docker/daemon.json").exists()


@needs_root
def test_another_remap_is_not_overwritten_without_yes(root: Path) -> None:
    put(root, "docker/daemon.json", '{"userns-remap": "alice"}')
    put(root, "subuid", "alice:100000:65536\n")
    put(root, "subgid", "alice:100000:65536\n")
    before = files_of(root)
    done = usernsplan("allocate", "--strategy", "per-container", "--root", root, status=9)
    assert "/var/lib/docker/100000.100000" in done.stderr
    assert "/var/lib/docker/589824.589824" in done.stderr
    assert files_of(root) == before
    usernsplan("allocate", "--strategy", "per-container", "--root", root, "--replace-remap")
    assert json.loads((root / "etc/docker/daemon.json").read_text()) == {
        "userns-remap": "dockremap"
    }


@needs_root
def test_what_docker_itself_had_made_is_adopted(root: Path) -> None:
    """If "userns-remap": "default" created dockremap and its line: same range, same data root."""
    put(root, "docker/daemon.json", '{"userns-remap": "default"}')
    put(root, "passwd", "dockremap:x:990:990::/:/bin/false\n")
    put(root, "group", "dockremap:x:990:\n")
    put(root, "subuid", "dockremap:165536:65536\n")
    put(root, "subgid", "dockremap:165536:65536\n")
    words = ("allocate", "--strategy", "per-container", "--root", root)
    assert "adopt default --root" in usernsplan(*words, status=9).stderr
    before = files_of(root)
    document = json_of("adopt", "default", "--root", root)
    assert document["allocations"][0]["uid_map"] == extents((0, 165536, 65536))
    assert document["changes"] == []
    assert {name: files_of(root)[name] for name in before} == before
    assert json_of(*words)["changed"] is False


@needs_root
def test_a_data_root_that_changes_is_said_even_where_daemon_json_does_not(root: Path) -> None:
    put(root, "docker/daemon.json", '{"userns-remap": "default"}')
    put(root, "passwd", "dockremap:x:990:990::/:/bin/false\n")
    put(root, "group", "dockremap:x:990:\n")
    document = json_of("allocate", "--strategy", "per-container", "--root", root)
    assert any(
        "/var/lib/docker/589824.589824" in finding["message"] for finding in document["findings"]
    )
    assert any("restart docker" in step for step in document["next_steps"])


@needs_root
def test_commands_that_are_shown_are_about_the_same_root(root: Path) -> None:
    shown = json_of("allocate", "--strategy", "per-container", "--root", root, "--dry-run")[
        "account_commands"
    ]
    assert len(shown) == 1
    assert shown[0].startswith(f"useradd --prefix {root} --system ")
    done = usernsplan("allocate", "--strategy", "per-container", "--root", root)
    assert shown[0] in done.stderr


def test_a_loop_of_symlinks_where_programs_are_looked_for_is_no_obstacle(root: Path) -> None:
    for name in ("etc", "snap"):
        (root / name).mkdir(parents=True)
    (root / "snap/bin").symlink_to("bin")
    usernsplan("allocate", "--strategy", "per-container", "web", "--root", root)


def test_an_owner_who_is_nobody_yet_is_warned_of(root: Path) -> None:
    words = ("allocate", "--strategy", "per-container", "web", "--owner", "carl", "--root", root)
    assert [finding["code"] for finding in json_of(*words)["findings"]] == ["USN118"]
    put(root, "passwd", "carl:x:1000:1000::/:/bin/sh\n")
    assert json_of(*words)["findings"] == []
    assert "--rootless" in usernsplan("render", "podman", "web", "--root", root).stderr


def test_hints_that_can_be_pasted_are_about_the_same_root(root: Path) -> None:
    usernsplan("allocate", "--strategy", "per-container", "web", "--root", root)
    done = usernsplan(
        "allocate", "--strategy", "per-container", "web", "--size", "9", "--root", root, status=9
    )
    assert f"usernsplan remap web --size 9 --root {root}" in done.stderr


def test_a_broken_daemon_json_is_refused_with_line_and_column(root: Path) -> None:
    put(root, "docker/daemon.json", '{\n  "debug": true,\n}\n')
    done = usernsplan("allocate", "--strategy", "per-container", "--root", root, status=1)
    assert f"{root}/etc/docker/daemon.json:3:1: " in done.stderr
    assert not (root / "etc/subuid").exists()
    usernsplan("allocate", "--strategy", "per-container", "--root", root, "--no-daemon-config")
    assert (root / "etc/docker/daemon.json").read_text() == '{\n  "debug": true,\n}\n'


@each(
    ("words", "status", "says"),
    [
        (("allocate", "web"), 2, "--strategy"),
        (("allocate", "--strategy", "best", "web"), 2, "per-container"),
        (("allocate", "--strategy", "shared", "--size", "9", "web"), 2, "--size"),
        (("allocate", "--strategy", "per-container", "--size", "0", "web"), 2, "0"),
        (("allocate", "--strategy", "per-container", "--size", "many", "web"), 2, "--size"),
        (("allocate", "--strategy", "per-container", "w"), 2, "'w'"),
        (("allocate", "--strategy", "per-container", "a:b"), 2, "a:b"),
        (("allocate", "--strategy", "per-container", "web", "--owner", "1000"), 2, "1000"),
        (("allocate", "--strategy", "per-container", "web", "--owner", ""), 2, "subuid"),
        (("allocate", "--strategy", "per-container", "web", "--pool", "9-1"), 2, "--pool"),
        (("allocate", "--strategy", "per-container", "web", "--pool", "589824-655358"), 7, "65535"),
        (
            ("allocate", "--strategy", "shared", "--dockerroot", "0", "web"),
            9,
            "--dockerroot: 0 would",
        ),
        (
            ("allocate", "--strategy", "shared", "--dockerroot", "9", "--identity", "web"),
            2,
            "--identity: does not go with dockerroot",
        ),
        (
            (
                "allocate",
                "--strategy",
                "per-container",
                "web",
                "--daemon",
                "web",
                "--no-daemon-config",
            ),
            2,
            "--daemon",
        ),
        (("allocate", "--strategy", "per-container", "web", "--daemon", ""), 2, "''"),
        (
            ("allocate", "--strategy", "per-container", "web", "--daemon", "default"),
            2,
            "without a name",
        ),
        (("render", "rkt", "web"), 2, "rkt"),
        (("release",), 2, "NAME"),
        (("frobnicate",), 2, "frobnicate"),
    ],
)
def test_wrong_words_are_said_to_be_wrong(
    root: Path, words: tuple[str, ...], status: int, says: str
) -> None:
    rooted = () if words[0] == "frobnicate" else ("--root", root)
    done = usernsplan(*words, *rooted, status=status)
    assert says in done.stderr
    # A mistyped engine may be part of a command line of podman.
    assert done.stdout == ("--userns=usernsplan-failed\n" if words[0] == "render" else "")
    assert not root.exists()


def test_not_root_is_a_clear_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/subuid").write_text("")
    words = ("allocate", "--strategy", "per-container", "web", "--root", tmp_path)
    if os.geteuid() != 0:
        (tmp_path / "etc").chmod(0o555)
        assert f"{tmp_path}/etc/.pwd.lock" in usernsplan(*words, status=8).stderr
        return
    # As nobody, with the interpreter and the checkout already open: they may be below /root.
    code = (
        "import os, shlex, sys, usernsplan.apply, usernsplan.cli.app, usernsplan.cli.allocate, usernsplan.ledger.sqlite\n"
        "import usernsplan.report.text, usernsplan.cli as c\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534); c.main()"
    )
    with tempfile.TemporaryDirectory(dir="/tmp") as open_to_all:
        Path(open_to_all).chmod(0o755)
        os.mkdir(f"{open_to_all}/tree")
        os.mkdir(f"{open_to_all}/tree/etc")
        command = [sys.executable, "-c", code, *map(str, words[:-1]), f"{open_to_all}/tree"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 8, done.stderr
    assert f"{open_to_all}/tree/etc/.pwd.lock" in done.stderr
    assert "run as root" in done.stderr
