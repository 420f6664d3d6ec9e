"""Trees and surroundings that are hard on a program: deep, wide, odd names, company, no terminal, an old kernel."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.command import PROGRAM, here, slow, usernsplan
from tests.prefork import prefork
from tests.volume.struck import (
    CASES,
    START,
    Grounds,
    broad,
    half_way,
    owners,
    shifted,
    some_shifted,
    thorny,
    trace,
    wait_until,
)
from tests.volume.tree import (
    Host,
    Rule,
    acl_of,
    capability_v2,
    deep,
    differences,
    expected,
    finish,
    folder,
    maps,
    over,
    settled,
    shift,
    simple,
    snapshot,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.prefork import Ended, Prefork, Run

SHIFT = ("--container", "web", "--mode", "shift")
# What depends on who comes first is tried so often.
ROUNDS = 3 if os.environ.get("CI") == "true" else 1


@pytest.fixture
def web(host: Host) -> Host:
    """A fresh host with an allocation."""
    assert host.allocate("web") == [START]
    return host


@pytest.fixture(scope="module")
def server() -> Iterator[Prefork]:
    with prefork() as found:
        yield found


@pytest.fixture(scope="module")
def other_server() -> Iterator[Prefork]:
    with prefork() as found:
        yield found


# Deep and wide.


# Half as many, and their undo, are in test_carry.py.
@pytest.mark.parametrize("name", slow(b"d", b"n" * 250))
def test_three_thousand_levels_are_shifted_and_undone(web: Host, name: bytes) -> None:
    deep(web.volume, name, 3000)
    before = owners(web.volume)
    assert sum(before.values()) == 3002
    done = web.fix(*SHIFT)
    assert owners(web.volume) == shifted(before)
    assert done["counts"]["changed"] == 3002
    web.undo(done["run"])
    assert owners(web.volume) == before


def test_a_failure_in_the_depth_is_named_in_full(web: Host) -> None:
    """A hard link to the outside, 300 levels down: its path is longer than any that the system takes."""
    deep(web.volume, b"n" * 100, 300)
    (web.outside / "file").touch()
    handle = os.open(web.volume, os.O_PATH)
    for _ in range(300):
        below = os.open(b"n" * 100, os.O_PATH, dir_fd=handle)
        os.close(handle)
        handle = below
    os.link(web.outside / "file", "linked", dst_dir_fd=handle)
    os.close(handle)
    done = web.fix(*SHIFT, "--outside-links", "skip")
    assert [skipped["path"] for skipped in done["skipped"]] == [
        f"{web.volume}/{('n' * 100 + '/') * 300}linked"
    ]
    assert (web.outside / "file").stat().st_uid == 0


def test_thirty_thousand_entries_of_one_folder(web: Host) -> None:
    simple(web.volume / "wide", count=30_000)
    finish(write(os.fsencode(web.volume) + b"/wide/setuid"), 33, 33, 0o6755)
    before = owners(web.volume)
    done = web.fix(*SHIFT)
    assert owners(web.volume) == shifted(before)
    assert done["counts"]["changed"] == 30_003
    web.undo(done["run"])
    assert owners(web.volume) == before


def test_five_thousand_folders_in_one_folder(web: Host) -> None:
    for number in range(5000):
        place = folder(os.fsencode(web.volume) + b"/%d" % number)
        finish(write(place + b"/inner"), number, number)
        finish(place, number, 7, 0o755)
    before = owners(web.volume)
    done = web.fix(*SHIFT)
    assert owners(web.volume) == shifted(before)
    assert done["counts"]["changed"] == 10_001
    web.undo(done["run"])
    assert owners(web.volume) == before


@pytest.mark.parametrize("rule", [shift(START), over(0, 32768)], ids=["shift", "overlap"])
def test_inodes_that_two_workers_meet_by_two_names_are_carried_and_undone(
    web: Host, rule: Rule
) -> None:
    """With an ACL, and power where the rule lets it stay, so that there is much to do from the first to the last."""
    acl = acl_of(0o755, {33: 6}, {100: 4})
    for name in (b"one", b"two"):
        folder(os.fsencode(web.volume) + b"/" + name)
    for number in range(400):
        path = write(os.fsencode(web.volume) + b"/one/%d" % number)
        if rule.source_wins:
            finish(path, 33, 33, 0o755, acl=acl)
        else:
            finish(path, 33, 33, 0o6755, acl=acl, capability=capability_v2())
        os.link(path, os.fsencode(web.volume) + b"/two/%d" % number)
    before = snapshot(web.volume)
    words = maps(rule) if rule.source_wins else SHIFT
    for _ in range(ROUNDS):
        done = web.fix(*words, "--jobs", "2")
        assert differences(snapshot(web.volume), expected(before, rule)) == []
        assert done["counts"]["changed"] == 403
        assert done["counts"]["hard_link"] == 400
        undone = web.undo(done["run"])
        assert differences(snapshot(web.volume), before) == []
        assert undone["counts"]["changed"] == 403


# Names.

ODD = [
    b"new\nline",
    b"\xff\xfe",
    b"\xc3\xa4",
    b"\x1b[31mred\x1b[0m",
    b"tab\tand\rreturn",
    b"trailing ",
    b"quote'\"",
]


@pytest.fixture
def linked(web: Host) -> Host:
    """A volume in which every odd name is a link to something outside, to be skipped and named."""
    (web.outside / "file").touch()
    for name in ODD:
        place = folder(os.fsencode(web.volume) + b"/" + name)
        os.link(web.outside / "file", place + b"/" + name)
    return web


def test_odd_names_are_told_whole(linked: Host) -> None:
    done = linked.fix(*SHIFT, "--outside-links", "skip")
    top = os.fsencode(linked.volume)
    told = set()
    for skipped in done["skipped"]:
        raw = skipped["path"].encode("utf-8", "surrogatepass")
        if "path_b64" in skipped:
            raw = base64.b64decode(skipped["path_b64"])
            with pytest.raises(UnicodeDecodeError):
                raw.decode()
        told.add(raw)
    assert told == {b"/".join((top, name, name)) for name in ODD}


def test_no_name_speaks_to_the_terminal(linked: Host) -> None:
    told = linked.told(*SHIFT, "--outside-links", "skip")
    assert "\x1b" not in told
    assert "\r" not in told
    assert "new\nline" not in told
    refused = linked.told(*SHIFT, "--reverse", status=9)
    assert "\x1b" not in refused


@pytest.mark.parametrize("name", ODD)
def test_a_volume_of_an_odd_name_is_shifted_and_undone(web: Host, name: bytes) -> None:
    path = folder(os.fsencode(web.root) + b"/srv/" + name)
    finish(write(path + b"/setuid"), 33, 33, 0o4755)
    before = snapshot(path)
    done = web.fix(*SHIFT, path=os.fsdecode(path))
    assert differences(snapshot(path), expected(before, shift(START))) == []
    [volume] = done["volumes"]
    assert (
        base64.b64decode(volume["path_b64"])
        if "path_b64" in volume
        else volume["path"].encode() == path
    )
    web.undo(done["run"])
    assert differences(snapshot(path), before) == []


# Company.


FOLDERS, FILES = 40, 25
HALF_WAY = 200


def test_what_appears_meanwhile_is_found_and_said(web: Host, server: Prefork) -> None:
    firsts = broad(web.volume, FOLDERS, FILES)

    def add(_: Run) -> None:
        for number in range(FOLDERS):
            place = os.fsencode(web.volume) + b"/%d" % number
            finish(write(place + b"/late"), 33, 33, 0o4755)
            finish(write(folder(place + b"/late-folder") + b"/inner"), 1000, 1000, 0o600)
        finish(write(os.fsencode(web.volume) + b"/late"), 1, 1)

    run = half_way(
        server, ("fix-volume", web.volume, *SHIFT, "--json", "--root", web.root), HALF_WAY, add
    )
    assert run.ended.status == 0, run.ended
    assert {uid < START or gid < START for uid, gid, _ in owners(web.volume)} == {False}
    late = os.lstat(web.volume / "0/late")
    assert (late.st_uid, late.st_gid, late.st_mode & 0o7777) == (START + 33, START + 33, 0o4755)
    document = json.loads(run.ended.out)
    assert document["counts"]["stragglers"] == 3 * FOLDERS + 1
    # And undo forgets nothing of what was there before.
    here("undo", document["run"], "--root", web.root, status=None)
    assert Counter(os.lstat(path).st_uid for path in firsts) == {33: len(firsts)}


def test_a_link_to_the_outside_that_was_known_is_no_failure_when_its_folder_changes_meanwhile(
    web: Host, server: Prefork
) -> None:
    broad(web.volume, FOLDERS, FILES)
    (web.outside / "file").touch()
    for number in range(FOLDERS):
        os.link(web.outside / "file", web.volume / f"{number}/linked")

    def add(_: Run) -> None:
        for number in range(FOLDERS):
            (web.volume / f"{number}/late").touch()

    words = (
        "fix-volume",
        web.volume,
        *SHIFT,
        "--outside-links",
        "skip",
        "--json",
        "--root",
        web.root,
    )
    run = half_way(server, words, HALF_WAY, add)
    assert run.ended.status == 0, run.ended
    document = json.loads(run.ended.out)
    assert document["failed"] == []
    assert len(document["skipped"]) == FOLDERS
    assert (web.outside / "file").stat().st_uid == 0
    assert {os.lstat(web.volume / f"{number}/late").st_uid for number in range(FOLDERS)} == {START}


def test_what_goes_away_meanwhile_is_no_failure(web: Host, server: Prefork) -> None:
    broad(web.volume, FOLDERS, FILES)

    def take(_: Run) -> None:
        for number in range(FOLDERS):
            for name in range(0, FILES, 7):
                (web.volume / f"{number}/{name}").unlink()
            (web.volume / f"{number}/setuid").unlink()
        shutil.rmtree(web.volume / "0")
        shutil.rmtree(web.volume / f"{FOLDERS - 1}")

    run = half_way(
        server, ("fix-volume", web.volume, *SHIFT, "--json", "--root", web.root), HALF_WAY, take
    )
    assert run.ended.status == 0, run.ended
    assert {uid < START or gid < START for uid, gid, _ in owners(web.volume)} == {False}


def test_while_one_run_works_another_of_the_same_volume_is_turned_away(
    web: Host, server: Prefork, other_server: Prefork
) -> None:
    broad(web.volume, FOLDERS, FILES)
    wanted = shifted(owners(web.volume))
    words = ("fix-volume", web.volume, *SHIFT, "--root", web.root)
    turned_away: list[Ended] = []

    def others(_: Run) -> None:
        [name] = [path.name for path in web.runs.iterdir() if path.is_dir()]
        turned_away.extend(
            other_server.run(*more, "--root", web.root, status=None)
            for more in (
                ("fix-volume", web.volume, *SHIFT),
                ("fix-volume", web.volume, "--container", "web"),
                ("fix-volume", web.volume / "5", *SHIFT),
                ("undo", name),
            )
        )

    run = half_way(server, words, HALF_WAY, others)
    assert [(found.status, found.err.startswith("usernsplan: ")) for found in turned_away] == [
        (5, True)
    ] * 4, turned_away
    assert run.ended.status == 0, run
    assert owners(web.volume) == wanted


@pytest.mark.parametrize(
    "paths", [("", "7"), *slow((("", ""),), (("7", ""),), (("7", "8"),))], ids=str
)
def test_of_runs_begun_at_once_each_is_right_or_turned_away(
    web: Host, server: Prefork, other_server: Prefork, paths: tuple[str, str]
) -> None:
    broad(web.volume, folders=20, files=100)
    wanted = shifted(owners(web.volume))
    for _ in range(3 * ROUNDS):
        runs = [
            a_server.start("fix-volume", web.volume / path, *SHIFT, "--root", web.root)
            for a_server, path in zip((server, other_server), paths, strict=True)
        ]
        for run in runs:
            run.go()
        ended = [run.wait() for run in runs]
        assert {found.status for found in ended} <= {0, 5}, ended
        assert 0 in {found.status for found in ended}, ended
        assert not any("Traceback" in found.err for found in ended), ended
        here("fix-volume", web.volume, *SHIFT, "--root", web.root)
        assert owners(web.volume) == wanted
        here("fix-volume", web.volume, *SHIFT, "--reverse", "--keep-power", "--root", web.root)


# Memory.


def test_memory_does_not_grow_with_the_tree(web: Host, server: Prefork) -> None:
    """A sanity bound only; the benchmark measures."""
    broad(web.volume, folders=100, files=1000)
    run = server.start("fix-volume", web.volume, *SHIFT, "--jobs", "2", "--root", web.root)
    peaks = [0]

    def watch() -> None:
        while (kilobytes := sum(map(proportional, run.living()))) or not done.is_set():
            peaks.append(kilobytes)
            time.sleep(0.01)

    done = threading.Event()
    watcher = threading.Thread(target=watch)
    run.go()
    watcher.start()
    ended = run.wait()
    done.set()
    watcher.join()
    assert ended.status == 0, ended
    assert len(peaks) > 10
    assert 10_000 < max(peaks) < 150_000


def proportional(pid: int) -> int:
    """The proportional set size of a process in kB, from proc_pid_smaps_rollup."""
    with suppress(OSError):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        return sum(int(size) for size in re.findall(r"^Pss:\s+(\d+) kB", text, re.MULTILINE))
    return 0


# Surroundings.


@pytest.fixture
def own_disk(web: Host) -> Iterator[Host]:
    """A host whose journals are on a disk of their own."""
    state = web.root / "var/lib/usernsplan"
    ledger = (state / "ledger.sqlite3").read_bytes()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", state], check=True)
    (state / "ledger.sqlite3").write_bytes(ledger)
    yield web
    subprocess.run(["umount", state], check=True)


@pytest.mark.parametrize(
    "trouble",
    ["size=256k", "nr_inodes=6", "ro", *slow(*(f"nr_inodes={number}" for number in (4, 5, 7, 8)))],
)
def test_where_there_is_no_room_for_a_journal_nothing_is_changed(
    own_disk: Host, trouble: str
) -> None:
    state = own_disk.root / "var/lib/usernsplan"
    # A line for each entry: every one has an owner of its own.
    for number in range(60):
        place = folder(os.fsencode(own_disk.volume) + b"/%d" % number)
        for name in range(100):
            finish(write(place + b"/%d-" % name + b"n" * 100), name, number, 0o4755)
    before = owners(own_disk.volume)
    subprocess.run(["mount", "-o", f"remount,{trouble}", state], check=True)
    words = ("fix-volume", own_disk.volume, *SHIFT, "--root", own_disk.root)
    run = usernsplan(*words, status=None)
    assert run.returncode not in {0, 3}, run
    assert run.stderr.startswith("usernsplan: "), run
    assert owners(own_disk.volume) == before
    subprocess.run(["mount", "-o", "remount,size=64m,nr_inodes=1000,rw", state], check=True)
    here(*words)
    assert owners(own_disk.volume) == shifted(before)


@pytest.mark.parametrize(
    ("redirections", "status"),
    [
        ("<&-", 0),
        (">&-", 0),
        ("2>&-", 0),
        ("<&- >&- 2>&-", 0),
        (">/dev/full", 1),
        ("2>/dev/full", 0),
    ],
)
def test_streams_that_are_closed_or_full_do_no_harm_to_the_volume(
    web: Host, redirections: str, status: int
) -> None:
    thorny(web.volume, int)
    before = snapshot(web.volume)
    words = [*PROGRAM, "fix-volume", str(web.volume), *SHIFT, "--root", str(web.root)]
    run = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirections}', "sh", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in run.stderr
    assert "Exception ignored" not in run.stderr
    assert run.returncode == status, run
    assert differences(snapshot(web.volume), expected(before, shift(START))) == []


def test_a_reader_who_left_does_no_harm(web: Host) -> None:
    thorny(web.volume, int)
    before = snapshot(web.volume)
    words = [*PROGRAM, "fix-volume", str(web.volume), *SHIFT, "--root", str(web.root)]
    reading, writing = os.pipe()
    os.close(reading)
    run = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert "Traceback" not in run.stderr
    assert run.returncode == 0, run
    assert differences(snapshot(web.volume), expected(before, shift(START))) == []


class Screen(NamedTuple):
    """What a terminal got, and what went to standard output."""

    shown: str
    printed: str
    status: int


def on_a_terminal(words: list[str], env: dict[str, str], begun: Callable[[], bool]) -> Screen:
    """Run it with a terminal for errors, as one does who redirects the results; it is held up a second in its work."""
    master, slave = pty.openpty()
    clean = {
        key: value
        for key, value in os.environ.items()
        if key not in {"NO_COLOR", "TERM", "COLUMNS"}
    }
    with subprocess.Popen(
        words,
        stdin=slave,
        stderr=slave,
        stdout=subprocess.PIPE,
        env=clean | env,
        start_new_session=True,
    ) as run:
        os.close(slave)
        wait_until(begun, 30)
        os.killpg(run.pid, signal.SIGSTOP)
        time.sleep(1)
        os.killpg(run.pid, signal.SIGCONT)
        shown = b""
        # Linux answers EIO when the last process with the other end has gone.
        with suppress(OSError):
            while select.select([master], [], [], 60)[0]:
                shown += os.read(master, 65536)
        assert run.stdout
        printed = run.stdout.read()
    os.close(master)
    return Screen(shown.decode(errors="replace"), printed.decode(), run.returncode)


@pytest.mark.parametrize(
    "env",
    [{"TERM": "xterm"}, *slow({"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}, {})],
    ids=str,
)
def test_a_terminal_shows_progress_with_rate_and_time_left(web: Host, env: dict[str, str]) -> None:
    firsts = broad(web.volume)
    wanted = shifted(owners(web.volume))
    words = [*PROGRAM, "fix-volume", str(web.volume), *SHIFT, "--json", "--root", str(web.root)]
    screen = on_a_terminal(words, env, lambda: some_shifted(firsts))
    assert screen.status == 0
    assert json.loads(screen.printed)["changed"]
    assert owners(web.volume) == wanted
    if env.get("TERM") == "xterm":
        # The last picture has all but the top, which is the last to change, however fast the rest was done.
        assert re.search(r"30120/30121\S* \S*[1-9]\d*/s, 0 s left", screen.shown), screen
    if "NO_COLOR" in env or env.get("TERM") == "dumb":
        # Colours are those that end in m; moving the cursor is no colour.
        assert not re.search(r"\x1b\[\d*(;\d+)*m", screen.shown.replace("\x1b[0m", "")), screen
    if env.get("TERM") == "dumb":
        assert "\x1b" not in screen.shown, screen


@pytest.mark.parametrize("more", [("--json",), ()], ids=str)
def test_a_pipe_gets_no_progress_bar(web: Host, more: tuple[str, ...]) -> None:
    broad(web.volume)
    words = [*PROGRAM, "fix-volume", str(web.volume), *SHIFT, *more, "--root", str(web.root)]
    run = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TERM": "xterm", "FORCE_COLOR": "1"},
    )
    assert "\x1b" not in run.stderr + run.stdout
    assert "\r" not in run.stderr + run.stdout
    # A line every 10 s, and this takes less.
    assert "%" not in run.stderr


@pytest.mark.parametrize("jobs", [1, 2, 7, 40])
def test_any_number_of_jobs_gives_the_same(web: Host, jobs: int) -> None:
    (web.volume / "thorny").mkdir()
    thorny(web.volume / "thorny", int)
    broad(web.volume, folders=30, files=20)
    before = snapshot(web.volume)
    done = web.fix(*SHIFT, "--jobs", str(jobs))
    assert differences(snapshot(web.volume), expected(before, shift(START))) == []
    web.undo(done["run"])
    assert differences(snapshot(web.volume), before) == []


@pytest.mark.spread(4)
@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
@pytest.mark.parametrize("name", CASES)
def test_a_kernel_without_openat2_or_a_filter_against_it_is_no_hindrance(
    tmpfs: Path, server: Prefork, name: str, error: str
) -> None:
    ground = Grounds(tmpfs / f"old-{name}-{error}", CASES[name], 2).new("one")
    # A mount inside of the same file system, which openat2 would have told from a folder.
    mounted = ground.host.volume / "same/empty"
    simple(ground.host.root / "srv/other", 0, 0)
    kept = settled(snapshot(ground.host.root / "srv/other"))
    subprocess.run(["mount", "--bind", ground.host.root / "srv/other", mounted], check=True)
    try:
        run = trace(
            server, (*ground.words, "--json"), "openat2", "-e", f"inject=openat2:error={error}"
        )
        assert run.ended.status == 0, run
        assert any("INJECTED" in line for line in run.trace)
        assert [skipped["path"] for skipped in json.loads(run.ended.out)["skipped"]] == [
            str(mounted)
        ]
        assert settled(snapshot(ground.host.root / "srv/other")) == kept
    finally:
        subprocess.run(["umount", mounted], check=True)
    below = json.loads(run.ended.out)
    wrong = [line for line in ground.wrong() if not line.startswith("b'same/empty'")]
    assert wrong == [], below
