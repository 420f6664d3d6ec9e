"""The command adopt on trees: what stands is listed, taken over, exported, and no file changes."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.command import files_of, here
from tests.documents import document_in
from tests.each import each

CORE = "core:100000:1000000\n"
ACCOUNTS = """\
root:x:0:0:root:/root:/bin/sh
alice:x:1000:1000::/home/alice:/bin/sh
core:x:1001:1001::/home/core:/bin/sh
dockremap:x:997:996::/nonexistent:/bin/false
kubelet:x:995:995::/nonexistent:/bin/false
"""
GROUP = (
    "root:x:0:\nvideo:x:44:\nrender:x:104:\nalice:x:1000:\ncore:x:1001:\ndockremap:x:996:\n"
    "kubelet:x:995:\n"
)
# The ledger, and what lckpwdf(3) locks.
OURS = ("var/lib/usernsplan", "etc/.pwd.lock")


def put(root: Path, path: str, content: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "host"
    put(root, "etc/passwd", ACCOUNTS)
    put(root, "etc/group", GROUP)
    put(root, "etc/subuid", "")
    put(root, "etc/subgid", "")
    return root


@pytest.fixture
def full(root: Path) -> Path:
    """A host on which people have made everything by hand."""
    both = (
        "root:100000:65536\nroot:44:1\nalice:300000:65536\nalice:400000:65536\n"
        "core:10000000:1000000\ncontainers:2147483647:2147\nkubelet:65601536:7208961\n"
        "bob:0x1e8480:9\n"
    )
    put(root, "etc/subuid", f"{both}997:500000:65536\n")
    put(root, "etc/subgid", f"{both}root:104:1\ndockremap:600000:65536\n")
    put(root, "etc/docker/daemon.json", '{"userns-remap": "997:996"}\n')
    gpu = (
        "lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 107\nlxc.idmap = g 107 104 1\n"
        "lxc.idmap = g 108 100108 65428\n"
    )
    put(root, "var/lib/lxc/gpu/config", gpu)
    put(root, "etc/pve/lxc/101.conf", "hostname: a\nunprivileged: 1\n")
    put(root, "etc/pve/lxc/102.conf", "hostname: b\nunprivileged: 1\n\n[snap]\nunprivileged: 1\n")
    hers = root / "home/alice"
    idmap = "lxc.idmap = u 0 300000 1000\nlxc.idmap = g 0 300000 1000\n"
    put(hers, ".local/share/lxc/gpu/config", idmap)
    units = ".config/containers/systemd"
    put(hers, f"{units}/app.container", "[Container]\nImage=x\nUIDMap=0:2001:500\n")
    put(root, "etc/containers/systemd/db.container", "[Container]\nUIDMap=0:1:2\n")
    dropin = "[Container]\nUIDMap=\nUIDMap=0:7000000:1000\nGIDMap=\\\n 0:7000000:1000\n"
    put(root, "etc/containers/systemd/db.container.d/10-ids.conf", dropin)
    put(root, "etc/containers/systemd/auto.container", "[Container]\nUserNS=auto\n")
    put(root, "etc/containers/systemd/plain.container", "[Container]\nImage=x\n")
    return root


def others(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file but the ledger's and an empty lock, to see whether anything was touched."""
    return {path: it for path, it in files_of(root).items() if not path.startswith(OURS)}


NAMES = (
    *("alice", "core", "containers", "kubelet", "default"),
    *("gpu", "101", "102", "db", "alice-gpu", "alice-app"),
)


def test_what_stands_is_listed_with_its_name_its_map_and_what_is_not_understood(full: Path) -> None:
    before = files_of(full)
    for words in ((), ("--dry-run",)):
        out, _ = here("adopt", *words, "--root", full)
        assert "alice-gpu" in out
        assert "LXC's container gpu of alice" in out
        assert "107 -> 104 (the host's)" in out
        assert f"{full}/etc/subuid:8" in out
        assert "readers disagree" in out
    found = document_in(here("adopt", "--root", full, "--json")[0])["found"]
    assert [one["name"] for one in found if one["allocation"]] == [*NAMES]
    of = {one["name"]: one for one in found}
    assert of["gpu"]["pass"] == ["g:104:107"]
    assert [of[name]["within"] for name in ("gpu", "alice-gpu", "alice-app", "db")] == [
        "root",
        "alice",
        "alice",
        None,
    ]
    assert of["101"]["others"] == ["gpu", "102"]
    assert of["db"]["place"] == f"{full}/etc/containers/systemd/db.container.d/10-ids.conf:3"
    assert of["alice-app"]["allocation"]["uid_map"] == [
        {"container": 0, "host": 302000, "count": 500}
    ]
    assert {one["name"]: one["why"] for one in found if one["why"]}.keys() == {
        "root",
        "bob",
        "auto",
    }
    assert files_of(full) == before


def test_adopting_changes_no_file_and_a_second_time_nothing_at_all(full: Path) -> None:
    before = others(full)
    names = [name for name in NAMES if name not in {"101", "102"}]
    first = document_in(here("adopt", *names, "--root", full, "--json")[0])
    assert (first["changed"], first["changes"], first["records"]) == (True, [], [])
    assert [a["name"] for a in first["allocations"]] == names
    assert {a["published"] for a in first["allocations"]} == {"none"}
    assert others(full) == before
    ledger = files_of(full)
    out, _ = here("adopt", *names, "--root", full)
    assert "Already up to date." in out
    assert files_of(full) == ledger
    assert "adopted core as it stands: uids 10000000-10999999" in here("history", "--root", full)[0]
    # It listens to no one but the ledger now.
    known = {
        one["known"] for one in document_in(here("adopt", "--root", full, "--json")[0])["found"]
    }
    assert known == {None, *names}


def test_all_takes_what_is_certain(full: Path) -> None:
    out, err = here("adopt", "--all", "--root", full)
    listed = [
        a["name"] for a in document_in(here("list", "--root", full, "--json")[0])["allocations"]
    ]
    assert sorted(listed) == sorted({*NAMES} - {"gpu", "101", "102"})
    assert "core" in out
    assert "takes this one [USN164]" not in err
    assert err.count("[USN164]") == 6
    assert f"usernsplan adopt 101 --root {full}" in err


def test_check_finds_nothing_new_after_it(full: Path) -> None:
    def found() -> set[tuple[str, str]]:
        document = document_in(here("check", "--root", full, "--json", status=None)[0])
        return {
            (one["code"], one["place"])
            for one in document["findings"]
            if one["severity"] == "error"
        }

    before = found()
    here(
        "adopt",
        "alice",
        "core",
        "containers",
        "kubelet",
        "default",
        "db",
        "alice-app",
        "--root",
        full,
    )
    here("adopt", "gpu", "alice-gpu", "--root", full)
    # 101 and 102 have had the ids of gpu before.
    assert {code for code, _ in found() - before} <= {"USN085"}


def test_export_describes_what_was_adopted_here_and_on_a_copy_of_etc(
    full: Path, tmp_path: Path
) -> None:
    names = [name for name in NAMES if name not in {"101", "102"}]
    here("adopt", *names, "--root", full)
    plan = tmp_path / "plan.yaml"
    plan.write_text(here("export", "--root", full)[0])
    assert "Already up to date" in here("plan", plan, "--check", "--root", full)[0]

    copy = tmp_path / "copy"
    shutil.copytree(full / "etc", copy / "etc", symlinks=True)
    before = others(copy)
    out, _ = here("plan", plan, "--root", copy)
    # What is left is a range of its own, and slices that can be taken from their lines anew.
    adopted = out.count("adopted as it stands")
    cut = sum(", within " in line and "adopted" not in line for line in out.splitlines())
    assert (adopted + cut, cut) == (len(names) - 1, 2)
    assert out.count("  + ") == len(names)
    assert "@@" not in out
    here("apply", plan, "--yes", "--root", copy)
    assert others(copy) == before
    assert "Already up to date" in here("plan", plan, "--check", "--root", copy)[0]


# The command that an error prints.


def hinted(said: str) -> list[str]:
    [quoted] = re.findall(r"('?usernsplan adopt .*?) takes over", said)
    # Around a command without quotes of its own there are some.
    return shlex.split(quoted.strip("'") if quoted.startswith("'") else quoted)[1:]


@each(
    ("lines", "words", "name"),
    [
        (CORE, ("core-os", "--owner", "core"), "core"),
        ("alice:100000:65536\nalice:165536:65536\n", ("web", "--owner", "alice"), "alice"),
        ("alice:100000:65536\nalice:300000:65536\n", ("web", "--owner", "alice"), "alice"),
        ("alice:300000:65536\nalice:100000:65536\n", ("web", "--owner", "alice"), "alice"),
        ("1000:300001:7\n", ("web", "--owner", "alice"), "alice"),
        ("dockremap:231072:65536\n", ("--docker",), "default"),
        ("dockremap:500000:1000\ndockremap:400000:9\n", ("--docker",), "default"),
        ("containers:2147483647:2147483648\n", ("--engine", "podman-auto"), "containers"),
        ("containers:65537:1\ncontainers:70000:1\n", ("--engine", "podman-auto"), "containers"),
        ("kubelet:65536:7208960\n", ("--engine", "kubernetes"), "kubelet"),
        ("usernsplan-web:5000000:77\n", ("web",), "web"),
    ],
)
def test_the_error_prints_the_one_command_that_adopts_what_the_owner_has(
    lines: str, words: tuple[str, ...], name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("host") / "a b"
    put(root, "etc/passwd", ACCOUNTS)
    put(root, "etc/group", GROUP)
    put(root, "etc/subuid", lines)
    put(root, "etc/subgid", lines)
    before = others(root)
    words = ("allocate", *words, "--strategy", "per-container", "--root", str(root))
    argv = hinted(here(*words, status=9)[1])
    assert argv == ["adopt", name, "--root", str(root)]
    here(*argv)
    assert others(root) == before
    [made] = document_in(here("list", "--root", root, "--json")[0])["allocations"]
    assert made["name"] == name
    extents = made["uid_map"]
    assert sum(e["count"] for e in extents) == sum(
        int(line.split(":")[2]) for line in lines.splitlines()
    )
    errors = here("check", "--root", root, "--select", "USN05", status=None)[0]
    assert "USN05" not in errors


@each(
    ("lines", "container", "stands"),
    [
        (CORE, "{name: core, owner: core}", "{name: core, adopt: true}"),
        (CORE, "{name: web, owner: core}", "{name: web, owner: core, adopt: true}"),
        ("dockremap:231072:65536\n", "default", "{name: default, adopt: true}"),
    ],
)
def test_a_plan_file_hears_of_adopt_true(
    lines: str, container: str, stands: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("host")
    put(root, "etc/passwd", ACCOUNTS)
    put(root, "etc/group", GROUP)
    put(root, "etc/subuid", lines)
    put(root, "etc/subgid", lines)
    plan = root / "plan.yaml"
    plan.write_text(f"strategy: per-container\nengines: []\ncontainers: [{container}]\n")
    assert (
        "write 'adopt: true' to adopt what stands"
        in here("plan", plan, "--root", root, status=9)[1]
    )
    plan.write_text(f"strategy: per-container\nengines: []\ncontainers: [{stands}]\n")
    before = others(root)
    here("apply", plan, "--yes", "--root", root)
    assert others(root) == before


def test_lines_that_cannot_be_adopted_are_in_no_hint(root: Path) -> None:
    put(root, "etc/subuid", "alice:100000:9\nalice:100000:9\n")
    words = ("allocate", "web", "--owner", "alice", "--strategy", "per-container")
    _, err = here(*words, "--root", root, status=9)
    assert "usernsplan adopt" not in err
    assert "remove that line" in err


# Errors.


@each(
    ("words", "status", "said"),
    [
        (("nix",), 1, "nothing stands here under the name 'nix'"),
        (("cor",), 1, "did you mean core?"),
        (("app",), 1, "did you mean alice-app?"),
        (("bob",), 9, "readers disagree"),
        (("101", "102"), 9, "both have 100000-165535"),
        (("core", "nix"), 1, "nothing was adopted"),
        (("core", "--all"), 2, "--all does not go with a name"),
    ],
)
def test_what_cannot_be_adopted_changes_nothing(
    full: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    before = files_of(full)
    assert said in here("adopt", *words, "--root", full, status=status)[1]
    assert files_of(full) == before


def test_a_home_that_cannot_be_read_is_told_and_stops_nothing(full: Path) -> None:
    config = full / "home/alice/.local/share/lxc/gpu/config"
    config.unlink()
    config.symlink_to("config")
    _, err = here("adopt", "core", "--root", full)
    assert "[USN165]" in err
    assert "too many symlinks" in err
    assert "too many symlinks" in here("adopt", "--root", full)[1]


def test_an_empty_host_says_so_and_a_missing_root_is_wrong(root: Path, tmp_path: Path) -> None:
    assert "There is nothing to adopt." in here("adopt", "--root", root)[0]
    assert "does not exist" in here("adopt", "--root", tmp_path / "none", status=2)[1]
    assert "does not exist" in here("adopt", "x", "--root", tmp_path / "none", status=2)[1]


def test_a_released_name_is_adopted_again_with_its_ids(root: Path) -> None:
    both = "alice:100000:9\nalice:300000:9\n"
    for path in ("etc/subuid", "etc/subgid"):
        put(root, path, both)
    here("adopt", "alice", "--root", root)
    here("release", "alice", "--with-lines", "--root", root)
    assert (root / "etc/subuid").read_text() == ""
    document = document_in(here("list", "--root", root, "--json")[0])
    assert [q["range"]["start"] for q in document["quarantined"]] == [100000, 300000]
    for path in ("etc/subuid", "etc/subgid"):
        put(root, path, both)
    here("adopt", "alice", "--root", root)
    assert document_in(here("list", "--root", root, "--json")[0])["quarantined"] == []


# What accounts write.


def idmap(*lines: str) -> str:
    return "".join(f"lxc.idmap = {line}\n" for line in lines)


def both(start: int, count: int) -> str:
    return idmap(f"u 0 {start} {count}", f"g 0 {start} {count}")


HERS = "home/alice/.local/share/lxc"
UNITS = "home/alice/.config/containers/systemd"


@pytest.fixture
def hostile(root: Path) -> Path:
    """Alice writes what she likes; her lines grant 300000-365535, and her gid is render's."""
    put(root, "etc/passwd", ACCOUNTS.replace("alice:x:1000:1000", "alice:x:1000:104"))
    lines = "alice:300000:65536\nbob:0x493e0:9\ncore:200000:100000\nroot:100000:65536\n"
    put(root, "etc/subuid", lines)
    put(root, "etc/subgid", lines)
    put(root, "var/lib/lxc/web/config", both(100000, 65536))
    put(root, "var/lib/lxc/odd/config", "lxc.idmap = u zero\n")
    put(root, "etc/containers/systemd/db.container", "[Container]\nUIDMap=0:7000000:1000\n")
    # Names of others: an account whose line is not understood, root's containers, and root.
    for number, name in enumerate(("bob", "web", "db", "odd", "root", "core", "default")):
        put(root, f"{HERS}/{name}/config", both(300000 + 100 * number, 100))
    # Ids of others: the host's root, a group, an account's range, root's container, all.
    put(root, f"{HERS}/a1/config", idmap("u 0 0 1", "u 1 301000 9", "g 0 301000 10"))
    put(root, f"{HERS}/a2/config", idmap("u 0 301000 10", "g 0 44 1", "g 1 301000 9"))
    put(root, f"{HERS}/a3/config", both(299990, 20))
    put(root, f"{HERS}/a4/config", both(100000, 65536))
    put(root, f"{HERS}/a5/config", both(0, 4294967295))
    put(root, f"{UNITS}/a6.container", "[Container]\nUIDMap=0:@100000:10\n")
    put(root, f"{UNITS}/a7.container", "[Container]\nUIDMap=0:65537:10\n")
    # Her own ids are hers, and the hole would be the last id of core.
    hole = idmap("u 0 1000 1", "u 1 300000 9", "g 0 104 1", "g 1 300000 9")
    put(root, f"{HERS}/hole/config", hole)
    put(root, f"{HERS}/x\ny\x1b[31m/config", both(302000, 9))
    return root


def test_what_accounts_write_gives_them_no_id_and_no_name_of_others(hostile: Path) -> None:
    before = others(hostile)
    for name in ("bob", "odd", "root", "alice-a1", "alice-a4"):
        here("adopt", name, "--root", hostile, status=None)
    here("adopt", "--all", "--root", hostile)
    here("adopt", "alice-hole", "--root", hostile)
    assert others(hostile) == before
    made = {
        a["name"]: a
        for a in document_in(here("list", "--root", hostile, "--json")[0])["allocations"]
    }
    # 'bob' and 'hole' have ids in common: that is not certain.
    hers = ("web", "db", "odd", "root", "core", "default", "hole")
    assert {*made} == {"alice", "core", "web", "db", *(f"alice-{name}" for name in hers)}
    assert made["web"]["uid_map"][0]["host"] == 100000
    assert made["db"]["uid_map"][0]["host"] == 7000000
    for name in hers:
        one = made[f"alice-{name}"]
        assert one["within"] == "alice"
        assert (one["reserved_range"] or {"start": 300000})["start"] >= 300000
        for kind, own in (("uid_map", 1000), ("gid_map", 104)):
            for extent in one[kind]:
                ids = range(extent["host"], extent["host"] + extent["count"])
                assert ids == range(own, own + 1) or (ids.start >= 300000 and ids.stop <= 365536)


def test_names_of_accounts_forge_no_line(hostile: Path) -> None:
    out = here("adopt", "--root", hostile)[0]
    assert "\x1b" not in out
    assert not [line for line in out.splitlines() if line.startswith("y")]
    assert "x\\ny\\x1b[31m" in out


def test_a_map_that_opens_the_host_needs_a_flag_of_its_own(root: Path) -> None:
    docker = "docker:x:990:alice\n"
    put(root, "etc/group", GROUP + docker)
    put(root, "etc/passwd", ACCOUNTS.replace("alice:x:1000:1000", "alice:x:1000:990"))
    both_ = "root:500000:65536\nroot:990:1\nalice:300000:65536\n"
    put(root, "etc/subuid", both_)
    put(root, "etc/subgid", both_)
    gids = ("g 0 500000 990", "g 990 990 1", "g 991 500991 64545")
    put(root, "var/lib/lxc/ci/config", idmap("u 0 500000 65536", *gids))
    # Her own gid, which newgidmap maps without a line.
    hers = idmap("u 0 300000 10", "g 0 990 1", "g 1 300001 9")
    put(root, f"{HERS}/ci/config", hers)
    plan = root / "plan.yaml"
    stands = "strategy: per-container\nengines: []\ncontainers:\n- {name: ci, adopt: true%s}\n"

    before = files_of(root)
    for name in ("ci", "alice-ci"):
        _, err = here("adopt", name, "--root", root, status=9)
        assert "host gid 990 is docker" in err
        assert "--pass-privileged" in err
    plan.write_text(stands % "")
    _, err = here("apply", plan, "--yes", "--root", root, status=9)
    assert "write 'pass-privileged: true'" in err
    plan.unlink()
    assert files_of(root) == before

    _, err = here("adopt", "--all", "--root", root)
    assert f"usernsplan adopt --pass-privileged ci --root {root}' takes this one" in err
    listed = document_in(here("list", "--root", root, "--json")[0])["allocations"]
    assert [a["name"] for a in listed] == ["alice"]
    plan.write_text(stands % ", pass-privileged: true")
    here("apply", plan, "--yes", "--root", root)
    here("adopt", "--all", "--pass-privileged", "--root", root)
    listed = document_in(here("list", "--root", root, "--json")[0])["allocations"]
    assert sorted(a["name"] for a in listed) == ["alice", "alice-ci", "ci"]
