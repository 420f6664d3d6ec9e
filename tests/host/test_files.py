"""Subid files that are not plain files: each is a clear error, and the original stays intact."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.command import PROGRAM, extents, files_of, json_of, missing, needs_root, slow, usernsplan
from usernsplan.errors import InvalidValueError, UsernsplanError
from usernsplan.host import files, libraries
from usernsplan.layout import SUBUID, Layout

if TYPE_CHECKING:
    from pyfakefs.fake_filesystem import FakeFilesystem


def put_remap_user(root: Path) -> None:
    (root / "etc/passwd").write_text("dockremap:x:990:990::/:/bin/false\n")
    (root / "etc/group").write_text("dockremap:x:990:\n")


RELEASE = ("release", "old", "--root")
ALLOCATE = ("allocate", "--strategy", "per-container", "web", "--root")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "host/etc").mkdir(parents=True)
    (tmp_path / "host/etc/subuid").write_text("alice:100000:65536\n")
    (tmp_path / "host/etc/subgid").write_text("alice:100000:65536\n")
    return tmp_path / "host"


def in_private_mounts(script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in a mount namespace of its own."""
    words = ["unshare", "-m", "--propagation", "private", "sh", "-euc", script]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("name", ["subuid", "subgid"])
def test_a_symlinked_file_is_refused(root: Path, name: str) -> None:
    (root / "etc" / name).rename(root / "etc/elsewhere")
    (root / "etc" / name).symlink_to("elsewhere")
    done = usernsplan(*ALLOCATE, root, status=9)
    assert f"{root}/etc/{name} is a symlink" in done.stderr
    assert (root / "etc/elsewhere").read_text() == "alice:100000:65536\n"
    assert (root / "etc" / name).is_symlink()


@pytest.mark.parametrize("what", ["fifo", "folder"])
def test_something_that_is_no_file_is_refused_and_does_not_block(root: Path, what: str) -> None:
    (root / "etc/subuid").unlink()
    os.mkfifo(root / "etc/subuid") if what == "fifo" else (root / "etc/subuid").mkdir()
    assert (
        f"{root}/etc/subuid is not a regular file" in usernsplan(*ALLOCATE, root, status=9).stderr
    )


def said(root: Path) -> tuple[str, str, list[str]]:
    """Both files and the allocated names."""
    names = [entry["name"] for entry in json_of("list", "--root", root)["allocations"]]
    return (root / "etc/subuid").read_text(), (root / "etc/subgid").read_text(), names


COMMANDS = pytest.mark.parametrize("words", [ALLOCATE, RELEASE], ids=["allocate", "release"])


@needs_root
@COMMANDS
@pytest.mark.parametrize("name", ["subuid", "subgid"])
def test_an_immutable_file_is_named_and_both_files_stay_as_they_were(
    root: Path, name: str, words: tuple[str, ...]
) -> None:
    path = root / "etc" / name
    usernsplan("allocate", "--strategy", "per-container", "old", "--root", root)
    before = said(root)
    if subprocess.run(["chattr", "+i", path], capture_output=True, check=False).returncode:
        pytest.skip("this file system knows no immutable files")
    try:
        done = usernsplan(*words, root, status=8)
    finally:
        subprocess.run(["chattr", "-i", path], check=True)
    assert f"{path} is immutable" in done.stderr
    assert "chattr -i" in done.stderr
    assert said(root) == before
    assert (
        "interrupted"
        not in usernsplan("allocate", "--strategy", "per-container", "next", "--root", root).stderr
    )
    assert json_of(*words, root)["changed"] is True


@needs_root
@COMMANDS
def test_a_bind_mounted_file_is_named_and_nothing_is_written(
    root: Path, words: tuple[str, ...]
) -> None:
    usernsplan("allocate", "--strategy", "per-container", "old", "--root", root)
    before = said(root)
    command = " ".join(map(str, (*PROGRAM, *words, root)))
    done = in_private_mounts(
        f"mount --bind {root}/etc/subgid {root}/etc/subgid; {command}; exit 99"
    )
    assert done.returncode == 1, done.stderr
    assert f"{root}/etc/subgid is a mount point" in done.stderr
    assert said(root) == before
    assert not list((root / "etc").glob("*usernsplan*"))
    assert json_of(*words, root)["changed"] is True


@needs_root
def test_a_symlinked_daemon_json_is_refused_and_the_release_that_would_change_it_did_not_happen(
    root: Path,
) -> None:
    usernsplan("allocate", "--strategy", "per-container", "--root", root)
    path = root / "etc/docker/daemon.json"
    path.rename(root / "etc/docker/real.json")
    path.symlink_to("real.json")
    before = said(root)
    usernsplan("release", "default", "--unset-remap", "--root", root, status=9)
    assert said(root) == before
    usernsplan(*ALLOCATE, root)


@needs_root
def test_useradd_is_not_led_out_of_the_root_by_a_symlink(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.rmtree(root / "etc")
    (root / "etc").symlink_to(outside)
    done = usernsplan("allocate", "--strategy", "per-container", "--root", root, status=9)
    assert "symlink" in done.stderr
    assert list(outside.iterdir()) == []


@needs_root
@pytest.mark.parametrize("suffix", ["-", "+", ".lock"])
@pytest.mark.parametrize("database", ["passwd", "shadow", "group", "gshadow"])
def test_useradd_is_not_led_out_of_the_root_by_what_it_writes_beside(
    root: Path, tmp_path: Path, database: str, suffix: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for name in ("passwd", "shadow", "group", "gshadow"):
        (root / "etc" / name).write_text("")
    (root / "etc" / (database + suffix)).symlink_to(victim)
    done = usernsplan("allocate", "--strategy", "per-container", "--root", root, status=9)
    assert f"{root}/etc/{database}{suffix}" in done.stderr
    assert victim.read_text() == "mine"


@needs_root
def test_a_read_only_docker_folder_fails_once_and_is_not_in_the_way_of_anything_else(
    root: Path,
) -> None:
    put_remap_user(root)
    (root / "etc/docker").mkdir()
    (root / "etc/docker/daemon.json").write_text("{}")
    docker = " ".join(
        map(str, (*PROGRAM, "allocate", "--strategy", "per-container", "--root", root))
    )
    web = " ".join(map(str, (*PROGRAM, *ALLOCATE, root)))
    mount = f"mount --bind {root}/etc/docker {root}/etc/docker; mount -o remount,ro,bind {root}/etc/docker"
    done = in_private_mounts(f"{mount}; {docker} && exit 99; echo status $?; {web}")
    assert done.returncode == 0, done.stderr
    assert "status 8" in done.stdout
    assert "daemon.json is on a read-only file system" in done.stderr
    assert said(root)[0] == "alice:100000:65536\nusernsplan-web:589824:65536\n"


def test_a_symlinked_daemon_json_is_refused_before_anything_is_done_for_it(root: Path) -> None:
    put_remap_user(root)
    (root / "etc/docker").mkdir()
    (root / "etc/docker/real.json").write_text("{}")
    (root / "etc/docker/daemon.json").symlink_to("real.json")
    before = files_of(root)
    for preview in ((), ("--dry-run",)):
        done = usernsplan(
            "allocate", "--strategy", "per-container", "--root", root, *preview, status=9
        )
        assert "daemon.json is a symlink" in done.stderr
    assert files_of(root) == before
    usernsplan(*ALLOCATE, root)


@needs_root
@pytest.mark.parametrize("mask", ["000", "077", "777"])
def test_what_is_made_has_its_modes_whatever_the_umask(root: Path, mask: str) -> None:
    tree = root.parent / "fresh"
    subprocess.run(
        ["sh", "-c", f"umask {mask}; exec {' '.join(PROGRAM)} {' '.join(ALLOCATE)} {tree}"],
        check=True,
    )
    modes = {
        name: oct((tree / name).stat().st_mode & 0o7777)
        for name in ("etc", "etc/subuid", "var/lib/usernsplan")
    }
    assert modes == {"etc": "0o755", "etc/subuid": "0o644", "var/lib/usernsplan": "0o700"}


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "2>/dev/full", "| true"])
def test_nobody_to_listen_is_no_failure(root: Path, closed: str) -> None:
    (root / "etc/subuid").write_text("broken\n")
    command = " ".join(map(str, (*PROGRAM, *ALLOCATE, root)))
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{command} {closed}"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert said(root)[2] == ["web"]


@pytest.mark.parametrize("what", ["fifo", "folder", "symlink", "text"])
def test_a_ledger_that_is_none_is_named_and_nothing_is_written(root: Path, what: str) -> None:
    ledger = root / "var/lib/usernsplan/ledger.sqlite3"
    ledger.parent.mkdir(parents=True)
    if what == "text":
        ledger.write_text("This is no database. " * 400)
    elif what == "symlink":
        ledger.symlink_to("/nowhere")
    else:
        os.mkfifo(ledger) if what == "fifo" else ledger.mkdir()
    for words in (("list", "--root", root), (*ALLOCATE, root)):
        done = usernsplan(*words, status=9 if what == "symlink" else 1)
        assert f"{root}/var/lib/usernsplan/ledger.sqlite3" in done.stderr
    assert (root / "etc/subuid").read_text() == "alice:100000:65536\n"


def test_a_note_that_nobody_hears_does_not_go_among_the_results(root: Path) -> None:
    usernsplan(*ALLOCATE, root)
    command = " ".join(map(str, (*PROGRAM, "render", "docker", "web", "--root", root)))
    done = subprocess.run(
        ["sh", "-c", f"{command} 2>&-"], capture_output=True, text=True, check=True
    )
    assert done.stdout == '{\n  "userns-remap": "usernsplan-web",\n  "no-new-privileges": true\n}\n'


def test_names_that_are_not_utf_8_are_worked_with_and_printed_escaped(root: Path) -> None:
    strange = root.parent / os.fsdecode(b"r\xf6\xdft %41?#")
    usernsplan(*ALLOCATE, strange)
    usernsplan("release", "web", "--root", strange, env={"PYTHONIOENCODING": "ascii"})
    changed = json_of("history", "--root", strange)["entries"][0]["lines"]
    assert any("r\\udcf6\\udcdft %41?#/etc/subuid: + usernsplan-web" in line for line in changed)


def test_a_result_that_cannot_be_printed_is_an_error_that_does_not_hide_what_was_done(
    root: Path,
) -> None:
    with open("/dev/full", "w") as full:
        words = [*PROGRAM, *ALLOCATE, str(root)]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "cannot print the result" in done.stderr
    assert "Traceback" not in done.stderr
    assert said(root)[2] == ["web"]


@needs_root
def test_a_read_only_file_system_is_named_and_still_takes_a_dry_run(root: Path) -> None:
    words = " ".join(map(str, (*PROGRAM, *ALLOCATE, root)))
    mount = f"mount --bind {root} {root}; mount -o remount,ro,bind {root}"
    done = in_private_mounts(f"{mount}; {words}; exit 99")
    assert done.returncode == 8, done.stderr
    assert "read-only file system" in done.stderr
    done = in_private_mounts(f"{mount}; {words} --dry-run")
    assert done.returncode == 0, done.stderr
    assert "+usernsplan-web:589824:65536" in done.stdout


@needs_root
@pytest.mark.parametrize("step", [12, *slow(4)])
def test_a_full_disk_leaves_both_files_whole(root: Path, step: int) -> None:
    """Try sizes of a disk from too small to large enough: a failure never leaves half a change."""
    lines = "".join(f"u{n}:{n * 10}:10\n" for n in range(100000, 101000))
    (root / "etc/subuid").write_text(lines)
    run, seen = " ".join(PROGRAM), set()
    for pages in range(8, 100, step):
        done = in_private_mounts(
            f"cp -r {root} {root}.{pages}; cd {root}; mount -t tmpfs -o size={pages * 4}k x {root}; cd {root}\n"
            f"cp -r {root}.{pages}/. {root} 2>/dev/null || exit 77\n"
            f"rc=0; {run} allocate --strategy per-container web --root {root} >/dev/null || rc=$?\n"
            f"wc -l < {root}/etc/subuid; wc -l < {root}/etc/subgid; ls -A {root}/etc\n"
            f"exit $rc"
        )
        if done.returncode == 77:
            continue
        seen.add(done.returncode)
        uids, gids, *names = done.stdout.split()
        assert "Traceback" not in done.stderr
        if done.returncode == 0:
            assert (uids, gids) == ("1001", "2")
            break
        assert (uids, gids) == ("1000", "1"), done.stderr
        assert not [name for name in names if "usernsplan" in name]
    assert seen == {0, 1}


def test_owner_and_mode_stay_and_the_old_content_is_kept_beside_as_shadow_does(root: Path) -> None:
    path = root / "etc/subuid"
    path.chmod(0o640)
    owner = (4242, 4343) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(path, *owner)
    usernsplan(*ALLOCATE, root)
    seen = path.stat()
    assert (seen.st_uid, seen.st_gid, seen.st_mode & 0o7777) == (*owner, 0o640)
    assert (root / "etc/subuid-").read_text() == "alice:100000:65536\n"
    assert path.read_text() == "alice:100000:65536\nusernsplan-web:589824:65536\n"


def test_a_root_whose_folders_are_symlinks_to_the_outside_never_leads_there(
    root: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "subuid").write_text("bob:200000:65536\n")
    shutil.rmtree(root / "etc")
    (root / "etc").symlink_to(outside)
    usernsplan(*ALLOCATE, root)
    assert sorted(path.name for path in outside.iterdir()) == ["subuid"]
    assert (outside / "subuid").read_text() == "bob:200000:65536\n"
    # An absolute symlink is below the root, as for a process that is chrooted there.
    assert (
        root / str(outside).lstrip("/") / "subuid"
    ).read_text() == "usernsplan-web:589824:65536\n"


def test_a_symlink_with_many_parents_stays_below_the_root(root: Path, tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("outside:x:589824:589824::/:/bin/sh\n")
    (root / "etc/passwd").symlink_to("../../../../../../../../" + str(tmp_path / "passwd"))
    assert json_of(*ALLOCATE, root)["allocations"][0]["uid_map"] == extents((0, 589824, 65536))


def test_a_loop_of_symlinks_is_said(root: Path) -> None:
    shutil.rmtree(root / "etc")
    (root / "etc").symlink_to("/etc")
    assert "too many symlinks" in usernsplan(*ALLOCATE, root, status=9).stderr


def test_accounts_and_login_defs_come_from_the_root(root: Path) -> None:
    (root / "etc/passwd").write_text("svc:x:589824:589824::/:/bin/sh\n")
    (root / "etc/group").write_text("svc:x:655360:\n")
    (root / "etc/login.defs").write_text("SUB_UID_MAX\t786431\n#SUB_GID_MAX 99\n")
    assert json_of(*ALLOCATE, root)["allocations"][0]["uid_map"] == extents((0, 720896, 65536))
    usernsplan("allocate", "--strategy", "per-container", "more", "--root", root, status=7)


def test_subids_from_a_directory_service_are_refused_because_the_files_are_not_read(
    root: Path,
) -> None:
    (root / "etc/nsswitch.conf").write_text("passwd: files sss\n# subid: files\nsubid:\tsss\n")
    with_library(root, "usr/lib/x86_64-linux-gnu/libsubid_sss.so")
    done = usernsplan(*ALLOCATE, root, status=9)
    assert f"{root}/etc/nsswitch.conf:3: 'subid: sss'" in done.stderr
    assert f"{root}/usr/lib/x86_64-linux-gnu/libsubid_sss.so" in done.stderr
    assert "--no-lines" in done.stderr


def with_library(root: Path, path: str) -> None:
    (root / path).parent.mkdir(parents=True)
    (root / path).write_bytes(b"")


def test_subids_from_a_directory_service_that_is_not_installed_come_from_the_files(
    root: Path,
) -> None:
    """getsubids and Podman then use the files, and only say that they cannot open the library."""
    (root / "etc/nsswitch.conf").write_text("subid: sss\n")
    with_library(root, "usr/lib/libsubid_other.so")
    done = usernsplan(*ALLOCATE, root)
    assert "libsubid_sss.so is not installed" in done.stderr
    assert "USN144" in done.stderr
    assert "usernsplan-web:589824:65536\n" in (root / "etc/subuid").read_text()


@pytest.mark.parametrize(
    "path",
    [
        "lib/libsubid_sss.so",
        "usr/lib64/libsubid_sss.so",
        "usr/local/lib/libsubid_sss.so",
        "lib/aarch64-linux-gnu/libsubid_sss.so",
        "opt/sssd/libsubid_sss.so",
    ],
)
def test_a_library_is_found_where_the_loader_of_that_root_finds_it(root: Path, path: str) -> None:
    layout = Layout(str(root), str(root))
    assert libraries.find(layout, "libsubid_sss.so") == ""
    # ldconfig(8) writes NUL-terminated paths; this one is gone.
    cache = b"ld.so-1.7.0\0libsubid_sss.so\0/gone/libsubid_sss.so\0"
    (root / "etc/ld.so.cache").write_bytes(cache + f"/{path}\0".encode())
    assert libraries.find(layout, "libsubid_sss.so") == ""
    with_library(root, path)
    assert libraries.find(layout, "libsubid_sss.so") == f"/{path}"
    assert libraries.find(layout, "libsubid_ss.so") == ""
    assert libraries.find(layout, "") == ""


def test_a_folder_of_libraries_leads_nowhere_outside_the_root(root: Path) -> None:
    outside = root.parent / "outside"
    with_library(root.parent, "outside/libsubid_sss.so")
    (root / "usr").mkdir()
    (root / "usr/lib").symlink_to(outside)
    (root / "lib").symlink_to("../../outside")
    assert libraries.find(Layout(str(root), str(root)), "libsubid_sss.so") == ""


def test_a_folder_of_libraries_that_cannot_be_read_is_an_error(root: Path) -> None:
    (root / "etc/nsswitch.conf").write_text("subid: sss\n")
    (root / "usr").mkdir()
    (root / "usr/lib").symlink_to("lib")
    done = usernsplan(*ALLOCATE, root, status=9)
    assert f"{root}/usr/lib" in done.stderr
    assert "etc/nsswitch.conf" in usernsplan("check", "--root", root, status=1).stdout


def test_another_root_is_not_logged_and_not_looked_up_on_this_machine(root: Path) -> None:
    """Namespaces and accounts of this machine do not count for the tree of another machine."""
    if shutil.which("strace") is None:
        missing("strace")
    trace = root.parent / "trace"
    words = [*PROGRAM, *ALLOCATE, str(root)]
    subprocess.run(
        ["strace", "--seccomp-bpf", "-f", "-o", trace, "-e", "trace=file,connect", *words],
        check=True,
        capture_output=True,
    )
    ours = ("/etc/", "/var/lib/", "/proc/", "/dev/log", "/run/")
    opened = [line.split('"')[1] for line in trace.read_text().splitlines() if line.count('"') >= 2]
    # What the interpreter itself reads: its linker's cache, the C library's settings, and the user.
    own = (
        "/etc/ld.so",
        "/etc/localtime",
        "/etc/locale",
        "/proc/self/loginuid",
        "/proc/sys/",
        "/proc/self/maps",
    )
    assert [path for path in opened if path.startswith(ours) and not path.startswith(own)] == []


def test_no_space_is_an_error_with_the_file_left_alone(fs: FakeFilesystem) -> None:
    fs.create_file("/r/etc/subuid", contents="alice:100000:65536\n")
    fs.set_disk_usage(fs.get_disk_usage()[1] + 100, "/")
    with pytest.raises(UsernsplanError, match="no space left"):
        files.write(Layout("/r"), {SUBUID: b"x" * 200})
    assert Path("/r/etc/subuid").read_text() == "alice:100000:65536\n"
    assert os.listdir("/r/etc") == ["subuid"]


def test_a_missing_root_is_made_and_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "not a folder" in usernsplan(*ALLOCATE, tmp_path / "file", status=2).stderr
    assert "--root is empty" in usernsplan(*ALLOCATE, "", status=2).stderr
    usernsplan(*ALLOCATE, tmp_path / "a/b/c")
    assert (tmp_path / "a/b/c/etc/subuid").exists()


def test_a_file_of_100000_lines_is_kept_and_added_to(root: Path) -> None:
    lines = "".join(f"u{n}:{n * 10}:10\n" for n in range(200000, 300000))
    (root / "etc/subuid").write_text(lines)
    usernsplan(*ALLOCATE, root)
    # These lines take 2000000-2999999; the first free slot is still the first of the pool.
    assert (root / "etc/subuid").read_text() == lines + "usernsplan-web:589824:65536\n"


def test_a_path_with_a_nul_byte_is_a_wrong_value() -> None:
    with pytest.raises(InvalidValueError, match="NUL"):
        files.whole("a\0b", "a?b", named=True)


def test_what_a_file_of_the_host_names_with_a_nul_byte_does_not_exist(root: Path) -> None:
    (root / "etc/passwd").write_bytes(b"eve:x:1000:1000::/ho\0me/eve:/bin/sh\n")
    assert [one["code"] for one in json_of("check", "--root", str(root))["findings"]] == ["USN020"]
    with pytest.raises(FileNotFoundError), files.pinned(Layout(str(root)), "/home/\0", follow=True):
        pass
    with pytest.raises(UsernsplanError, match="nul byte"):
        files.real(Layout(str(root)), "/home/e\0ve")


def test_a_root_that_is_gone_again_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: Layout) -> int:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(files, "_root", gone)
    with pytest.raises(UsernsplanError, match="no such file or directory"):
        files.make_folder(Layout(str(tmp_path), str(tmp_path)), "/var/lib")
