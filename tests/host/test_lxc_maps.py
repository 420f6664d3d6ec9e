"""The configs of LXC and Proxmox VE below a root: which maps are found, where, and what cannot break us."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.command import PROGRAM, json_of, missing, needs_root, usernsplan
from usernsplan.errors import UsernsplanError
from usernsplan.host import files, mounts
from usernsplan.host.unlisted import lxc

if TYPE_CHECKING:
    from collections.abc import Callable

    from usernsplan.model import Unlisted

MAP = "lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\n"
ACCOUNTS = "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, "etc/passwd", ACCOUNTS)
    write(tmp_path, "etc/group", "root:x:0:\nalice:x:1000:\n")
    for name in ("subuid", "subgid"):
        write(tmp_path, f"etc/{name}", "root:100000:65536\nalice:200000:65536\n")
    return tmp_path


def write(root: Path, name: str, content: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def container(root: Path, name: str, content: str = MAP) -> Path:
    return write(root, f"var/lib/lxc/{name}/config", content)


def of_alice(root: Path, name: str, content: str) -> Path:
    return write(root, f"home/alice/.local/share/lxc/{name}/config", content)


def shown(several: tuple[Unlisted, ...]) -> list[str]:
    return [
        f"{one.what} {one.kind} {one.start}-{one.stop - 1} {one.path}:{one.number} {one.grantee}"
        for one in several
    ]


def of_root(root: Path) -> list[str]:
    return shown(lxc.of_root(files.layout_at(str(root))))


def codes(root: Path, prefix: str = "USN08") -> list[tuple[str, str]]:
    """The codes and places of check."""
    found = json_of("check", "--root", root, status=1 if _has_error(root) else 0)["findings"]
    return [
        (one["code"], one["place"].removeprefix(str(root)))
        for one in found
        if one["code"].startswith(prefix)
    ]


def _has_error(root: Path) -> bool:
    return usernsplan("check", "--root", root, status=None).returncode == 1


def test_the_containers_of_root(root: Path) -> None:
    container(root, "web")
    container(root, "plain", "lxc.uts.name = plain\n")
    (root / "var/lib/lxc/lxc-monitord.log").touch()
    (root / "var/lib/lxc/unfinished").mkdir()
    assert of_root(root) == [
        "container web uid 100000-165535 /var/lib/lxc/web/config:1 root",
        "container web gid 100000-165535 /var/lib/lxc/web/config:2 root",
    ]


def test_includes_are_read_where_they_stand(root: Path) -> None:
    write(root, "usr/share/a.conf", "lxc.include = /usr/share/d\nlxc.idmap = u 2 300002 1\n")
    write(root, "usr/share/d/b.conf", "\nlxc.idmap = u 1 300001 1\n")
    write(root, "usr/share/d/b.conf.old", "lxc.idmap = u 9 300009 1\n")
    container(
        root,
        "web",
        "lxc.idmap = u 0 300000 1\nlxc.include = /usr/share/a.conf\nlxc.include = /gone\n"
        "lxc.include = /usr/share/gone/\nlxc.idmap = u 3 300003 1\n",
    )
    assert [one.split()[3:5] for one in of_root(root)] == [
        ["300000-300000", "/var/lib/lxc/web/config:1"],
        ["300001-300001", "/usr/share/d/b.conf:2"],
        ["300002-300002", "/usr/share/a.conf:2"],
        ["300003-300003", "/var/lib/lxc/web/config:5"],
    ]
    # An empty value drops also what an include said before.
    with (root / "var/lib/lxc/web/config").open("a") as file:
        file.write("lxc.idmap =\n")
    assert of_root(root) == []


def test_other_folders_and_the_default_for_new_containers(root: Path) -> None:
    write(root, "etc/lxc/lxc.conf", "lxc.lxcpath = /srv/lxc/\nlxc.default_config = /etc/lxc/my\n")
    write(root, "etc/lxc/my", "lxc.idmap = u 0 100000 10\n")
    write(root, "etc/lxc/default.conf", MAP)
    write(root, "srv/lxc/web/config", "lxc.idmap = u 0 300000 10\n")
    container(root, "old")
    assert of_root(root) == [
        "new containers uid 100000-100009 /etc/lxc/my:1 root",
        "container web uid 300000-300009 /srv/lxc/web/config:1 root",
    ]


def test_symlinks_are_followed_below_the_root_and_never_out_of_it(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = write(tmp_path_factory.mktemp("outside"), "config", MAP)
    write(root, "srv/web/config", "lxc.idmap = u 0 300000 10\n")
    (root / "var/lib/lxc/a").mkdir(parents=True)
    (root / "var/lib/lxc/web").symlink_to("/srv/web")
    (root / "var/lib/lxc/b").symlink_to(outside.parent)
    (root / "var/lib/lxc/a/config").symlink_to(outside)
    (root / "var/lib/lxc/c").mkdir()
    (root / "var/lib/lxc/c/config").symlink_to("../../../../srv/web/config")
    assert [one.split()[1] for one in of_root(root)] == ["c", "web"]


def test_proxmox_has_one_folder_for_each_node(root: Path) -> None:
    write(root, "etc/pve/nodes/here/lxc/105.conf", "arch: amd64\nunprivileged: 1\n")
    write(
        root,
        "etc/pve/nodes/here/lxc/106.conf",
        "lxc.idmap: u 0 300000 10\n[s]\nlxc.idmap: u 0 5 1\n",
    )
    write(root, "etc/pve/nodes/other/lxc/107.conf", "unprivileged: 1\n")
    write(root, "etc/pve/nodes/other/lxc/notes.conf", "unprivileged: 1\n")
    (root / "etc/pve/lxc").symlink_to("nodes/here/lxc")
    assert shown(lxc.of_proxmox(files.layout_at(str(root)))) == [
        "container 105 uid 100000-165535 /etc/pve/lxc/105.conf:2 root",
        "container 105 gid 100000-165535 /etc/pve/lxc/105.conf:2 root",
        "container 106 uid 300000-300009 /etc/pve/lxc/106.conf:1 root",
        "container 107 of node other uid 100000-165535 /etc/pve/nodes/other/lxc/107.conf:1 root",
        "container 107 of node other gid 100000-165535 /etc/pve/nodes/other/lxc/107.conf:1 root",
    ]


def test_a_new_range_keeps_clear_of_them(root: Path) -> None:
    container(root, "web", "lxc.idmap = u 0 589824 65536\n")
    write(root, "etc/pve/lxc/105.conf", "lxc.idmap: g 0 655361 1\n")
    made = json_of(
        "allocate", "--strategy", "per-container", "db", "--engine", "podman", "--root", root
    )
    assert made["allocations"][0]["reserved_range"]["start"] == 720896


def test_an_account_cannot_take_ids_with_a_file_of_its_own(root: Path) -> None:
    of_alice(root, "box", "lxc.idmap = u 0 589824 4000000000\nlxc.idmap = u 0 200000 65536\n")
    made = json_of(
        "allocate", "--strategy", "per-container", "db", "--engine", "podman", "--root", root
    )
    assert made["allocations"][0]["reserved_range"]["start"] == 589824
    [answer] = json_of("whois", "589824", "--root", root)["answers"]
    assert [one["kind"] for one in answer["uid"]] == ["allocation"]
    # What its lines grant, it has: the file says which container.
    [answer] = json_of("whois", "200001", "--root", root)["answers"]
    [box] = [one for one in answer["uid"] if one["kind"] == "unlisted"]
    place = f"{root}/home/alice/.local/share/lxc/box/config"
    assert (box["what"], box["file"], box["line"]) == ("container box", place, 2)
    config = "/home/alice/.local/share/lxc/box/config"
    assert codes(root) == [("USN083", f"{config}:2"), ("USN084", f"{config}:1")]


def test_map_and_check_show_the_place(root: Path) -> None:
    container(root, "web")
    of_alice(root, "box", MAP.replace("100000", "200000"))
    told = usernsplan("map", "--root", root, "--width", "200").stdout
    assert "LXC (container web)" in told
    assert "LXC (container box)" in told
    assert "var/lib/lxc/web/config" in usernsplan("map", "--json", "--root", root).stdout
    assert codes(root) == []
    document = json_of("map", "--root", root)
    assert document["conflicts"] == []


def test_a_container_whose_ids_root_lacks(root: Path) -> None:
    container(root, "web", "lxc.idmap = u 0 300000 10\nlxc.idmap = g 0 100000 10\n")
    told = usernsplan("check", "--root", root, status=1).stdout
    assert "subuid grants root no 300000-300009" in told
    assert f"usermod --prefix {root} --add-subuids 300000-300009 root" in told


def test_a_container_whose_ids_are_somebody_elses(root: Path) -> None:
    container(root, "web", "lxc.idmap = u 0 200000 10\n")
    told = usernsplan("check", "--root", root, status=1).stdout
    assert "200000-265535 is alice's: give it other ids" in " ".join(told.split())
    assert "add-subuids" not in told


def test_a_container_of_ours_for_which_root_got_no_line(root: Path) -> None:
    words = ("allocate", "--strategy", "per-container", "web")
    usernsplan(*words, "--engine", "podman", "--root", root)
    container(root, "web", "lxc.idmap = u 0 589824 65536\nlxc.idmap = g 0 589824 65536\n")
    told = usernsplan("check", "--root", root, status=1).stdout
    assert f"grant them: usernsplan {' '.join(words)} --engine lxc --root {root}" in told
    usernsplan(*words, "--engine", "lxc", "--root", root)
    assert codes(root) == []


def _loop(path: Path) -> None:
    path.write_text("lxc.include = /var/lib/lxc/web/config\n")


def _many(path: Path) -> None:
    path.write_text("lxc.idmap = u 0 300000 1\n" * 681)


def _exploding(path: Path) -> None:
    """Each file includes the next one ten times, eight deep."""
    for number in range(8):
        include = f"lxc.include = {_below(path)}.{number + 1}\n"
        path.with_name(f"{path.name}.{number}").write_text(include * 10)
    path.with_name(f"{path.name}.8").write_text("lxc.idmap = u 0 300000 1\n")
    path.write_text(f"lxc.include = {_below(path)}.0\n")


def _below(path: Path) -> str:
    """The name below the root of the tests."""
    top = next(above for above in path.parents if (above / "etc/passwd").exists())
    return f"/{path.relative_to(top)}"


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate((1 << 20) + 1)


def _socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


BROKEN: list[Callable[[Path], None]] = [
    os.mkfifo,
    Path.mkdir,
    _socket,
    _huge,
    _loop,
    _many,
    _exploding,
]


@pytest.mark.parametrize("make", BROKEN)
def test_what_is_no_config_of_roots_stops_a_decision_and_is_told_by_check(
    root: Path, make: Callable[[Path], None]
) -> None:
    path = container(root, "web", "")
    path.unlink()
    make(path)
    begun = time.monotonic()
    with pytest.raises(UsernsplanError, match="/var/lib/lxc/web/config"):
        of_root(root)
    words = ("allocate", "--strategy", "per-container", "db", "--engine", "podman", "--root", root)
    assert usernsplan(*words, status=None).returncode in {1, 9}
    assert codes(root, "USN035") == [("USN035", "/var/lib/lxc/web/config")]
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("make", BROKEN)
def test_a_broken_config_hides_no_other_container(root: Path, make: Callable[[Path], None]) -> None:
    """Each comes after the broken one, whose name is the first."""
    lacking = "lxc.idmap = u 0 400000 10\n"
    for path in (container(root, "aa", ""), of_alice(root, "aa", "")):
        path.unlink()
        make(path)
        if make is _loop:
            path.write_text(f"lxc.include = {_below(path)}\n")
    container(root, "zz", lacking)
    of_alice(root, "zz", lacking)
    write(root, "etc/pve/lxc/101.conf", "lxc.idmap = u 0 500000 10\n")
    node = write(root, "etc/pve/nodes/other/lxc/100.conf", "")
    node.unlink()
    node.mkdir()
    errors: list[str] = []
    layout = files.layout_at(str(root))
    found = lxc.of_root(layout, lambda path, _: errors.append(path))
    assert [one.container for one in found] == ["zz"]
    assert errors == ["/var/lib/lxc/aa/config"]
    assert codes(root, "USN") == [
        ("USN035", "/etc/pve/nodes/other/lxc/100.conf"),
        ("USN035", "/var/lib/lxc/aa/config"),
        # LXC wants gids as well.
        ("USN083", "/var/lib/lxc/zz/config:1"),
        ("USN083", "/etc/pve/lxc/101.conf:1"),
        ("USN083", "/home/alice/.local/share/lxc/zz/config:1"),
        ("USN084", "/var/lib/lxc/zz/config:1"),
        ("USN084", "/etc/pve/lxc/101.conf:1"),
        ("USN084", "/home/alice/.local/share/lxc/zz/config:1"),
        ("USN086", "/home/alice"),
    ]


def test_configs_without_number_end_it_but_hide_nothing_before_them(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        container(root, f"c{number:02}")
    monkeypatch.setattr(lxc, "_MOST", 40)
    errors: list[tuple[str, str]] = []
    layout = files.layout_at(str(root))
    found = lxc.of_root(layout, lambda path, error: errors.append((path, str(error))))
    assert {one.container for one in found} == {f"c{number:02}" for number in range(12)}
    [(path, text)] = errors
    assert path == "/var/lib/lxc"
    assert "more than 40 files and lines" in text


def test_an_account_has_one_finding_however_much_of_its_is_broken(root: Path) -> None:
    for name in ("a", "b", "c"):
        path = of_alice(root, name, "")
        path.unlink()
        path.mkdir()
    assert codes(root) == [("USN086", "/home/alice")]
    assert "(and 2 more)" in usernsplan("check", "--root", root).stdout


def _dead(root: Path, home: str) -> str:
    """A script that mounts a file system whose server never answers, and then runs the words it gets."""
    return f"""
import ctypes, os, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
fuse = os.open("/dev/fuse", os.O_RDWR)
libc.mount(b"none", b"/", None, 0x44000, None)
options = b"fd=%d,rootmode=40000,user_id=0,group_id=0" % fuse
if libc.mount(b"dead", {str(root / home).encode()!r}, b"fuse", 0, options):
    sys.exit(77)
try:
    sys.exit(subprocess.run(sys.argv[1:], timeout=60).returncode)
except subprocess.TimeoutExpired:
    sys.exit(78)
"""


@pytest.mark.spread(2)
@needs_root
@pytest.mark.parametrize("home", ["home", "home/alice", "home/alice/.local/share/lxc", "srv/far"])
def test_a_home_on_a_server_that_does_not_answer_is_left_alone(root: Path, home: str) -> None:
    of_alice(root, "box", "lxc.idmap = u 0 200000 10\n")
    (root / home).mkdir(parents=True, exist_ok=True)
    if home == "srv/far":
        # A symlink leads there.
        (root / "home/alice").rename(root / "home/old")
        (root / "home/alice").symlink_to("/srv/far")
    unshare, script = shutil.which("unshare") or missing("unshare"), _dead(root, home)
    for words in (("check",), ("map",), ("whois", "200000")):
        done = subprocess.run(
            [unshare, "-m", sys.executable, "-c", script, *PROGRAM, *words, "--root", str(root)],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        if done.returncode == 77:
            pytest.skip("this machine has no FUSE")
        assert done.returncode == 0, (words, done)
        said = " ".join((done.stdout + done.stderr).split())
        assert str(root / home) in said, words
        assert "is on the network (fuse) and was not looked at" in said, words
        assert ("USN086" in said) == (words == ("check",))


def test_what_is_on_the_network_is_known_by_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = ["ext4", "nfs", "nfs4", "cifs", "fuse.sshfs", "fuseblk", "autofs", "btrfs", "overlay"]
    points = [mounts.MountPoint("0:1", "/", f"/{kind}", kind) for kind in kinds]
    # What is mounted over it hides the first.
    points.append(mounts.MountPoint("0:2", "/", "/autofs", "xfs"))
    monkeypatch.setattr(mounts, "_mounts_of", lambda _: points)
    assert [*mounts.of_network()] == ["/nfs", "/nfs4", "/cifs", "/fuse.sshfs"]


@pytest.mark.parametrize("make", BROKEN)
def test_what_is_no_config_of_an_accounts_is_only_told(
    root: Path, make: Callable[[Path], None]
) -> None:
    path = of_alice(root, "web", "")
    path.unlink()
    make(path)
    if make is _loop:
        path.write_text("lxc.include = /home/alice/.local/share/lxc/web/config\n")
    begun = time.monotonic()
    words = ("allocate", "--strategy", "per-container", "db", "--engine", "podman", "--root", root)
    usernsplan(*words)
    assert codes(root) == [("USN086", "/home/alice")]
    assert "containers there are unknown" in usernsplan("whois", "200001", "--root", root).stderr
    usernsplan("map", "--root", root)
    assert time.monotonic() - begun < 30


@needs_root
def test_a_device_that_a_config_includes_is_not_opened(root: Path) -> None:
    """To open a watchdog starts it."""
    os.mknod(root / "console", stat.S_IFCHR | 0o600, os.makedev(10, 130))
    of_alice(root, "box", "lxc.include = /console\n")
    told = usernsplan("check", "--root", root, status=None).stdout
    assert "/console is not a regular file" in " ".join(told.split())


def test_a_home_may_be_missing_or_odd(root: Path) -> None:
    write(
        root,
        "etc/passwd",
        f"{ACCOUNTS}a:x:2000:1::/nonexistent:/\nb:x:2001:1::/etc/passwd:/\nc:x:2002:1::/:/\n"
        "d:x:2003:1::relative:/\ne:x:2004:1::/home/../../..:/\n",
    )
    assert codes(root) == []


def test_thousands_of_containers_cost_little(root: Path) -> None:
    write(root, "usr/share/lxc/common.conf", "lxc.cap.drop = sys_time\n" * 30)
    for number in range(2000):
        container(root, f"c{number}", f"lxc.include = /usr/share/lxc/common.conf\n{MAP}")
    layout = files.layout_at(str(root))

    def seconds() -> float:
        begun = time.process_time()
        assert len(lxc.of_root(layout)) == 4000
        return time.process_time() - begun

    assert min(seconds() for _ in range(3)) < 0.2


def test_after_a_remap_the_old_map_of_a_config_is_told_and_not_granted_again(root: Path) -> None:
    words = ("--strategy", "per-container", "--engine", "lxc", "--root", root)
    usernsplan("allocate", "web", *words)
    config = root / "var/lib/lxc/web/config"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(usernsplan("render", "lxc", "web", "--root", root).stdout)
    render = f"those of 'usernsplan render lxc web --root {root}'"
    first = 65536 * 20
    done = usernsplan("remap", "web", "--start", str(first), "--yes", "--root", root)
    assert f"{config}:1: the container 'web' maps" in done.stderr
    assert render in done.stderr
    [one] = json_of("check", "--select", "USN084", "--root", root, status=1)["findings"]
    assert one["hint"].startswith("'web' has other ids: ")
    assert one["hint"].endswith(render)
    config.write_text(usernsplan("render", "lxc", "web", "--root", root).stdout)
    assert json_of("check", "--select", "USN084", "--root", root)["findings"] == []
