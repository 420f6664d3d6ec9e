"""What render makes of a policy on a host: the matrix, the base, the filter in its place, and without it all."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.command import here, json_of, usernsplan
from usernsplan.engines import ENGINES
from usernsplan.engines.base import PARTS

SEED = ("--profile", "seed")
FILTER = "etc/usernsplan/seccomp/web.json"
OWN = '{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with web, and with Podman's own profile."""
    root = tmp_path / "host"
    here("allocate", "web", "--strategy", "per-container", "--engine", "podman", "--root", root)
    own = root / "usr/share/containers/seccomp.json"
    own.parent.mkdir(parents=True)
    own.write_text(OWN)
    return root


def _rules(root: Path) -> list[object]:
    rules: list[object] = json.loads((root / FILTER).read_text())["syscalls"]
    return rules


def test_the_matrix_has_each_part_that_the_policy_asks_for(root: Path) -> None:
    before = here("render", "--list", "web", "--root", root)
    assert all(
        "policy" not in row for row in json_of("render", "--list", "web", "--root", root)["engines"]
    )
    here("harden", "web", *SEED, "--selinux-level", "s0:c1,c2", "--root", root)
    rows = {
        row["engine"]: row for row in json_of("render", "--list", "web", "--root", root)["engines"]
    }
    assert list(rows) == list(ENGINES)
    for name, row in rows.items():
        assert ("policy" in row) == (row["fit"] != "no"), name
        parts = row.get("policy", [])
        assert [one["part"] for one in parts] == list(PARTS if parts else ()), name
        assert all((one["fit"] == "exactly") == (one["why"] == "") for one in parts), name
    fits = {one["part"]: one["fit"] for one in rows["podman"]["policy"]}
    assert set(fits.values()) == {"exactly"}
    # Nobody has a bundle here, so the answer is for those who do.
    assert {one["fit"] for one in rows["oci"]["policy"]} == {"exactly"}

    text, _ = here("render", "--list", "web", "--root", root)
    matrix, _, reasons = text.partition("\n\n")
    assert matrix.splitlines()[0].split()[2:] == " ".join(PARTS).split()
    assert len(matrix.splitlines()) == len(ENGINES) + 2
    [podman] = [line for line in matrix.splitlines() if line.startswith("podman ")]
    assert podman.split()[1:] == ["exactly"] * 7
    # What is exact needs no reason.
    told = [line.split()[0] for line in reasons.splitlines()]
    assert "podman" not in told
    assert "uid_map" in told

    here("harden", "web", "--none", "--root", root)
    assert here("render", "--list", "web", "--root", root) == before


def test_parts_that_nobody_asks_for_are_not_in_the_matrix(root: Path) -> None:
    here("harden", "web", "--profile", "default", "--root", root)
    text, _ = here("render", "--list", "web", "--root", root)
    # A container with a range of its own has an SELinux level of its own.
    parts = ["capabilities", "no_new_privs", "label"]
    assert text.splitlines()[0].split() == ["engine", "'web'", *parts]


def test_without_the_policy_render_prints_what_it_printed(root: Path) -> None:
    engines = ("podman", "quadlet", "docker", "compose", "containerd", "oci", "uid_map")
    before = [here("render", name, "web", "--root", root) for name in engines]
    here("harden", "web", *SEED, "--root", root)
    hardened = [here("render", name, "web", "--root", root) for name in engines]
    assert not any(one == other for one, other in zip(before, hardened, strict=True))
    without = [here("render", name, "web", "--no-harden", "--root", root) for name in engines]
    assert without == before


def test_a_filter_is_named_until_it_is_in_its_place_and_again_once_it_is_another(
    root: Path,
) -> None:
    here("harden", "web", *SEED, "--root", root)
    _, said = here("render", "podman", "web", "--root", root)
    assert f"{root}/{FILTER} does not exist" in said
    _, _, write = said.partition("this writes it: ")
    here(*shlex.split(write)[1:])
    assert {"names": ["read"], "action": "SCMP_ACT_ALLOW"} in _rules(root)
    assert here("render", "podman", "web", "--root", root)[1] == ""

    here("harden", "web", *SEED, "--deny-syscall", "read", "--root", root)
    _, said = here("render", "podman", "web", "--root", root)
    assert f"{root}/{FILTER} is not the filter of this policy" in said
    _, _, write = said.partition("this writes it: ")
    here(*shlex.split(write)[1:])
    assert here("render", "podman", "web", "--root", root)[1] == ""
    assert {"names": ["read"], "action": "SCMP_ACT_ALLOW"} not in _rules(root)


@pytest.mark.parametrize(
    ("engine", "path", "content"),
    [
        (
            "podman",
            "etc/containers/containers.conf",
            '[containers]\nseccomp_profile = "/etc/own.json"\n',
        ),
        (
            "quadlet",
            "etc/containers/containers.conf.d/10-own.conf",
            "[containers]\n# seccomp_profile = '/not/this'\nseccomp_profile='/etc/own.json'\n",
        ),
        ("docker", "etc/docker/daemon.json", '{"seccomp-profile": "/etc/own.json"}'),
        ("compose", "etc/docker/daemon.json", '{"seccomp-profile": "/etc/own.json"}'),
    ],
)
def test_a_profile_that_the_host_names_for_the_engine_is_what_the_filter_is_laid_over(
    root: Path, engine: str, path: str, content: str
) -> None:
    here("harden", "web", *SEED, "--root", root)
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)
    _, said = here("render", engine, "web", "--root", root)
    # It is not the one that comes with the engine, even if it cannot be read.
    assert f"system calls, families, architectures: {engine} does not" in said
    (root / "etc/own.json").write_text(OWN.replace("read", "write"))
    here("render", engine, "web", "--out", root, "--root", root)
    assert {"names": ["write"], "action": "SCMP_ACT_ALLOW"} in _rules(root)


@pytest.fixture
def alices(tmp_path: Path) -> Path:
    """A host with web out of the lines of alice, whose Podman runs it."""
    root = tmp_path / "alices"
    own = root / "usr/share/containers/seccomp.json"
    own.parent.mkdir(parents=True)
    own.write_text(OWN)
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("alice:x:4242:4242::/home/alice:/bin/sh\n")
    (root / "etc/group").write_text("alice:x:4242:\n")
    here("allocate", "web", "--strategy", "per-container", "--owner", "alice", "--root", root)
    here("harden", "web", *SEED, "--root", root)
    return root


@pytest.mark.parametrize("engine", ["podman", "quadlet"])
@pytest.mark.parametrize(
    "path",
    [
        "home/alice/.config/containers/containers.conf",
        "home/alice/.config/containers/containers.conf.d/10-own.conf",
        "etc/containers/containers.rootless.conf",
        "etc/containers/containers.rootless.conf.d/10-own.conf",
        "etc/containers/containers.rootless.conf.d/4242/10-own.conf",
    ],
)
def test_a_login_has_its_own_profile_under_its_filter(alices: Path, engine: str, path: str) -> None:
    (alices / path).parent.mkdir(parents=True)
    (alices / path).write_text('[containers]\nseccomp_profile = "/home/alice/own.json"\n')
    _, said = here("render", engine, "web", "--rootless", "--root", alices)
    # It is not that of the host, even if it cannot be read.
    assert f"system calls, families, architectures: {engine} does not" in said

    own = alices / "home/alice/own.json"
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text(OWN.replace("read", "write"))
    here("render", engine, "web", "--rootless", "--out", alices, "--root", alices)
    assert {"names": ["write"], "action": "SCMP_ACT_ALLOW"} in _rules(alices)

    # Root's Podman reads none of these.
    here("render", engine, "web", "--out", alices, "--replace-files", "--root", alices)
    assert {"names": ["read"], "action": "SCMP_ACT_ALLOW"} in _rules(alices)


def test_without_a_home_nobody_knows_the_profile_of_a_login(alices: Path) -> None:
    text = here("render", "podman", "web", "--rootless", "--root", alices)[0]
    assert "seccomp=" in text
    (alices / "etc/passwd").write_text("alice:x:4242:4242:::/bin/sh\n")
    text, said = here("render", "podman", "web", "--rootless", "--root", alices)
    assert "seccomp=" not in text
    assert "system calls, families, architectures: podman does not" in said


def test_base_gives_the_profile_of_an_engine_that_has_none_on_disk(
    root: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base.json"
    base.write_text(OWN)
    _, said = here("render", "docker", "web", "--base", base, "--root", root, status=2)
    assert "'web' has none here" in said
    here("harden", "web", *SEED, "--root", root)
    _, said = here("render", "docker", "web", "--root", root)
    assert "system calls, families, architectures: docker does not" in said
    _, said = here("render", "docker", "web", "--base", base, "--root", root)
    assert "system calls" not in said
    assert f"--security-opt seccomp=/{FILTER}" in said
    # What writes the filter has to have the same base.
    assert f"--base {base} --out {root}" in said
    _, said = here(
        "render", "docker", "web", "--base", base, "--no-harden", "--root", root, status=2
    )
    assert "'web' has none here" in said


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "does not exist"), ("{", "is not JSON"), ('{"defaultAction": "x"}', "defaultAction")],
)
def test_a_base_that_is_none_stops_render_and_prints_flags_that_podman_refuses(
    root: Path, tmp_path: Path, content: str | None, why: str
) -> None:
    here("harden", "web", *SEED, "--root", root)
    base = tmp_path / "base.json"
    if content is not None:
        base.write_text(content)
    done = usernsplan("render", "podman", "web", "--base", base, "--root", root, status=None)
    assert done.returncode != 0
    assert done.stdout == "--userns=usernsplan-failed\n"
    assert str(base) in done.stderr
    assert why in done.stderr


def _table() -> dict[str, tuple[str, ...]]:
    """The table of README: the words of each engine, by part."""
    text = (Path(__file__).parents[2] / "README.md").read_text()
    _, _, rest = text.partition("| engine | capabilities | no_new_privs |")
    lines = rest.partition("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {
        engine: tuple(cell.split(":")[0] for cell in cells)
        for names, *cells in rows
        for engine in re.findall("`([a-z-]+)`", names)
    }


def test_the_table_of_readme_is_what_the_engines_say(tmp_path: Path) -> None:
    found = {}
    for strategy, name in (("per-container", "web"), ("single-uid", "one")):
        root = tmp_path / name
        for path, text in {
            "usr/share/containers/seccomp.json": OWN,
            "usr/share/lxc/config/common.seccomp": "2\ndenylist\n",
            "usr/share/lxc/config/pve-userns.seccomp": "2\ndenylist\n",
            "etc/docker/daemon.json": '{"selinux-enabled": true}',
        }.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        here("allocate", name, "--strategy", strategy, "--no-daemon-config", "--root", root)
        label = ("--selinux-type", "container_t", "--selinux-level", "s0:c1,c2")
        here("harden", name, *SEED, *label, "--root", root)
        for row in json_of("render", "--list", name, "--root", root)["engines"]:
            if row["engine"] not in found and row.get("policy"):
                found[row["engine"]] = tuple(one["fit"] for one in row["policy"])

    said = {"yes": "exactly", "nearly": "approximately", "no": "no", "with `--base`": "no"}
    assert {engine: tuple(map(said.get, cells)) for engine, cells in _table().items()} == {
        engine: fits for engine, fits in found.items() if engine not in {"uid_map", "gid_map"}
    }


@pytest.mark.parametrize("engine", ["docker", "docker-instance", "compose", "kubernetes"])
def test_with_a_base_the_parts_that_need_a_filter_are_enforced(
    root: Path, engine: str, tmp_path: Path
) -> None:
    here("harden", "web", *SEED, "--root", root)
    base = tmp_path / "base.json"
    base.write_text(OWN)
    told = here("render", engine, "web", "--base", base, "--root", root)[1]
    assert "system calls, families" not in told
    assert (
        "system calls, families, architectures: "
        in here("render", engine, "web", "--root", root)[1]
    )
