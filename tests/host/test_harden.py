"""harden: a policy is kept with its allocation, wherever that goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.command import here, needs_root

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = needs_root

MUCH = "--profile seed --cap-add net_bind_service --deny-syscall getcwd,chdir --allow-family 40"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    here("allocate", "--strategy", "per-container", "web", "db", "--root", root)
    return root


@pytest.fixture
def run(root: Path) -> Callable[..., tuple[str, str]]:
    def run(words: str, status: int | None = 0) -> tuple[str, str]:
        return here(*words.split(), "--root", root, status=status)

    return run


def policy(run: Callable[..., tuple[str, str]], name: str = "web") -> Any:  # noqa: ANN401 - JSON
    [one] = json.loads(run(f"show {name} --json")[0])["allocations"]
    return one["policy"]


def files(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "etc").iterdir() if path.is_file()}


def test_only_the_ledger_changes_and_again_nothing(
    root: Path, run: Callable[..., tuple[str, str]]
) -> None:
    before = files(root)
    assert policy(run) is None
    run(f"harden web {MUCH}")
    assert policy(run) == {
        "profile": "seed",
        "cap_add": ["net_bind_service"],
        "deny_syscalls": ["chdir", "getcwd"],
        "allow_families": [40],
        "selinux_level": "s0:c0,c1",
    }
    assert files(root) == before
    assert policy(run, "db") is None

    entries = len(json.loads(run("history --json")[0])["entries"])
    out, _ = run(
        "harden web --profile seed --deny-syscall chdir --deny-syscall getcwd "
        "--cap-add CAP_NET_BIND_SERVICE --allow-family AF_VSOCK"
    )
    assert "Already up to date." in out
    assert len(json.loads(run("history --json")[0])["entries"]) == entries

    run("harden web --none")
    assert policy(run) is None
    assert "policy of web: none" in run("history")[0]


def test_a_preview_writes_nothing(run: Callable[..., tuple[str, str]]) -> None:
    out, _ = run("harden web --profile seed --dry-run")
    assert "Policy of web: --profile seed --selinux-level s0:c0,c1." in out
    assert policy(run) is None


def test_a_policy_goes_where_its_allocation_goes(run: Callable[..., tuple[str, str]]) -> None:
    run(f"harden web {MUCH}")
    wanted = policy(run)
    run("rename web www")
    assert policy(run, "www") == wanted
    run("release www")
    run("allocate other")
    assert policy(run, "other") is None
    # Nobody asked to let the container do more.
    run("allocate www")
    assert policy(run, "www") == wanted
    run("release www")
    run("release --forget www --unseen")
    run("allocate www")
    assert policy(run, "www") is None


def test_a_remap_keeps_the_policy_and_so_does_its_undo(
    run: Callable[..., tuple[str, str]],
) -> None:
    run(f"harden web {MUCH}")
    wanted = policy(run)
    run("remap web --size 131072 --yes")
    assert policy(run) == wanted
    run("remap web --undo --yes")
    assert policy(run) == wanted


def test_a_plan_file_says_what_export_said(
    run: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    run(f"harden web {MUCH}")
    run("harden db --profile strict")
    text, _ = run("export")
    file = tmp_path / "usernsplan.yaml"
    file.write_text(text)
    assert "Already up to date" in run(f"plan {file}")[0]

    other = tmp_path / "other"
    (other / "etc").mkdir(parents=True)
    here("apply", file, "--yes", "--root", other)
    assert here("export", "--root", other)[0] == text
    assert "profile: strict" in text


def test_a_plan_file_changes_only_the_policies_that_it_names(
    run: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    run(f"harden web {MUCH}")
    had = policy(run)
    file = tmp_path / "usernsplan.yaml"

    file.write_text("strategy: per-container\nengines: []\ncontainers: [web, db]\n")
    assert "Already up to date" in run(f"plan {file}")[0]
    assert policy(run) == had

    file.write_text(
        "strategy: per-container\nengines: []\nharden: seed\n"
        "containers: [web, {name: db, harden: none}, {name: new, harden: {profile: strict, arch: native}}]\n"
    )
    shown = run(f"plan {file}")[0]
    assert "~ container web  policy: --profile seed --selinux-level s0:c0,c1\n" in shown
    run(f"apply {file} --yes")
    assert policy(run) == {"profile": "seed", "selinux_level": "s0:c0,c1"}
    assert policy(run, "db") is None
    level = {"selinux_level": "s0:c0,c2"}
    assert policy(run, "new") == {"profile": "strict", "arch": "native", **level}
    assert "Already up to date" in run(f"plan {file}")[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("web", "either --profile, or --none alone"),
        ("web --none --profile seed", "either --profile, or --none alone"),
        ("web --none --cap-add kill", "either --profile, or --none alone"),
        ("web --profile seet", "no profile 'seet'\n  did you mean seed?"),
        ("web --profile seed --cap-add net_ra", "no capability 'net_ra'\n  did you mean net_raw?"),
        (
            "web --profile seed --deny-syscall kexecload",
            "no system call 'kexecload'\n  did you mean kexec_load?",
        ),
        ("web --profile seed --deny-family ax26", "no address family 'ax26'\n  did you mean AX25?"),
        ("web --profile seed --deny-family 65536", "no address family '65536'"),
        ("web --profile seed --arch x86", "--arch 'x86' is not native or all"),
        ("web --profile seed --selinux-level c1", "--selinux-level 'c1' is not as in s0:c1,c2"),
        ("web --profile seed --selinux-type a;b", "--selinux-type 'a;b' is not as in container_t"),
        ("web --profile seed --cap-add kill --cap-drop kill", "kill is both given and taken away"),
    ],
)
def test_what_is_wrong_is_refused(
    run: Callable[..., tuple[str, str]], words: str, said: str
) -> None:
    _, err = run(f"harden {words}", status=2)
    assert said in err
    assert policy(run) is None


def test_a_name_that_nobody_has_is_not_hardened(run: Callable[..., tuple[str, str]]) -> None:
    _, err = run("harden wbe --profile seed", status=1)
    assert "did you mean web?" in err


def test_the_words_of_the_documents_are_those_of_the_options(
    run: Callable[..., tuple[str, str]],
) -> None:
    run("harden web seccomp:deny:getcwd seccomp:allow:clock_adjtime --profile default")
    words = policy(run)
    run("harden web --profile default --deny-syscall getcwd --allow-syscall clock_adjtime")
    assert policy(run) == words
    run("harden web seccomp:deny:all,seccomp:allow:read --profile default")
    assert (policy(run)["deny_syscalls"], policy(run)["allow_syscalls"]) == (["all"], ["read"])
    _, err = run("harden web seccomp:maybe:read --profile default", status=2)
    assert "'seccomp:maybe:read' is not seccomp:allow:NAME or seccomp:deny:NAME" in err


def test_a_filter_that_is_no_longer_that_of_the_policy_is_found(
    root: Path, run: Callable[..., tuple[str, str]]
) -> None:
    own = root / "usr/share/containers/seccomp.json"
    own.parent.mkdir(parents=True)
    calls = [{"names": ["read", "socket", "kcmp", "getcwd"], "action": "SCMP_ACT_ALLOW"}]
    own.write_text(json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": calls}))
    run("harden web --profile seed")
    here("render", "podman", "web", "--root", root, "--out", root)
    file = root / "etc/usernsplan/seccomp/web.json"
    assert run("check --select USN187")[0] == "No problems found.\n"

    run("harden web --profile seed --deny-syscall getcwd")
    assert "is not that of its policy: it lets other system calls through" in run("check")[0]
    here("render", "podman", "web", "--root", root, "--out", root, "--replace-files")
    assert "USN187" not in run("check")[0]

    file.write_text("{")
    assert "is not that of its policy: is not JSON" in run("check")[0]
    file.write_text(own.read_text())
    assert "it lets other system calls through" in run("check")[0]


def test_a_filter_that_refuses_more_than_is_asked_for_now_is_named_by_render_alone(
    root: Path, run: Callable[..., tuple[str, str]]
) -> None:
    """The base may refuse it, too, and only render knows the base."""
    own = root / "usr/share/containers/seccomp.json"
    own.parent.mkdir(parents=True)
    calls = [{"names": ["read", "socket", "getcwd"], "action": "SCMP_ACT_ALLOW"}]
    own.write_text(json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": calls}))
    run("harden web --profile seed --deny-syscall getcwd")
    here("render", "podman", "web", "--root", root, "--out", root)
    run("harden web --profile seed")
    assert run("check --select USN187")[0] == "No problems found.\n"
    assert (
        "What a filter refuses beyond the policy is not found" in run("check --explain USN187")[0]
    )
    assert "web.json is not the filter of this policy" in run("render podman web")[1]


def test_a_pool_of_an_engine_has_no_policy(run: Callable[..., tuple[str, str]]) -> None:
    run("allocate --engine podman-auto")
    _, err = run("harden containers --profile seed", status=2)
    assert "is the pool of podman-auto" in err


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ("--cap-add sys_admin,kill", "the capability sys_admin"),
        ("--cap-add all", "the capability all"),
        ("--allow-syscall kcmp", "the system call kcmp"),
        ("--allow-new-privileges", "setuid programs that raise its privileges"),
    ],
)
def test_what_a_policy_gives_is_named(
    run: Callable[..., tuple[str, str]], words: str, given: str
) -> None:
    _, err = run(f"harden web --profile seed {words}")
    assert f"allows {given} [USN182]" in err
    _, err = run("harden web --profile seed --cap-add kill")
    assert "USN182" not in err


def test_each_range_has_a_level_of_its_own_and_keeps_it(
    run: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    file = tmp_path / "usernsplan.yaml"
    names = [f"c{number}" for number in range(1100)]
    file.write_text(
        "strategy: per-container\nengines: []\nharden: strict\n"
        f"containers: [web, {{name: db, harden: {{profile: seed, selinux-level: 's0:c0,c2'}}}}, {', '.join(names)}]\n"
    )
    run(f"apply {file} --yes")
    every = {
        one["name"]: one["policy"]["selinux_level"]
        for one in json.loads(run("list --json")[0])["allocations"]
    }
    assert len({*every.values()}) == len(every) == 1102
    assert every["db"] == "s0:c0,c2"
    assert "Already up to date" in run(f"plan {file}")[0]

    run("harden web --profile default")
    assert policy(run) == {"profile": "default", "selinux_level": every["web"]}
    run("harden web --profile default --selinux-level s0:c5")
    assert policy(run)["selinux_level"] == "s0:c5"


def test_the_level_of_a_single_uid_is_openshifts(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    here("allocate", "--strategy", "single-uid", "web", "--root", tmp_path)
    here("harden", "web", "--profile", "strict", "--root", tmp_path)
    shown = json.loads(here("show", "web", "--json", "--root", tmp_path)[0])
    assert shown["allocations"][0]["policy"] == {"profile": "strict"}
