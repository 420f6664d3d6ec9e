"""The kubelet of a root: its configuration, its account, getsubids and its line, from the command line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.command import here
from tests.documents import document_in
from usernsplan.host import kubelet
from usernsplan.host.files import layout_at
from usernsplan.model import Kubelet

if TYPE_CHECKING:
    from pathlib import Path

LINE = "kubelet:1048576:8388608\n"
ACCOUNT = "kubelet:x:995:995::/nonexistent:/usr/sbin/nologin\n"
ACCOUNTS = "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"
CONFIG, DROPINS = "var/lib/kubelet/config.yaml", "etc/kubernetes/kubelet.conf.d"
WIDE = "kind: KubeletConfiguration\nuserNamespaces:\n  idsPerPod: 131072\n"
POOL = ("allocate", "--strategy", "per-container", "--engine", "kubernetes")


def put(root: Path, name: str, text: str = "") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def host(
    root: Path, line: str = "", *, account: bool = False, programs: tuple[str, ...] = ()
) -> Path:
    put(root, "etc/passwd", ACCOUNTS + ACCOUNT * account)
    put(root, "etc/group", "root:x:0:\nalice:x:1000:\n" + "kubelet:x:995:\n" * account)
    for name in ("subuid", "subgid"):
        put(root, f"etc/{name}", line)
    for program in programs:
        put(root, f"usr/bin/{program}")
    return root


def told(*words: str | Path) -> dict[str, Any]:
    return document_in(here(*words, "--json", status=None)[0])


def codes(root: Path, severity: str) -> list[str]:
    document = told("check", "--root", root)
    return [one["code"] for one in document["findings"] if one["severity"] == severity]


def allocated(root: Path, *words: str) -> dict[str, Any]:
    return told(*words, "--root", root)


def test_an_account_that_would_stop_the_kubelet_is_made_only_if_asked_for(tmp_path: Path) -> None:
    root = host(tmp_path, programs=("kubelet",))
    document = allocated(root, "allocate", "--strategy", "per-container", "web", "--dry-run")
    assert [one["name"] for one in document["allocations"]] == ["web"]
    assert "getsubids" in {one["code"]: one["message"] for one in document["findings"]}["USN124"]
    assert document["account_commands"] == []
    assert len(allocated(root, *POOL, "--dry-run")["account_commands"]) == 1
    put(root, "usr/bin/getsubids")
    document = allocated(root, "allocate", "--strategy", "per-container", "web", "--dry-run")
    assert [one["name"] for one in document["allocations"]] == ["web", "kubelet"]


def test_a_line_without_the_account_is_an_error(tmp_path: Path) -> None:
    assert codes(host(tmp_path, LINE, programs=("getsubids",)), "error") == ["USN096"]


def test_a_line_with_the_account_and_getsubids_is_in_order(tmp_path: Path) -> None:
    root = host(tmp_path, LINE, account=True, programs=("kubelet", "getsubids"))
    assert codes(root, "error") == []
    assert codes(root, "warning") == []


def test_a_line_with_the_account_and_without_getsubids_is_an_error(tmp_path: Path) -> None:
    assert codes(host(tmp_path, LINE, account=True), "error") == ["USN097"]


def test_a_kubelet_without_a_line_is_a_warning_beside_our_allocations(tmp_path: Path) -> None:
    root = host(tmp_path, programs=("kubelet", "podman"))
    assert "USN098" not in codes(root, "warning")
    words = ("allocate", "--strategy", "per-container", "web", "--engine", "podman")
    here(*words, "--root", root)
    assert "USN098" in codes(root, "warning")


def test_parts_of_the_configuration_replace_each_other_by_name(tmp_path: Path) -> None:
    put(tmp_path, CONFIG, WIDE + "maxPods: 50\n")
    put(tmp_path, f"{DROPINS}/20-more.conf", "userNamespaces: {idsPerPod: 262144}\n")
    put(tmp_path, f"{DROPINS}/10-some.conf", "userNamespaces: {idsPerPod: 65536}\n")
    put(tmp_path, f"{DROPINS}/30-none.yaml", "userNamespaces: {idsPerPod: 5}\n")
    put(tmp_path, "usr/bin/getsubids")
    assert kubelet.read(layout_at(str(tmp_path))) == Kubelet(
        262144, 50, f"{tmp_path}/{DROPINS}/20-more.conf:1", has_getsubids=True
    )


def test_without_a_configuration_the_kubelet_has_its_defaults(tmp_path: Path) -> None:
    assert kubelet.read(layout_at(str(tmp_path))) == Kubelet(65536, 110, has_getsubids=False)


def test_what_cannot_be_read_stops_only_what_depends_on_it(tmp_path: Path) -> None:
    root = host(tmp_path, account=True, programs=("getsubids", "kubelet"))
    put(root, CONFIG, "userNamespaces: {idsPerPod: 100000}\n")
    error = here(*POOL, "--root", root, status=9)[1]
    assert "config.yaml:1: userNamespaces.idsPerPod: 100000 is not" in error
    assert "--ids-per-pod 65536" in error
    assert "USN099" in codes(root, "warning")
    # Nobody asked for the kubelet's pool: it is left out, with the reason.
    document = allocated(root, "allocate", "--strategy", "per-container", "web")
    assert [one["name"] for one in document["allocations"]] == ["web"]
    assert [one["code"] for one in document["findings"]] == ["USN124"]
    here(*POOL, "--ids-per-pod", "65536", "--root", root)


def test_the_name_of_a_file_does_not_reach_the_terminal_as_it_is(tmp_path: Path) -> None:
    root = host(tmp_path)
    put(root, f"{DROPINS}/a\x1b[31m.conf", "maxPods: no\n")
    assert "\x1b[31m" not in here("check", "--root", root, status=None)[0]
    assert "\x1b[31m" not in here(*POOL, "--root", root, status=9)[1]


@pytest.mark.parametrize("what", ["folder", "loop", "pipe"])
def test_a_configuration_that_is_no_file_is_not_taken_for_none(tmp_path: Path, what: str) -> None:
    root = host(tmp_path)
    path = root / CONFIG
    path.parent.mkdir(parents=True)
    if what == "folder":
        path.mkdir()
    elif what == "loop":
        path.symlink_to(path.name)
    else:
        os.mkfifo(path)
    assert "USN099" in codes(root, "warning")


def test_the_pool_is_pods_times_ids_at_a_multiple_of_them(tmp_path: Path) -> None:
    root = host(tmp_path, account=True, programs=("getsubids",))
    document = allocated(root, *POOL, "--pods", "10", "--ids-per-pod", "131072")
    # The first multiple of 131072 from 589824 on, and 10 times 131072.
    assert (root / "etc/subuid").read_text() == "kubelet:655360:1310720\n"
    assert [one["code"] for one in document["findings"]] == ["USN147"]
    put(root, CONFIG, WIDE + "maxPods: 10\n")
    assert [code for code in codes(root, "error") if code != "USN097"] == []
    assert "USN027" not in codes(root, "warning")
    # Without options it stays as it is.
    assert not allocated(root, *POOL)["changed"]


def test_the_configuration_says_how_large_the_pool_is(tmp_path: Path) -> None:
    root = host(tmp_path, account=True, programs=("getsubids", "kubelet"))
    put(root, CONFIG, WIDE + "maxPods: 20\n")
    document = allocated(root, *POOL)
    assert (root / "etc/subuid").read_text() == f"kubelet:655360:{20 * 131072}\n"
    assert document["findings"] == []
    assert codes(root, "error") == []
    assert codes(root, "warning") == []


def test_a_pool_for_an_account_that_cannot_use_it_comes_with_a_warning(tmp_path: Path) -> None:
    document = allocated(host(tmp_path, account=True), *POOL)
    assert [one["code"] for one in document["findings"]] == ["USN148"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*POOL, "--ids-per-pod", "100000"), "a multiple of 65536"),
        ((*POOL, "--ids-per-pod", "0"), "a multiple of 65536"),
        ((*POOL, "--ids-per-pod", "-65536"), "a multiple of 65536"),
        (("allocate", "web", "--ids-per-pod", "131072"), "--ids-per-pod needs its engine"),
    ],
)
def test_a_number_that_the_kubelet_refuses_is_refused(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    more = (
        ()
        if words[0:2] != ("allocate", "web")
        else ("--strategy", "per-container", "--engine", "podman")
    )
    error = here(*words, *more, "--root", host(tmp_path, account=True), status=2)[1]
    assert said in error


PLAN = """\
strategy: per-container
engines:
  - {name: kubernetes, containers: 10, ids-per-pod: 131072}
containers: []
"""


def test_a_plan_file_says_it_too_and_an_export_repeats_it(tmp_path: Path) -> None:
    root = host(tmp_path / "root", account=True, programs=("getsubids",))
    put(root, CONFIG, WIDE)
    plan = tmp_path / "plan.yaml"
    plan.write_text(PLAN)
    here("apply", plan, "--yes", "--root", root)
    assert (root / "etc/subuid").read_text() == "kubelet:655360:1310720\n"
    here("plan", plan, "--check", "--root", root)
    plan.write_text(here("export", "--root", root)[0])
    assert "ids-per-pod: 131072" in plan.read_text()
    here("plan", plan, "--check", "--root", root)


def test_a_pool_from_before_the_configuration_changed_is_exported_as_it_is(tmp_path: Path) -> None:
    root = host(tmp_path / "root", account=True, programs=("getsubids",))
    here(*POOL, "--pods", "3", "--root", root)
    put(root, CONFIG, WIDE)
    plan = tmp_path / "plan.yaml"
    plan.write_text(here("export", "--root", root)[0])
    here("plan", plan, "--check", "--root", root)


def test_a_plan_file_gives_no_other_engine_a_number_of_ids(tmp_path: Path) -> None:
    root = host(tmp_path / "root")
    plan = tmp_path / "plan.yaml"
    plan.write_text(PLAN.replace("kubernetes", "podman-auto"))
    error = here("plan", plan, "--root", root, status=2)[1]
    assert "podman-auto gives each of its containers 65536 ids" in error


def test_config_yaml_says_it_for_the_host(tmp_path: Path) -> None:
    root = host(tmp_path, account=True, programs=("getsubids",))
    text = "engines: [{name: kubernetes, containers: 2, ids-per-pod: 131072}]\n"
    put(root, "etc/usernsplan/config.yaml", text)
    here("allocate", "--strategy", "per-container", "web", "--root", root)
    assert "kubelet:655360:262144\n" in (root / "etc/subuid").read_text()
