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
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

from tests.command import here, json_of, missing, needs_root, usernsplan
from tests.host.nested import nested
from usernsplan.formats import proc_status
from usernsplan.harden.names import CAPABILITIES
from usernsplan.host import namespaces

if TYPE_CHECKING:
    from usernsplan.model import Namespace

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
def set_inheritable(number):
    data = ctypes.create_string_buffer(24)
    done(libc.capget(struct.pack("Ii", 0x20080522, 0), data))
    effective, permitted, _, *high = struct.unpack("6I", data.raw)
    done(libc.capset(struct.pack("Ii", 0x20080522, 0), struct.pack("6I", effective, permitted, 1 << number, *high)))
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
        assert self._of(self.process.stdout).readline() == "ready\n", self._of(
            self.process.stderr
        ).read()

    def on(self) -> None:
        print(file=self._of(self.process.stdin), flush=True)

    def map(self, *lines: str, names: tuple[str, ...] = ("uid_map", "gid_map")) -> None:
        """Write the maps of its namespace, once it has one."""
        self.ready()
        for name in names:
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
    place = Path(
        subprocess.check_output(["mktemp", "-d", "/var/tmp/inspect-XXXXXX"], text=True).strip()
    )
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
def test_a_setuid_binary_brings_back_the_bounding_set_and_nothing_else(
    folder: Path, setup: str
) -> None:
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
    with waiting(
        f"{setup}; become({UID}); no_new_privs()", setuid_cat(folder), "/proc/self/status"
    ) as one:
        one.ready()
        said = one.said()
        after = status_of(one.go())
    assert "no-new-privs" in said
    assert not [code for code in said if code.startswith("regain")]
    assert after.capabilities.permitted == ()
    assert after.uids.all() == (UID,) * 4


def test_with_an_empty_bounding_set_it_makes_root_and_brings_back_no_capability(
    folder: Path,
) -> None:
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


def test_in_a_namespace_a_setuid_binary_of_its_root_brings_them_back_and_they_count_there_only(
    folder: Path,
) -> None:
    setup = "unshare(); become(1000); drop_permitted()"
    with waiting(setup, setuid_cat(folder, BASE), "/proc/self/status") as one:
        one.map(f"0 {BASE} 65536")
        one.ready()
        said = one.said()
        after = status_of(one.go())
    assert (
        said["regain-by-setuid"]["capabilities"]
        == list(after.capabilities.permitted)
        == list(CAPABILITIES)
    )
    assert f"host uid {BASE}" in said["regain-by-setuid"]["text"]
    assert after.uids.effective == 0


def test_in_a_namespace_the_hosts_setuid_binaries_do_nothing(folder: Path) -> None:
    with waiting(
        "unshare(); become(1000); drop_permitted()", setuid_cat(folder), "/proc/self/status"
    ) as one:
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
    assert (
        set(after.capabilities.permitted)
        == {"chown"}
        <= set(said["regain-by-file"]["capabilities"])
    )
    with waiting(
        "unshare(); become(1000); drop_permitted()", setuid_cat(folder), "/proc/self/status"
    ) as one:
        one.map(f"1000 {BASE} 1")
        one.ready()
        assert status_of(one.go()).capabilities.permitted == ()


TRY = """
name = os.uname().nodename.encode()
print("host", "yes" if libc.sethostname(name, len(name)) == 0 else "no")
print("own", "yes" if libc.setgroups(1, struct.pack("I", 5)) == 0 else "no")
"""


def test_roots_capabilities_of_a_namespace_count_there_and_not_on_the_host() -> None:
    with waiting(
        f"unshare(); os.setresgid(0, 0, 0); os.setresuid(0, 0, 0); ask()\n{TRY}\nsys.exit()"
    ) as one:
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
        with waiting(
            "unshare(); os.setresgid(0, 0, 0); os.setresuid(0, 0, 0)", "/bin/cat", secret
        ) as one:
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
        [setpriv, *words, *process],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
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
            f"os.setgroups([{keep}]); unshare(); os.setresgid(7, 7, 7); os.setresuid(7, 7, 7)",
            "/bin/cat",
            shared,
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
        enter = [
            "setpriv",
            f"--reuid={UID}",
            "--clear-groups",
            "nsenter",
            "--user",
            "--preserve-credentials",
        ]
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
    assert (extent["container"], extent["parent"], extent["host"], extent["count"]) == (
        5,
        0,
        BASE,
        1,
    )
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


AS_NOBODY = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]


def by(prefix: list[str], *words: str) -> subprocess.CompletedProcess[str]:
    """Run it by way of another program."""
    return subprocess.run(
        [*prefix, sys.executable, "-m", "usernsplan", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(proc_status.__file__).parents[2],
    )


def test_whoever_is_not_root_is_told_what_can_be_told() -> None:
    with waiting("") as one:
        one.ready()
        done = by(AS_NOBODY, "inspect", str(one.pid), "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    # Its maps are like those of a namespace that has every id.
    assert document["namespaces"] is None
    codes = {one["code"] for one in document["meaning"]}
    assert "unseen-namespace" in codes
    assert not codes & {"host-root", "host-capabilities"}
    assert "of your own processes" in done.stderr


BY_HALF = "unshare(); os.setresuid({uid}, {uid}, {uid}); drop_permitted()"


def test_root_of_a_namespace_of_which_only_the_uid_map_is_written_is_root() -> None:
    with waiting(BY_HALF.format(uid=0), "/bin/cat", "/proc/self/status") as one:
        one.map(f"0 {BASE} 1000", names=("uid_map",))
        one.ready()
        said = one.said()
        document = json_of("inspect", str(one.pid))
        everything = {
            namespace["inode"]: namespace for namespace in json_of("inspect", "--all")["namespaces"]
        }
        owned = usernsplan("whois", str(BASE)).stdout
        text = usernsplan("inspect", str(one.pid)).stdout
        after = status_of(one.go())
    [namespace] = document["namespaces"]
    assert [namespace["uid_map"][0][side] for side in ("container", "host", "count")] == [
        0,
        BASE,
        1000,
    ]
    assert namespace["gid_map"] is None
    assert everything[namespace["inode"]]["uid_map"] == namespace["uid_map"]
    assert f"user namespace {namespace['inode']}, container id 0" in owned
    assert set(said) >= {"root-inside", "no-gid-map", "powerless-root"}
    assert "no-map" not in said
    assert "it has no gid_map yet" in text
    assert said["regain-as-root"]["capabilities"] == list(after.capabilities.permitted) != []


def test_where_no_gid_is_mapped_a_setuid_binary_does_nothing(folder: Path) -> None:
    with waiting(BY_HALF.format(uid=5), setuid_cat(folder, BASE), "/proc/self/status") as one:
        one.map(f"0 {BASE} 1000", names=("uid_map",))
        one.ready()
        said = one.said()
        after = status_of(one.go())
    assert after.capabilities.permitted == ()
    assert after.uids.effective == 5
    assert "regain-by-setuid" not in said
    assert "gid" in said["regain-by-file"]["text"]


def test_where_only_the_gid_map_is_written_it_has_no_uid() -> None:
    with waiting(
        "unshare(); os.setresgid(0, 0, 0); drop_permitted()", "/bin/cat", "/proc/self/status"
    ) as one:
        one.map(f"0 {BASE} 1000", names=("gid_map",))
        one.ready()
        said = one.said()
        after = status_of(one.go())
    assert set(said) >= {"no-uid-map", "regain-by-file"}
    assert not set(said) & {"no-map", "no-gid-map", "unmapped-uid", "root-inside"}
    assert (after.uids.effective, after.gids.effective) == (65534, 0)
    assert after.capabilities.permitted == ()


@pytest.mark.parametrize("setup", ["", "os.setresgid(0, 0, 0); os.setresuid(0, 0, 0)"])
def test_whoever_is_not_root_is_not_told_that_a_namespace_with_every_id_is_the_host(
    setup: str,
) -> None:
    with waiting(f"unshare(); {setup}") as one:
        one.map("0 0 4294967295")
        one.ready()
        done = by(AS_NOBODY, "inspect", str(one.pid))
        document = json.loads(by(AS_NOBODY, "inspect", str(one.pid), "--json").stdout)
        everything = by(AS_NOBODY, "inspect", "--all")
        seen = json_of("inspect", "--all")
        unseen = json.loads(by(AS_NOBODY, "inspect", "--all", "--json").stdout)
        assert set(one.said()) >= {"namespaced", "identity-root"}
    assert "cannot be seen" in done.stdout
    assert "it is root of the host" not in done.stdout
    assert "its ids are the host's" not in done.stdout
    assert document["namespaces"] is None
    # That there are others is not denied.
    assert everything.stdout == "Only the host's user namespace can be seen from here.\n"
    assert (seen["complete"], unseen["complete"]) == (True, False)


def test_in_a_user_namespace_root_is_not_told_as_root_of_the_host() -> None:
    inside = ["unshare", "--user", "--map-root-user"]
    # The shell that unshare became, and a process outside.
    script = ["sh", "-c", 'exec "$@" inspect $$ --json', "sh"]
    done = by([*inside, *script])
    document = json.loads(done.stdout)
    said = {one["code"]: one["text"] for one in document["meaning"]}
    assert document["initial"] is False
    for code in ("host-root", "host-capabilities", "setuid"):
        assert "in which usernsplan runs" in said[code]
    assert json_of("inspect", str(os.getpid()))["initial"] is True
    # What lies around it the kernel does not translate: the map of our own reads as if it had every id.
    document = json.loads(by(inside, "inspect", str(os.getpid()), "--json").stdout)
    assert document["namespaces"] is None


NOROOT = ["setpriv", "--securebits", "+noroot"]


def test_root_that_is_none_for_execve_is_said_to_be_possible(folder: Path) -> None:
    # Nothing in /proc tells the two apart, and only one of them has capabilities again.
    for words in (["--reuid=0"], [f"--reuid={UID}", "--clear-groups"]):
        process = [
            *NOROOT,
            *words,
            sys.executable,
            "-c",
            PROCESS,
            "pass",
            str(setuid_cat(folder)),
            "/proc/self/status",
        ]
        with subprocess.Popen(
            process,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as started:
            one = Waiting(started)
            one.ready()
            said = one.said()
            after = status_of(one.go())
        assert after.capabilities.permitted == ()
        [regain] = [text for code, text in said.items() if code.startswith("regain")]
        assert "unless its securebits, which cannot be seen, include noroot" in regain["text"]


def test_only_the_sets_that_are_not_empty_are_said_not_to_be(folder: Path) -> None:
    setup = f"set_inheritable({CHOWN}); bound(); become({UID})"
    with waiting(setup, setuid_cat(folder), "/proc/self/status") as one:
        one.ready()
        said = one.said()
        after = status_of(one.go())
    assert (
        said["regain-by-setuid"]["capabilities"] == list(after.capabilities.permitted) == ["chown"]
    )
    assert said["regain-by-setuid"]["text"].startswith("its inheritable set is not empty")


@pytest.mark.parametrize("more", ["", "; no_new_privs()"])
@pytest.mark.parametrize("kind", ["set-group-ID", "has capabilities"])
def test_ambient_capabilities_are_lost_to_files_that_have_privileges_of_their_own(
    folder: Path, kind: str, more: str
) -> None:
    setpriv = shutil.which("setpriv") or missing("setpriv")
    cat = folder / "cat"
    shutil.copy("/bin/cat", cat)
    if kind == "set-group-ID":
        os.chown(cat, 0, 54321)
        cat.chmod(0o2755)
    else:
        setcap = shutil.which("setcap", path="/usr/sbin:/sbin:/usr/bin") or missing("setcap")
        subprocess.run([setcap, "cap_kill+p", cat], check=True)
    words = [f"--reuid={UID}", "--clear-groups", "--inh-caps=+chown", "--ambient-caps=+chown"]
    process = [
        setpriv,
        *words,
        sys.executable,
        "-c",
        PROCESS,
        f"pass{more}",
        str(cat),
        "/proc/self/status",
    ]
    with subprocess.Popen(
        process, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as started:
        one = Waiting(started)
        one.ready()
        said = one.said()
        after = status_of(one.go())
    # no_new_privs leaves set-group-ID out altogether: that file is like every other.
    assert ("chown" in after.capabilities.permitted) == (kind == "set-group-ID" and bool(more))
    assert kind in said["ambient"]["text"]


def test_in_a_nested_namespace_its_maker_has_power_from_the_one_around_it_only() -> None:
    dumpable = "libc.prctl(4, 1, 0, 0, 0)"
    setup = (
        f"become({UID}); {dumpable}; unshare(); os.setresgid(33, 33, 33); os.setresuid(33, 33, 33); {dumpable}; "
        f"done(libc.unshare(0x10000000)); open('/proc/self/uid_map', 'w').write('0 33 1')"
    )
    with waiting(setup) as one:
        one.map(f"0 {BASE} 1000")
        one.ready()
        said = one.said()
        enter = ["nsenter", "--user", "--preserve-credentials", "--target", str(one.pid), "true"]
        ok = {
            uid: subprocess.run(
                ["setpriv", f"--reuid={uid}", "--clear-groups", *enter],
                capture_output=True,
                check=False,
            ).returncode
            == 0
            for uid in (BASE + 33, UID)
        }
    assert ok == {BASE + 33: False, UID: True}
    text = said["owner"]["text"]
    assert (
        f"host uid {BASE + 33} made its namespace, and has every capability in it from the namespace around"
        in text
    )
    assert f"host uid {UID} made the outermost one, and has them from the host" in text


def test_one_that_ends_or_goes_elsewhere_while_it_is_looked_at_is_not_told_by_what_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked = namespaces.running
    for ends in (False, True):
        with waiting("ask(); libc.unshare(0x10000000)") as one:
            one.ready()

            def meanwhile(one: Waiting = one, ends: bool = ends) -> tuple[Namespace, ...]:
                found = looked()
                monkeypatch.setattr(namespaces, "running", looked)
                if ends:
                    one.process.kill()
                    one.process.wait()
                else:
                    one.on()
                    one.ready()
                return found

            monkeypatch.setattr(namespaces, "running", meanwhile)
            out, err = here("inspect", str(one.pid), status=1 if ends else 0)
        assert "its ids are the host's" not in out
        if ends:
            assert (out, "no process" in err) == ("", True)
        else:
            assert "it has no maps yet" in out


def test_a_process_that_is_uid_0_of_the_host_under_another_number_has_roots_files(
    folder: Path,
) -> None:
    secret = folder / "secret"
    secret.write_text("mine")
    secret.chmod(0o600)
    with waiting(
        "unshare(); os.setresgid(5, 5, 5); os.setresuid(5, 5, 5)", "/bin/cat", secret
    ) as one:
        one.map(f"0 {BASE} 5", "5 0 1")
        one.ready()
        assert "host-uid-0" in one.said()
        assert one.go() == "mine"


def test_setuid_in_a_namespace_that_has_host_uid_0_somewhere_leads_there(folder: Path) -> None:
    secret = folder / "secret"
    secret.write_text("mine")
    secret.chmod(0o600)
    becoming = f"os.setresuid(5, 5, 5); print(open('{secret}').read()); sys.exit()"
    with waiting(
        f"unshare(); os.setresgid(0, 0, 0); os.setresuid(0, 0, 0); ask(); {becoming}"
    ) as one:
        one.map(f"0 {BASE} 5", "5 0 1")
        one.ready()
        said = one.said()
        assert one.go() == "mine\n"
    assert "including uid 0 of the host" in said["setuid"]["text"]
    assert "host-uid-0" not in said


def test_what_is_permitted_and_not_in_effect_is_told_apart() -> None:
    lowered = "data = ctypes.create_string_buffer(24); head = struct.pack('Ii', 0x20080522, 0); libc.capget(head, data); "
    lowered += "sets = struct.unpack('6I', data.raw); done(libc.capset(head, struct.pack('6I', 0, *sets[1:3], 0, *sets[4:])))"
    trying = "print(libc.sethostname(b'x', 1)); sys.exit()"
    with waiting(f"libc.unshare(0x04000000); {lowered}; ask(); {trying}") as one:
        one.ready()
        said = one.said()
        assert one.go() == "-1\n"
    assert said["host-capabilities"]["text"].endswith("in effect now: none")


def test_a_process_whose_first_thread_has_ended_runs_on() -> None:
    setup = "import threading, time; threading.Thread(target=time.sleep, args=(60,)).start(); ask(); libc.pthread_exit(0)"
    with waiting(setup) as one:
        one.ready()
        one.on()
        deadline = time.monotonic() + 30
        while "State:\tZ" not in Path(f"/proc/{one.pid}/status").read_text():
            assert time.monotonic() < deadline
        document = json_of("inspect", str(one.pid))
    assert document["state"] == "S"
    assert document["namespaces"] == []
