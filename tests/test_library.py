"""The package as a library."""

from __future__ import annotations

import inspect
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import usernsplan


def test_every_name_that_is_offered_can_be_had_and_says_what_it_is() -> None:
    for name in usernsplan.__all__:
        assert inspect.getdoc(getattr(usernsplan, name)), name


def test_a_name_that_is_not_offered_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        usernsplan.nothing  # noqa: B018


def test_every_error_is_offered() -> None:
    from usernsplan import errors  # noqa: PLC0415

    assert {name for name in vars(errors) if name.endswith("Error")} <= set(usernsplan.__all__)


def test_threads_of_one_program_allocate_one_after_another(tmp_path: Path) -> None:
    def allocate(number: int) -> int:
        request = usernsplan.AllocateRequest(
            names=(f"c{number:02}",), strategy=usernsplan.PerContainer()
        )
        return usernsplan.allocate(request, root=str(tmp_path)).allocations[0].mapping.uids[0].host

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(allocate, range(12))) == [589824 + 65536 * n for n in range(12)]
    assert (tmp_path / "etc/subuid").read_text().count("\n") == 12


def test_a_host_is_checked_by_all_rules_or_by_some(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    for name in ("subuid", "subgid"):
        (tmp_path / "etc" / name).write_text("alice:100000:65536\nbob:150000:65536\n")
    (tmp_path / "etc/passwd").write_text(
        "alice:x:1000:1000::/:/bin/sh\nbob:x:1001:1001::/:/bin/sh\n"
    )
    found = usernsplan.check(str(tmp_path), {"USN001"})
    assert [(f.code, f.place) for f in found] == [
        ("USN001", f"{tmp_path}/etc/{n}:2") for n in ("subuid", "subgid")
    ]
    assert set(found) <= set(usernsplan.check(str(tmp_path)))
    assert sorted(os.listdir(tmp_path)) == ["etc"]


def test_a_policy_is_given_and_taken_away(tmp_path: Path) -> None:
    # The package of this name is imported by then, and must not hide anything that is offered.
    import usernsplan.harden.policy  # noqa: PLC0415

    root = str(tmp_path)
    usernsplan.allocate(
        usernsplan.AllocateRequest(names=("web",), strategy=usernsplan.PerContainer()), root=root
    )
    said = {"profile": "seed", "cap_add": ["net_raw"], "selinux_level": "s0:c1,c2"}
    policy = usernsplan.policy_of(said)
    assert usernsplan.set_policy("web", policy, root).changed
    assert not usernsplan.set_policy("web", policy, root).changed
    [web] = usernsplan.open_ledger(usernsplan.layout_at(root)).state().allocations
    assert web.policy == policy
    assert usernsplan.set_policy("web", None, root).changed
    [web] = usernsplan.open_ledger(usernsplan.layout_at(root)).state().allocations
    assert web.policy is None
