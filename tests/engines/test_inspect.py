"""What inspect says of a process, beside what the kernel then lets that process do.

Each process is made ready, waits while it is inspected, and then tries what was said of it. They are plain processes of
this machine in namespaces of their own; nothing is written but to a temporary folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from tests.command import json_of, missing, needs_root, usernsplan
from tests.host.test_namespaces import nested
from usernsplan.formats import proc_status
from usernsplan.formats.proc_status import CAPABILITIES

pytestmark = needs_root

UID = 12345
# Where the container ids of a namespace begin in these tests.
BASE = 3_000_000

# The process: it is set up by the first word, says so, waits, and becomes the program of the others.
PROCESS = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def ask():
    print("ready", flush=True)
    sys.stdin.readline()
def done(result):
    assert result == 0, os.strerror(ctypes.get_errno())
def become(uid, keep=()):
    os.setgroups(list(keep)); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
def unshare():
    done(libc.unshare(0x10000000))
    ask()
def drop_permitted():
    done(libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24)))
def bound(*kept):
    last = int(open("/proc/sys/kernel/cap_last_cap").read())
    for number in range(last + 1):
        if number not in kept:
            libc.prctl(24, number, 0, 0, 0)
def no_new_privs():
    done(libc.prctl(38, 1, 0, 0, 0))
exec(sys.argv[1])
ask()
os.execv(sys.argv[2], sys.argv[2:])
"""


class Waiting:
    """A process that waits to be inspected; ``go`` lets it become its program and gives what that printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid

    def ready(self) -> None:
        assert self._of(self.process.stdout).readline() == "ready\n", self._of(self.process.stderr).read()

    def on(self) -> None:
        print(file=self._of(self.process.stdin), flush=True)

    def map(self, *lines: str) -> None:
        """Write both maps of its namespace, once it has one."""
        self.ready()
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{self.pid}/{name}").write_text("".join(f"{line}\n" for line in lines))
        self.on()

    def go(self) -> str:
        self.on()
        said, errors = self.process.communicate(timeout=60)
        return said + errors

    def said(self) -> dict[str, Any]:
        """What inspect says, by code."""
        return {one["code"]: one for one in json_of("inspect", str(self.pid))["meaning"]}

    @staticmethod
    def _of(stream: IO[str] | None) -> IO[str]:
        assert stream
        return stream


@contextmanager
def waiting(setup: str, *program: str | Path) -> Iterator[Waiting]:
    words = program or ("/bin/true",)
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS, setup, *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Waiting(process)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody can get to."""
    place = Path(subprocess.check_output(["mktemp", "-d", "/var/tmp/inspect-XXXXXX"], text=True).strip())
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


def setuid_cat(folder: Path, owner: int = 0) -> Path:
    """A cat that runs as its owner."""
    path = folder / f"cat-{owner}"
    shutil.copy("/bin/cat", path)
    # Where its group is not mapped either, the bit does nothing in a namespace.
    os.chown(path, owner, owner)
    path.chmod(0o4755)
    return path


def status_of(text: str) -> proc_status.Status:
    return proc_status.parse(text)


CHOWN, KILL = CAPABILITIES.index("chown"), CAPABILITIES.index("kill")
DEFAULT_14 = "0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31"


@pytest.mark.parametrize("setup", ["pass", f"bound({CHOWN}, {KILL})", f"bound({DEFAULT_14})"])
def test_a_setuid_binary_brings_back_the_bounding_set_and_nothing_else(folder: Path, setup: str) -> None:
    with waiting(f"{setup}; become({UID})", setuid_cat(folder), "/proc/self/status") as one:
        one.ready()
        said = one.said()
        before = status_of(Path(f"/proc/{one.pid}/status").read_text())
        after = status_of(one.go())
    assert before.capabilities.permitted == ()
    assert said["regain-by-setuid"]["capabilities"] == list(after.capabilities.permitted)
    assert after.uids.effective == 0
    assert ("the 14 that Docker gives" in said["regain-by-setuid"]["text"]) == (DEFAULT_14 in setup)


@pytest.mark.parametrize("setup", ["pass", "bound()"])
def test_with_no_new_privs_it_brings_back_nothing(folder: Path, setup: str) -> None:
    with waiting(f"{setup}; become({UID}); no_new_privs()", setuid_cat(folder), "/proc/self/status") as one:
        one.ready()
        said = one.said()
        after = status_of(one.go())
    assert "no-new-privs" in said
    assert not [code for code in said if code.startswith("regain")]
    assert after.capabilities.permitted == ()
    assert after.uids.all() == (UID,) * 4


def test_with_an_empty_bounding_set_it_makes_root_and_brings_back_no_capability(folder: Path) -> None:
    with waiting(f"bound(); become({UID})", setuid_cat(folder), "/proc/self/status") as one:
        one.ready()
        said = one.said()
        after = status_of(one.go())
    assert "uid 0" in said["nothing-to-regain"]["text"]
    assert after.capabilities.permitted == ()
    assert after.uids.effective == 0


@pytest.mark.parametrize("more", ["", "; no_new_privs()"])
def test_root_that_gave_capabilities_up_has_them_again_in_the_next_program(more: str) -> None:
    with waiting(f"drop_permitted(){more}", "/bin/cat", "/proc/self/status") as one:
        one.ready()
        said = one.said()
        after = status_of(one.go())
    assert "powerless-root" in said
    assert "host-root" in said
    if more:
        assert "regain-as-root" not in said
        assert after.capabilities.permitted == ()
    else:
        assert said["regain-as-root"]["capabilities"] == list(after.capabilities.permitted) != []


def test_in_a_namespace_a_setuid_binary_of_its_root_brings_them_back_and_they_count_there_only(folder: Path) -> None:
    setup = "unshare(); become(1000); drop_permitted()"
    with waiting(setup, setuid_cat(folder, BASE), "/proc/self/status") as one:
        one.map(f"0 {BASE} 65536")
        one.ready()
        said = one.said()
        after = status_of(one.go())
    assert said["regain-by-setuid"]["capabilities"] == list(after.capabilities.permitted) == list(CAPABILITIES)
    assert f"host uid {BASE}" in said["regain-by-setuid"]["text"]
    assert after.uids.effective == 0


def test_in_a_namespace_the_hosts_setuid_binaries_do_nothing(folder: Path) -> None:
    with waiting("unshare(); become(1000); drop_permitted()", setuid_cat(folder), "/proc/self/status") as one:
        one.map(f"0 {BASE} 65536")
        one.ready()
        after = status_of(one.go())
    assert after.capabilities.permitted == ()
    assert after.uids.effective == 1000


def test_without_a_root_in_the_namespace_only_a_files_capabilities_help(folder: Path) -> None:
    setcap = shutil.which("setcap", path="/usr/sbin:/sbin:/usr/bin") or missing("setcap")
    capable = folder / "cat"
    shutil.copy("/bin/cat", capable)
    subprocess.run([setcap, "cap_chown+ep", capable], check=True)
    with waiting("unshare(); become(1000); drop_permitted()", capable, "/proc/self/status") as one:
        one.map(f"1000 {BASE} 1")
        one.ready()
        said = one.said()
        after = status_of(one.go())
    assert set(after.capabilities.permitted) == {"chown"} <= set(said["regain-by-file"]["capabilities"])
    with waiting("unshare(); become(1000); drop_permitted()", setuid_cat(folder), "/proc/self/status") as one:
        one.map(f"1000 {BASE} 1")
        one.ready()
        assert status_of(one.go()).capabilities.permitted == ()


TRY = """
name = os.uname().nodename.encode()
print("host", "yes" if libc.sethostname(name, len(name)) == 0 else "no")
print("own", "yes" if libc.setgroups(1, struct.pack("I", 5)) == 0 else "no")
"""


def test_roots_capabilities_of_a_namespace_count_there_and_not_on_the_host() -> None:
    with waiting(f"unshare(); os.setresgid(0, 0, 0); os.setresuid(0, 0, 0); ask()\n{TRY}\nsys.exit()") as one:
        one.map(f"0 {BASE} 65536")
        one.ready()
        said = one.said()
        assert set(said) >= {"root-inside", "namespaced"}
        assert f"uid {BASE}" in said["root-inside"]["text"]
        assert one.go() == "host no\nown yes\n"


def test_an_identity_map_leaves_root_with_roots_files(folder: Path) -> None:
    secret = folder / "secret"
    secret.write_text("mine")
    secret.chmod(0o600)
    for line, expected in (("0 0 65536", "mine"), (f"0 {BASE} 65536", "Permission denied")):
        with waiting("unshare(); os.setresgid(0, 0, 0); os.setresuid(0, 0, 0)", "/bin/cat", secret) as one:
            one.map(line)
            one.ready()
            assert ("identity-root" in one.said()) == (expected == "mine")
            assert expected in one.go()


@pytest.mark.parametrize("more", ["", "; no_new_privs()"])
def test_ambient_capabilities_are_kept_by_every_program(more: str) -> None:
    setpriv = shutil.which("setpriv") or missing("setpriv")
    words = [f"--reuid={UID}", "--clear-groups", "--inh-caps=+chown", "--ambient-caps=+chown"]
    setup = f"pass{more}"
    process = [sys.executable, "-c", PROCESS, setup, "/bin/cat", "/proc/self/status"]
    with subprocess.Popen(
        [setpriv, *words, *process], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as started:
        one = Waiting(started)
        one.ready()
        said = one.said()
        after = status_of(one.go())
    assert said["ambient"]["capabilities"] == ["chown"] == list(after.capabilities.effective)


def test_a_saved_uid_of_root_is_enough_to_be_root_again() -> None:
    # The saved uid is lost when another program is run, so this one does it itself.
    becoming = "os.seteuid(0); print(open('/proc/self/status').read()); sys.exit()"
    with waiting(f"os.setresuid({UID}, {UID}, 0); ask(); {becoming}") as one:
        one.ready()
        assert "saved-root" in one.said()
        after = status_of(one.go())
    assert after.uids.effective == 0


def test_a_group_that_the_map_lacks_opens_files_all_the_same(folder: Path) -> None:
    shared = folder / "shared"
    shared.write_text("theirs")
    os.chown(shared, 0, 54321)
    shared.chmod(0o040)
    for keep, expected in (("54321,", "theirs"), ("", "Permission denied")):
        with waiting(
            f"os.setgroups([{keep}]); unshare(); os.setresgid(7, 7, 7); os.setresuid(7, 7, 7)", "/bin/cat", shared
        ) as one:
            one.map(f"0 {BASE} 65536")
            one.ready()
            said = one.said()
            assert ("unmapped-group" in said) == bool(keep)
            assert expected in one.go()


def test_whoever_made_a_namespace_has_every_capability_in_it_from_outside() -> None:
    with waiting(f"become({UID}); libc.prctl(4, 1, 0, 0, 0); unshare()") as one:
        one.ready()
        said = one.said()
        assert f"uid {UID}" in said["owner"]["text"]
        enter = ["setpriv", f"--reuid={UID}", "--clear-groups", "nsenter", "--user", "--preserve-credentials"]
        words = [*enter, "--target", str(one.pid), "cat", "/proc/self/status"]
        # cat is run without a root in the namespace, and so keeps nothing: what nsenter had is what counts.
        assert subprocess.run(words, capture_output=True, text=True, check=False).returncode == 0
        stranger = [word.replace(str(UID), "54321") for word in words[:6]] + words[6:]
        assert subprocess.run(stranger, capture_output=True, text=True, check=False).returncode != 0


FILTER = """
import ctypes, struct
no_new_privs()
# BPF_RET | BPF_K, SECCOMP_RET_ALLOW
rule = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 1, ctypes.addressof(rule)))
for _ in range(2):
    done(libc.prctl(22, 2, program, 0, 0))
"""


def test_seccomp_filters_are_counted() -> None:
    with waiting(FILTER) as one:
        one.ready()
        document = json_of("inspect", str(one.pid))
    assert (document["seccomp"], document["seccomp_filters"]) == (2, 2)
    assert "2 seccomp filters" in {m["code"]: m["text"] for m in document["meaning"]}["seccomp"]


def test_a_nested_namespace_is_followed_to_the_host() -> None:
    with nested() as (outer_pid, inner_pid):
        inner, outer = (os.stat(f"/proc/{pid}/ns/user").st_ino for pid in (inner_pid, outer_pid))
        document = json_of("inspect", str(inner_pid))
        text = usernsplan("inspect", str(inner_pid)).stdout
        everything = json_of("inspect", "--all")["namespaces"]
        shown = usernsplan("inspect", "--all").stdout
    [innermost, around] = document["namespaces"]
    assert (innermost["inode"], innermost["parent"], around["inode"]) == (inner, outer, outer)
    # Its 5 is 0 in the one around it, and 3000000 on the host.
    [extent] = innermost["uid_map"]
    assert (extent["container"], extent["parent"], extent["host"], extent["count"]) == (5, 0, BASE, 1)
    [extent] = around["uid_map"]
    assert (extent["container"], extent["host"], extent["count"]) == (0, BASE, 1000)
    assert document["uids"]["real"]["container_id"] == 5
    assert re.search(rf"^uids +5 +0 +{BASE} ", text, re.MULTILINE)
    depths = {namespace["inode"]: namespace["depth"] for namespace in everything}
    assert depths[inner] == depths[outer] + 1
    assert re.search(rf"^└── {inner} ", shown, re.MULTILINE)


@pytest.mark.parametrize("word", ["0", "-1", "abc", "4294967295", "1.5", "", "٣"])
def test_what_is_no_pid_is_said_to_be_none(word: str) -> None:
    assert repr(word) in usernsplan("inspect", "--", word, status=2).stderr


def test_words_that_do_not_go_together() -> None:
    usernsplan("inspect", status=2)
    usernsplan("inspect", "--all", "1", status=2)


def test_a_process_that_is_gone_a_zombie_and_a_kernel_thread() -> None:
    gone = subprocess.Popen(["true"])
    # Not waited for yet: a zombie.
    os.waitid(os.P_PID, gone.pid, os.WEXITED | os.WNOWAIT)
    assert "zombie" in usernsplan("inspect", str(gone.pid), status=1).stderr
    gone.wait()
    assert "no process" in usernsplan("inspect", str(gone.pid), status=1).stderr
    # kthreadd, where the machine shows it.
    status = Path("/proc/2/status")
    if status.exists() and "Kthread:\t1" in status.read_text():
        assert "kernel" in usernsplan("inspect", "2", status=1).stderr


def test_whoever_is_not_root_is_told_what_can_be_told() -> None:
    with waiting("") as one:
        one.ready()
        other = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
        done = subprocess.run(
            [*other, sys.executable, "-m", "usernsplan", "inspect", str(one.pid), "--json"],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(proc_status.__file__).parents[2],
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["namespaces"] == []
    assert "only those of your own" in done.stderr
