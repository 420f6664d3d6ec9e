"""check on its own roots: from the command line to the findings, and to the bytes of --fix."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.command import PROGRAM, files_of, json_of, needs_root, usernsplan
from tests.each import each

ACCOUNTS = "root:x:0:0::/:\nalice:x:1000:1000::/:\nbob:x:1001:1001::/:\n"
GROUPS = "root:x:0:\nalice:x:1000:\nbob:x:1001:\n"
ALICE = "alice:100000:65536\n"
WEB, DB = "usernsplan-web:589824:65536\n", "usernsplan-db:655360:65536\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with two accounts, and two containers."""
    root = tmp_path / "host"
    put(root, "passwd", ACCOUNTS)
    put(root, "group", GROUPS)
    both(root, ALICE)
    usernsplan(
        "allocate", "--strategy", "per-container", "web", "db", "--engine", "podman", "--root", root
    )
    return root


def put(root: Path, name: str, text: str) -> Path:
    path = root / "etc" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def both(root: Path, text: str) -> None:
    put(root, "subuid", text)
    put(root, "subgid", text)


def read(root: Path) -> list[str]:
    return [(root / "etc" / name).read_text() for name in ("subuid", "subgid")]


def codes(root: Path, *words: str | Path, status: int = 0) -> list[str]:
    return [
        finding["code"]
        for finding in json_of("check", *words, "--root", root, status=status)["findings"]
    ]


def test_a_host_in_order_has_nothing_and_nothing_is_touched(root: Path) -> None:
    before = files_of(root)
    done = usernsplan("check", "--root", root)
    assert done.stdout == "No problems found.\n"
    assert usernsplan("check", "--root", root, "--format", "github").stdout == ""
    assert json_of("check", "--root", root)["findings"] == []
    assert files_of(root) == before


def test_a_tree_that_is_not_there_is_a_word_typed_wrong(tmp_path: Path) -> None:
    assert "does not exist" in usernsplan("check", "--root", tmp_path / "none", status=2).stderr
    assert not (tmp_path / "none").exists()


def test_an_overlap_is_an_error_with_its_line_in_every_format(root: Path) -> None:
    both(root, f"{ALICE}{WEB}{DB}bob:165535:65536\n")
    done = usernsplan("check", "--root", root, status=1)
    assert f"  USN001 {root}/etc/subuid:4: bob's 165535-231070 overlaps with alice's" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("2 errors; ")
    lines = usernsplan("check", "--root", root, "--format", "github", status=1).stdout.splitlines()
    assert lines[0].startswith(
        f"::error file={root}/etc/subuid,line=4,title=USN001::bob's 165535-231070 overlaps"
    )
    document = json_of("check", "--root", root, status=1)
    assert document["kind"] == "check"
    assert document["counts"] == {"error": 2, "warning": 0, "info": 0}
    assert [finding["place"] for finding in document["findings"]] == [
        f"{root}/etc/subuid:4",
        f"{root}/etc/subgid:4",
    ]
    assert (
        json.loads(usernsplan("check", "--root", root, "--format", "json", status=1).stdout)
        == document
    )


def test_only_errors_make_the_status_one(root: Path) -> None:
    both(root, f"{ALICE}{WEB}{DB}carla:231072:65536\n")
    assert codes(root) == ["USN020"]


def test_select_and_ignore_choose_what_is_told_and_what_counts(root: Path) -> None:
    both(root, f"{ALICE}{WEB}{DB}bob:165535:65536\ncarla:300000:65536\n")
    assert codes(root, status=1) == ["USN001", "USN001", "USN020"]
    assert codes(root, "--select", "USN02") == ["USN020"]
    assert codes(root, "--ignore", "USN001") == ["USN020"]
    assert codes(root, "--select", "USN001,USN020", "--ignore", "USN02", status=1) == [
        "USN001",
        "USN001",
    ]
    assert codes(root, "--select", "USN001", "--select", "USN020", status=1) == [
        "USN001",
        "USN001",
        "USN020",
    ]


@each(
    ("words", "says"),
    [
        (("--select", "USN9"), "USN001, USN002"),
        (("--ignore", "nonsense"), "USN001, USN002"),
        (("--explain", "USN999"), "USN126"),
        (("--format", "yaml"), "github"),
        (("--format", "github", "--json"), "--json"),
        (("--yes",), "--fix"),
        (("--dry-run",), "--fix"),
        (("--passwd", "/nowhere/passwd"), "/nowhere/passwd"),
        (("--scan", "/nowhere"), "/nowhere"),
    ],
)
def test_wrong_words_are_said_to_be_wrong(root: Path, words: tuple[str, ...], says: str) -> None:
    done = usernsplan("check", *words, "--root", root, status=2)
    assert says in done.stderr
    if "--json" in words:
        assert json.loads(done.stdout)["error"]["code"] == "invalid-value"
    else:
        assert done.stdout == ""


def test_explain_tells_the_story_of_rules_and_of_what_allocate_tells() -> None:
    assert usernsplan("check", "--explain", "usn001").stdout.startswith(
        "USN001 (error): Lines of two owners"
    )
    assert "useradd" in usernsplan("check", "--explain", "USN103").stdout
    assert json_of("check", "--explain", "USN050")["severity"] == "error"


def test_the_table_of_readers_is_printed_and_is_in_the_document(root: Path) -> None:
    put(root, "subuid", f"{ALICE}{WEB}{DB}bob:0x186a0:65536\n")
    put(root, "subgid", f"{ALICE}{WEB}{DB}bob:231072:65536\n")
    [finding] = [
        f for f in json_of("check", "--root", root, status=1)["findings"] if f["code"] == "USN031"
    ]
    rows = {row["reader"]: row["takes"] for row in finding["table"]}
    assert set(rows) == {"shadow", "shadow 4.20", "docker", "podman", "incus"}
    assert rows["shadow 4.20"] == rows["shadow"]
    shown = usernsplan("check", "--root", root, "--select", "USN031", status=1).stdout
    assert re.search(r"shadow +bob:100000:65536", shown)
    assert re.search(r"docker +bob:0:65536", shown)


def test_an_image_is_compared_with_the_maps(root: Path, tmp_path: Path) -> None:
    put(tmp_path / "image", "passwd", "big:x:65536:65536::/:\n")
    # Two containers, by uid and by gid. Rootless, alice is container id 0 and the last id is 65536.
    assert codes(root, "--passwd", tmp_path / "image/etc/passwd", status=1) == ["USN025"] * 4
    put(tmp_path / "image", "passwd", "nobody:x:65534:65534::/:\n")
    put(tmp_path / "image", "group", "big:x:65537:\n")
    assert codes(root, "--passwd", tmp_path / "image/etc/passwd", status=1) == ["USN025"] * 3
    put(tmp_path / "image", "group", "nogroup:x:65534:\n")
    assert codes(root, "--passwd", tmp_path / "image/etc/passwd") == []


@pytest.mark.parametrize("name", ["subuid", "subgid"])
def test_a_symlink_is_a_finding_and_what_it_leads_to_is_read(root: Path, name: str) -> None:
    (root / "etc" / name).rename(root / "etc/elsewhere")
    (root / "etc" / name).symlink_to("elsewhere")
    assert codes(root, status=1) == ["USN033"]
    (root / "etc/elsewhere").write_text(f"{ALICE}{DB}")
    assert codes(root, status=1) == ["USN033", "USN050"]
    before = files_of(root)
    done = usernsplan("check", "--fix", "--yes", "--root", root, status=1)
    assert f"note: no line is restored until {root}/etc/{name} can be read" in done.stderr
    assert files_of(root) == before


def test_a_symlink_that_leads_nowhere_and_a_folder_are_findings(root: Path) -> None:
    (root / "etc/subuid").unlink()
    (root / "etc/subuid").symlink_to("subuid")
    (root / "etc/subgid").unlink()
    (root / "etc/subgid").mkdir()
    found = json_of("check", "--select", "USN033", "--root", root, status=1)["findings"]
    assert [(f["place"], f["message"].split(":")[0]) for f in found] == [
        (f"{root}/etc/subuid", "is a symlink, and shadow does not follow it"),
        (f"{root}/etc/subgid", "is a folder, not a regular file"),
    ]


def test_broken_files_are_findings_and_the_rest_is_still_looked_at(root: Path) -> None:
    put(root, "login.defs", "SUB_UID_MAX many\n")
    put(root, "docker/daemon.json", '{\n  "debug": true,\n}\n')
    ledger = root / "var/lib/usernsplan/ledger.sqlite3"
    ledger.write_bytes(b"no database, and long enough to be none: " * 40)
    both(root, f"{ALICE}bob:165535:65536\n")
    found = {f["code"]: f for f in json_of("check", "--root", root, status=1)["findings"]}
    assert set(found) == {"USN001", "USN040", "USN055", "USN063"}
    assert found["USN040"]["place"] == f"{root}/etc/docker/daemon.json:3:1"
    assert found["USN055"]["place"] == str(ledger)
    assert found["USN063"]["place"] == f"{root}/etc/login.defs:1"
    ledger.unlink()
    ledger.mkdir()
    assert "USN055" in codes(root, status=1)


def test_folders_in_the_place_of_other_files_are_findings(root: Path) -> None:
    for name in ("nsswitch.conf", "docker/daemon.json"):
        (root / "etc" / name).mkdir(parents=True)
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").mkdir()
    found = json_of("check", "--ignore", "USN02", "--root", root, status=1)["findings"]
    assert sorted((f["code"], f["place"]) for f in found) == [
        ("USN035", f"{root}/etc/nsswitch.conf"),
        ("USN035", f"{root}/etc/passwd"),
        ("USN040", f"{root}/etc/docker/daemon.json"),
    ]


def test_bytes_that_are_no_text_are_no_trouble(root: Path) -> None:
    raw = (
        b"\xff\xfe:1:2\n\x1b[2J:100:5\nb\xf6b:\x00:1\n"
        + ALICE.encode()
        + b"\n:::\n"
        + b"9" * 5000
        + b":1:1\n\r\n"
    )
    for name in ("subuid", "subgid", "passwd", "group", "login.defs", "nsswitch.conf"):
        (root / "etc" / name).write_bytes(raw)
    for form in ("table", "github", "json"):
        done = usernsplan("check", "--format", form, "--root", root, status=1)
        assert "\x1b" not in done.stdout


@needs_root
def test_one_who_may_not_read_the_ledger_is_told_so(root: Path) -> None:
    # What it imports may be where only root reads, so root runs it first.
    code = (
        "import contextlib, io, os, sys, usernsplan.cli as c\n"
        "def quietly(*words):\n"
        "    sys.argv[1:], said = words, io.StringIO()\n"
        "    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):\n"
        "        with contextlib.suppress(SystemExit): c.main()\n"
        "words = sys.argv[1:]\n"
        "quietly(*words); quietly('show', 'nobody', *words[1:])\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "sys.argv[1:] = words; c.main()"
    )
    with tempfile.TemporaryDirectory(dir="/tmp") as open_to_all:
        Path(open_to_all).chmod(0o755)
        shutil.copytree(root, f"{open_to_all}/tree")
        command = [PROGRAM[0], "-c", code, "check", "--root", f"{open_to_all}/tree"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 8, done.stderr
    assert "ledger.sqlite3" in done.stderr
    assert "run as root" in done.stderr


def test_a_locked_tree_of_this_machines_processes_is_not_judged(root: Path) -> None:
    """Below another root, processes do not count: a lock is reported and never removed."""
    lock = put(root, "subuid.lock", "1065535")
    assert codes(root) == ["USN064"]
    usernsplan("check", "--fix", "--yes", "--root", root)
    assert lock.exists()
    put(root, "subgid.lock", "1\n")
    assert codes(root, status=1) == ["USN065", "USN064"]


# --- --fix


def test_lost_lines_are_put_back_and_what_others_wrote_stays(root: Path) -> None:
    others = f"# mine\n{ALICE}\nbob:0x186a0:5\n"
    put(root, "subuid", others.removesuffix("\n"))
    put(root, "subgid", f"{DB}{others}")
    done = usernsplan("check", "--select", "USN05", "--fix", "--yes", "--root", root)
    assert "+usernsplan-web:589824:65536" in done.stdout
    assert done.stdout.splitlines()[-1] == "No problems found."
    assert read(root) == [f"{others}{WEB}{DB}", f"{DB}{others}{WEB}"]
    assert "[USN109]" in done.stderr
    before = files_of(root)
    assert (
        "Nothing can be repaired"
        in usernsplan("check", "--select", "USN05", "--fix", "--yes", "--root", root).stdout
    )
    assert files_of(root) == before
    assert "check" in usernsplan("history", "--root", root).stdout


def test_without_a_terminal_and_without_yes_nothing_is_done(root: Path) -> None:
    both(root, ALICE)
    before = files_of(root)
    done = usernsplan("check", "--fix", "--root", root, status=2)
    assert "+usernsplan-web:589824:65536" in done.stdout
    assert "--yes" in done.stderr
    assert files_of(root) == before


def test_a_dry_run_shows_and_does_nothing(root: Path) -> None:
    both(root, ALICE)
    before = files_of(root)
    done = usernsplan("check", "--fix", "--dry-run", "--root", root, status=1)
    assert "+usernsplan-web:589824:65536" in done.stdout
    assert "USN050" in done.stdout
    document = json_of("check", "--fix", "--dry-run", "--root", root, status=1)
    assert (document["repair"]["changed"], document["repair"]["dry_run"]) == (True, True)
    assert [change["path"] for change in document["repair"]["changes"]] == [
        f"{root}/etc/subuid",
        f"{root}/etc/subgid",
    ]
    assert files_of(root) == before


def test_json_of_a_repair_is_one_document_and_the_diff_is_said_elsewhere(root: Path) -> None:
    both(root, ALICE)
    document = json_of("check", "--fix", "--yes", "--root", root)
    assert document["findings"] == []
    assert document["repair"]["changed"] is True
    assert "+usernsplan-db:655360:65536" in document["repair"]["changes"][1]["diff"]
    assert read(root) == [f"{ALICE}{WEB}{DB}"] * 2


def test_with_nothing_to_repair_no_question_is_asked(root: Path) -> None:
    assert "Nothing can be repaired" in usernsplan("check", "--fix", "--root", root).stdout
    both(root, f"{ALICE}{WEB}{DB}bob:165535:65536\n")
    assert "USN001" in usernsplan("check", "--fix", "--root", root, status=1).stdout


def test_what_was_not_selected_is_not_repaired(root: Path) -> None:
    both(root, ALICE)
    before = files_of(root)
    usernsplan("check", "--fix", "--yes", "--ignore", "USN050", "--root", root)
    assert files_of(root) == before


def test_a_range_that_somebody_else_has_now_is_left_and_told(root: Path) -> None:
    both(root, f"{ALICE}bob:589824:65536\n")
    done = usernsplan("check", "--fix", "--yes", "--root", root, status=1)
    assert "[USN126]" in done.stderr
    assert "'web' has lost its lines" in done.stderr
    assert "USN002" in done.stdout
    assert read(root) == [f"{ALICE}bob:589824:65536\n{DB}"] * 2


def answered(root: Path, answer: str) -> tuple[int, str]:
    """Run check --fix on a terminal, and answer the question."""
    terminal, theirs = pty.openpty()
    try:
        os.write(terminal, answer.encode())
        done = subprocess.run(
            [*PROGRAM, "check", "--fix", "--root", str(root)],
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(terminal)
        os.close(theirs)
    assert "Apply this? [y/N]" in done.stderr
    return done.returncode, done.stdout


@pytest.mark.parametrize("answer", ["y\n", "Yes\n"])
def test_on_a_terminal_it_asks_and_yes_does_it(root: Path, answer: str) -> None:
    both(root, ALICE)
    assert answered(root, answer)[0] == 0
    assert read(root) == [f"{ALICE}{WEB}{DB}"] * 2


def test_a_host_that_changes_while_it_asks_is_not_repaired(root: Path) -> None:
    both(root, ALICE)
    terminal, theirs = pty.openpty()
    with subprocess.Popen(
        [*PROGRAM, "check", "--fix", "--root", str(root)],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as asking:
        assert asking.stderr
        shown = ""
        while "[y/N]" not in shown:
            assert asking.poll() is None
            shown += asking.stderr.read(1)
        put(root, "subuid", f"{ALICE}bob:165536:65536\n")
        before = files_of(root)
        os.write(terminal, b"y\n")
        said = asking.communicate(timeout=60)[1]
    os.close(terminal)
    os.close(theirs)
    assert asking.returncode == 6
    assert "has changed since the plan was shown" in said
    after = files_of(root)
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("answer", ["n\n", "\n", "yess\n", "\x04"])
def test_any_other_answer_leaves_all_as_it_is(root: Path, answer: str) -> None:
    both(root, ALICE)
    before = files_of(root)
    status, shown = answered(root, answer)
    assert status == 1
    assert "+usernsplan-web:589824:65536" in shown
    assert files_of(root) == before


@needs_root
def test_a_filler_map_that_was_sorted_is_put_back_in_order(tmp_path: Path) -> None:
    root = tmp_path / "host"
    put(root, "passwd", ACCOUNTS)
    put(root, "group", GROUPS)
    both(root, ALICE)
    usernsplan("allocate", "--strategy", "shared", "--engine", "docker", "--root", root)
    assert codes(root) == ["USN046", "USN046", "USN185"]
    right = read(root)
    both(
        root,
        "".join(
            sorted(right[0].splitlines(keepends=True), key=lambda line: int(line.split(":")[1]))
        ),
    )
    assert codes(root, status=1) == ["USN051", "USN051", "USN185"]
    done = usernsplan("check", "--fix", "--yes", "--root", root)
    assert "systemctl restart docker" in done.stderr
    assert read(root) == right


def killed(root: Path, words: tuple[str, ...], after: str) -> None:
    """Run usernsplan and kill it after its first rename."""
    code = (
        "import os, sys, usernsplan.host.files as f\n"
        "rename = os.rename\n"
        f"def struck(a, b, **at):\n    rename(a, b, **at)\n    if ('/' + b).endswith('{after}'): os._exit(9)\n"
        "os.rename = struck\n"
        "from usernsplan.cli import main; main()"
    )
    done = subprocess.run(
        [PROGRAM[0], "-c", code, *words, "--root", str(root)], capture_output=True, check=False
    )
    assert done.returncode == 9


@pytest.mark.parametrize(("after", "ends"), [("/subuid", "put back"), ("/subgid", "completed")])
def test_an_interrupted_run_is_told_shown_and_mended(root: Path, after: str, ends: str) -> None:
    start = read(root)
    killed(root, ("allocate", "--strategy", "per-container", "new", "--engine", "podman"), after)
    both_lines = (root / "etc/subuid").read_text()
    assert "usernsplan-new" in both_lines
    for name in ("subuid.lock", "subgid.lock"):
        # The kill left its locks: reported below another root, and taken by the run that repairs.
        (root / "etc" / name).unlink(missing_ok=True)
    found = json_of("check", "--root", root)["findings"]
    assert [finding["code"] for finding in found] == ["USN054"]
    assert "allocate --strategy per-container new" in found[0]["message"]
    before = files_of(root)
    shown = usernsplan("check", "--fix", "--root", root, status=2).stdout
    assert ("-usernsplan-new:720896:65536" in shown) == (ends == "put back")
    assert "would close the interrupted run" in shown
    assert files_of(root) == before
    done = usernsplan("check", "--fix", "--yes", "--root", root)
    assert ends in done.stderr
    assert done.stdout.splitlines()[-1] == "No problems found."
    wanted = (
        start if ends == "put back" else [text + "usernsplan-new:720896:65536\n" for text in start]
    )
    assert read(root) == wanted


def test_lost_lines_and_an_interrupted_run_are_mended_in_one(root: Path) -> None:
    killed(
        root, ("allocate", "--strategy", "per-container", "new", "--engine", "podman"), "/subuid"
    )
    for name in ("subuid.lock", "subgid.lock"):
        (root / "etc" / name).unlink(missing_ok=True)
    put(root, "subuid", (root / "etc/subuid").read_text().replace(WEB, ""))
    done = usernsplan("check", "--fix", "--yes", "--root", root)
    assert "-usernsplan-new:720896:65536" in done.stdout
    assert "+usernsplan-web:589824:65536" in done.stdout
    assert sorted(read(root)[0].splitlines()) == sorted(f"{ALICE}{WEB}{DB}".splitlines())


@needs_root
@pytest.mark.usefixtures("volume_step")
def test_released_ranges_are_looked_for_in_files(root: Path) -> None:
    usernsplan("release", "web", "db", "--root", root)
    (root / "srv/a").mkdir(parents=True)
    (root / "srv/a/file").touch()
    os.chown(root / "srv/a/file", 589824 + 33, 0)
    found = json_of("check", "--scan", "/srv", "--root", root)["findings"]
    assert [(f["code"], f["severity"]) for f in found] == [
        ("USN056", "warning"),
        ("USN057", "info"),
    ]
    assert "1 file carries ids of the released 'web'" in found[0]["message"]
    assert (
        json_of("check", "--scan", "/srv", "--scan", "/srv/a", "--root", root)["findings"] == found
    )
    assert "/srv/a/file" in found[0]["message"]
    assert "release --forget db" in found[1]["hint"]
    os.chown(root / "srv/a/file", 0, 0)
    assert codes(root, "--scan", "/srv") == ["USN057", "USN057"]
    assert codes(root) == []


def test_errors_that_are_left_decide_the_status_of_a_repair(root: Path) -> None:
    both(root, f"{ALICE}bob:165535:65536\n")
    done = usernsplan("check", "--fix", "--yes", "--root", root, status=1)
    assert "USN001" in done.stdout
    assert "USN050" not in done.stdout
    assert read(root) == [f"{ALICE}bob:165535:65536\n{WEB}{DB}"] * 2
