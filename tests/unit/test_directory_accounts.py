"""Accounts that a directory service knows and does not list: asked for, they count as any other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.states import Directory, asked, per_container, same_lines, state
from usernsplan import (
    HostState,
    IdRange,
    ReleaseRequest,
    SingleUid,
    make_plan,
    make_release,
    render,
)
from usernsplan.audit import check
from usernsplan.audit.base import Facts
from usernsplan.engines.base import RenderContext
from usernsplan.errors import RefusedError
from usernsplan.formats.accounts import Group, User
from usernsplan.planner.directory import with_owners
from usernsplan.planner.repair import make_repair

FIRST, SECOND, THIRD = 589824, 655360, 720896
CARL = User("carl", 70001, 70001)
SSS = b"passwd: files sss\n"
CARLS = replace(per_container("web", FIRST, owner="carl"))


def host(
    *users: User,
    lines: bytes = b"",
    groups: tuple[Group, ...] = (),
    root: str = "/",
    **words: object,
) -> HostState:
    directory = Directory(*users, groups=groups) if root == "/" else None
    made = state(**same_lines(lines), nsswitch=SSS, directory=directory, root=root)
    return replace(made, **words)  # type: ignore[arg-type]


def codes(found: HostState) -> set[str]:
    owners = {line.owner for file in (found.subuid, found.subgid) for line in file.lines}  # type: ignore[union-attr]
    return {one.code for one in check(Facts(with_owners(found, owners)))} - {"USN011"}


def first_of(found: HostState, *names: str, **words: object) -> list[int]:
    plan = make_plan(found, replace(asked(*names), **words))  # type: ignore[arg-type]
    return [a.mapping.uids[0].host for a in plan.allocations]


# The owner of lines


def test_a_usual_owner_that_is_such_an_account_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"^/etc/nsswitch\.conf: 'usernsplan-web' is an account"):
        make_plan(host(User("usernsplan-web", 70002, 70002)), asked("web"))


def test_such_an_owner_needs_no_warning_and_can_run_its_own_containers() -> None:
    plan = make_plan(host(CARL), replace(asked("web"), owner="carl"))
    assert {"USN118", "USN146"}.isdisjoint(one.code for one in plan.findings)
    assert any("render rootless web" in step for step in plan.next_steps)
    context = RenderContext(host(CARL, lines=b"carl:589824:65536\n"), rootless=True)
    assert "--uidmap" in render("podman", CARLS, context).text


def test_the_range_of_such_an_owner_does_not_contain_its_own_ids() -> None:
    assert first_of(host(User("carl", FIRST + 5, 100)), "web", owner="carl") == [SECOND]
    assert first_of(host(User("carl", 100, FIRST + 5)), "web", owner="carl") == [SECOND]


def test_a_line_with_the_uid_of_such_an_owner_is_its_line() -> None:
    found = host(CARL, lines=b"70001:800000:65536\n")
    with pytest.raises(RefusedError, match="carl has '70001:800000:65536'"):
        make_plan(found, replace(asked("web"), owner="carl"))
    found = replace(found, ledger=replace(found.ledger, allocations=(CARLS,)))
    [left] = make_repair(found).findings
    assert "carl has other lines" in left.message
    [gone, _] = (
        one
        for one in make_release(found, ReleaseRequest(("web",))).findings
        if one.code == "USN111"
    )
    assert "'70001:800000:65536' stays" in gone.message


def test_lost_lines_of_such_an_owner_are_restored() -> None:
    found = host(CARL)
    found = replace(found, ledger=replace(found.ledger, allocations=(CARLS,)))
    assert make_repair(found).restored == ("web",)
    nobody = replace(found, accounts=host().accounts)
    assert make_repair(nobody).restored == ()


def test_dockers_user_is_not_made_again_where_the_service_has_it() -> None:
    dockremap, group = User("dockremap", 70003, 70003), Group("dockremap", 70003)
    commands = [
        make_plan(found, asked()).account_commands
        for found in (host(), host(dockremap), host(dockremap, groups=(group,)))
    ]
    assert [[words[0] for words in made] for made in commands] == [["useradd"], ["groupadd"], []]


# check


def test_check_knows_such_owners() -> None:
    assert codes(host(CARL, lines=b"carl:100000:65536\n")) == set()
    assert codes(host(CARL, lines=b"70001:100000:65536\n")) == set()
    assert codes(host(lines=b"carl:100000:65536\n")) == {"USN020"}
    assert codes(host(lines=b"70001:100000:65536\n")) == {"USN021"}


@pytest.mark.parametrize("owner", ["carl", "70001"])
def test_check_sees_their_own_ids_in_their_range(owner: str) -> None:
    found = host(CARL, lines=f"{owner}:65537:65536\n".encode())
    assert "USN008" in codes(found)


def test_check_sees_what_they_can_become_and_who_can_become_them() -> None:
    assert "USN006" in codes(host(CARL, lines=b"carl:0:65536\n"))
    # dora's range contains carl, who has a line as well.
    dora = User("dora", 70002, 70002)
    assert "USN006" in codes(host(CARL, dora, lines=b"carl:800000:65536\ndora:69632:1024\n"))


# The ids of a new range


@pytest.mark.parametrize("number", [FIRST, FIRST + 65535])
def test_a_range_whose_first_or_last_id_such_an_account_has_is_not_given_out(number: int) -> None:
    assert first_of(host(User("dora", number, 100)), "web", "db") == [SECOND, THIRD]
    assert first_of(host(groups=(Group("staff", number),)), "web", "db") == [SECOND, THIRD]
    with pytest.raises(RefusedError, match=f"is not free: {number} is an account or a group"):
        make_plan(host(User("dora", number, 100)), replace(asked("web"), start=FIRST))


def test_a_pool_full_of_such_accounts_is_an_error_and_no_endless_search() -> None:
    people = [User(f"u{n}", FIRST + n * 65536, 100) for n in range(1000)]
    with pytest.raises(RefusedError, match="sss") as caught:
        make_plan(host(*people), asked("web"))
    assert "--pool" in caught.value.hint


def test_one_more_name_beside_thousands_asks_only_for_itself() -> None:
    many = [per_container(f"c{n}", SECOND + n * 65536) for n in range(3000)]
    lines = b"".join(
        b"usernsplan-%s:%d:65536\n" % (a.name.encode(), a.mapping.uids[0].host) for a in many
    )
    found = host(lines=lines)
    found = replace(found, ledger=replace(found.ledger, allocations=tuple(many)))
    directory = Directory()
    found = replace(found, accounts=replace(found.accounts, directory=directory))
    make_plan(found, asked("web"))
    assert set(directory.asked) == {"usernsplan-web", FIRST, FIRST + 65535}


def test_a_host_whose_accounts_are_all_listed_is_asked_nothing() -> None:
    found = state(nsswitch=b"passwd: files systemd\n")
    assert found.accounts.directory is None
    assert with_owners(found, ["carl"]) is found


# Another root, whose service cannot be asked


ROOT = "/srv/image"


def test_of_another_root_nothing_is_claimed_about_such_accounts() -> None:
    found = host(lines=b"carl:800000:65536\n70001:900000:65536\n", root=ROOT)
    assert codes(found) == {"USN094"}
    [one] = [one for one in check(Facts(found)) if one.code == "USN094"]
    assert (one.place, "carl" in one.message) == (f"{ROOT}/etc/nsswitch.conf:1", True)
    assert "USN094" not in codes(
        host(lines=b"alice:800000:65536\nusernsplan-web:900000:65536\n", root=ROOT)
    )
    assert "USN020" in codes(replace(found, accounts=state(root=ROOT).accounts))


def test_of_another_root_an_owner_is_named_as_unknown() -> None:
    plan = make_plan(host(root=ROOT), replace(asked("web"), owner="carl"))
    [one] = [one for one in plan.findings if one.code in {"USN118", "USN146"}]
    assert (one.code, "sss" in one.message) == ("USN146", True)
    assert "USN118" in {
        one.code
        for one in make_plan(state(root=ROOT), replace(asked("web"), owner="carl")).findings
    }


def test_of_another_root_a_lost_line_is_left_to_the_host_itself() -> None:
    found = host(root=ROOT)
    found = replace(found, ledger=replace(found.ledger, allocations=(CARLS,)))
    [one] = make_repair(found).findings
    assert "no longer" not in one.message
    assert "sss" in one.message


def test_of_another_root_no_rootless_engine_is_told_that_its_owner_cannot_log_in() -> None:
    with pytest.raises(RefusedError, match="can only be asked on the host itself"):
        render("podman", CARLS, RenderContext(host(root=ROOT), rootless=True))
    with pytest.raises(RefusedError, match="cannot log in"):
        render("podman", CARLS, RenderContext(state(root=ROOT), rootless=True))


def test_dockers_user_of_such_a_service_is_no_error() -> None:
    daemon = b'{"userns-remap": "carl", "no-new-privileges": true}'
    lines = b"carl:800000:65536\n"
    group = (Group("carl", 70001),)
    assert codes(host(CARL, lines=lines, groups=group, daemon_json=daemon)) == set()
    assert codes(host(CARL, lines=lines, daemon_json=daemon)) == {"USN042"}
    assert "USN041" in codes(host(lines=lines, daemon_json=daemon))
    assert codes(host(lines=lines, root=ROOT, daemon_json=daemon)) == {"USN094"}


def test_the_id_of_a_small_block_is_asked_for_once() -> None:
    found = host(User("dora", 1000000000, 100))
    assert first_of(found, "web", strategy=SingleUid(block=1), pool=IdRange(1000000000, 10)) == [
        1000000001
    ]
