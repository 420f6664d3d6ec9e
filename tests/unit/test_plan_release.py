"""release: whose lines go, what is kept back, and what becomes of Docker."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.states import (
    PASSWD,
    REMAPPED,
    asked,
    carried_out,
    per_container,
    same_lines,
    shared,
    state,
)
from usernsplan import (
    HostState,
    IdRange,
    IdSet,
    PerContainer,
    Plan,
    ReleaseRequest,
    Shared,
    SingleUid,
    make_plan,
    make_release,
)
from usernsplan.errors import RefusedError, UnknownNameError
from usernsplan.layout import DAEMON_JSON, SUBGID, SUBUID
from usernsplan.model import MOUNT, LedgerChange, Quarantined, Unlisted, Volume

FIRST, SECOND, THIRD = 589824, 655360, 720896
OURS = b"usernsplan-web:589824:65536\n"
DEFAULT = per_container("default", FIRST, owner="dockremap")
DOCKER_LINES = b"dockremap:589824:65536\n"


def codes(plan: Plan) -> set[str]:
    return {finding.code for finding in plan.findings}


def test_the_lines_go_and_the_range_is_kept_back() -> None:
    host = state(
        **same_lines(b"bob:1:1\n" + OURS + b"eve:2:2\n"), allocations=[per_container("web", FIRST)]
    )
    plan = make_release(host, ReleaseRequest(("web",)))
    assert plan.kind == "release"
    assert [(c.path, c.after) for c in plan.changes] == [
        (SUBUID, b"bob:1:1\neve:2:2\n"),
        (SUBGID, b"bob:1:1\neve:2:2\n"),
    ]
    assert plan.ledger == LedgerChange(
        remove=("web",), quarantine=(("web", IdRange(FIRST, 65536)),)
    )
    assert plan.allocations == host.ledger.allocations
    assert plan.findings == ()
    assert any("release --forget web" in step for step in plan.next_steps)


@pytest.mark.parametrize(
    "others",
    [
        b"bob:589824:65536\n",
        b"usernsplan-web2:589824:65536\n",
        b"usernsplan-we:589824:65536\n",
        b"#usernsplan-web:589824:65536\n",
        b"# junk\r\n\n\xff\xfe\nbob:x\n",
        b"usernsplan-WEB:589824:65536\n",
        b"bob:1:1",
    ],
    ids=[
        "the same ids",
        "a longer name",
        "a shorter name",
        "commented out",
        "junk",
        "capitals",
        "no final newline",
    ],
)
def test_what_others_wrote_is_never_touched(others: bytes) -> None:
    host = state(OURS + others, OURS + others, allocations=[per_container("web", FIRST)])
    plan = make_release(host, ReleaseRequest(("web",)))
    assert [c.after for c in plan.changes] == [others, others]


@pytest.mark.parametrize(
    "line",
    [
        b"usernsplan-web:765536:65536\n",
        b"usernsplan-web:0x90000:65536\n",
        b"usernsplan-web:589824:65535\n",
    ],
    ids=["another range", "hexadecimal", "another count"],
)
def test_a_line_of_our_owner_that_we_did_not_write_stays_and_is_named(line: bytes) -> None:
    host = state(OURS + line, OURS, allocations=[per_container("web", FIRST)])
    plan = make_release(host, ReleaseRequest(("web",)))
    assert [c.after for c in plan.changes] == [line, b""]
    [finding] = [f for f in plan.findings if f.code == "USN111"]
    assert finding.message.startswith("/etc/subuid:2: ")


def test_a_line_of_ours_that_lost_its_line_end_goes_too() -> None:
    host = state(
        **same_lines(b"bob:1:1\nusernsplan-web:589824:65536"),
        allocations=[per_container("web", FIRST)],
    )
    plan = make_release(host, ReleaseRequest(("web",)))
    assert [c.after for c in plan.changes] == [b"bob:1:1\n", b"bob:1:1\n"]


def test_lines_that_are_gone_already_are_said_and_the_rest_is_released() -> None:
    host = state(b"", OURS, allocations=[per_container("web", FIRST)])
    plan = make_release(host, ReleaseRequest(("web",)))
    assert [(c.path, c.after) for c in plan.changes] == [(SUBGID, b"")]
    [finding] = [f for f in plan.findings if f.code == "USN110"]
    assert finding.message.startswith("/etc/subuid: ")
    assert plan.ledger.remove == ("web",)


def test_files_that_are_gone_are_not_made_anew() -> None:
    plan = make_release(
        state(None, None, allocations=[per_container("web", FIRST)]), ReleaseRequest(("web",))
    )
    assert plan.changes == ()
    assert plan.ledger.remove == ("web",)


def test_all_lines_of_a_shared_allocation_go_in_whatever_order_they_are() -> None:
    lines = b"dockremap:2:1\nbob:1:1\ndockremap:3:65533\ndockremap:589824:2\n"
    default = shared(
        "default",
        (0, 2, 1),
        (1, FIRST, 2),
        (3, 3, 65533),
        owner="dockremap",
        reserved_range=IdRange(FIRST, 2),
    )
    plan = make_release(
        state(**same_lines(lines), allocations=[default]), ReleaseRequest(("default",))
    )
    assert [c.after for c in plan.changes] == [b"bob:1:1\n"] * 2
    assert plan.ledger.quarantine == (("default", IdRange(FIRST, 2)),)


def test_what_took_nothing_from_the_pool_leaves_nothing_behind() -> None:
    host = carried_out(state(), make_plan(state(), asked("web", strategy=Shared())))
    plan = make_release(host, ReleaseRequest(("web",)))
    assert plan.ledger == LedgerChange(remove=("web",))
    assert [c.after for c in plan.changes] == [b"", b""]
    assert plan.next_steps == ()


def test_what_is_in_the_ledger_only_is_released_without_touching_a_file() -> None:
    host = carried_out(state(), make_plan(state(), asked("web", strategy=Shared(max=4294967294))))
    plan = make_release(host, ReleaseRequest(("web",)))
    assert (plan.changes, plan.findings) == ((), ())
    assert plan.ledger.remove == ("web",)


@pytest.mark.parametrize(
    "names", [("db",), ("web", "db"), ("db", "web"), ("Web",), ("",), ("usernsplan-web",)]
)
def test_a_name_that_is_unknown_is_an_error_and_nothing_is_released(names: tuple[str, ...]) -> None:
    host = state(**same_lines(OURS), allocations=[per_container("web", FIRST)])
    with pytest.raises(UnknownNameError, match="nothing was released"):
        make_release(host, ReleaseRequest(names))


def test_what_is_released_is_unknown_from_then_on() -> None:
    host = state(**same_lines(OURS), allocations=[per_container("web", FIRST)])
    host = carried_out(host, make_release(host, ReleaseRequest(("web",))))
    with pytest.raises(UnknownNameError):
        make_release(host, ReleaseRequest(("web",)))


def test_a_name_that_is_given_twice_is_released_once() -> None:
    host = state(**same_lines(OURS), allocations=[per_container("web", FIRST)])
    plan = make_release(host, ReleaseRequest(("web", "web")))
    assert plan.ledger.remove == ("web",)
    assert len(plan.ledger.quarantine) == 1
    assert plan.findings == ()


# Quarantine


def test_a_released_range_is_given_out_again_only_when_it_is_forgotten() -> None:
    host = carried_out(state(), make_plan(state(), asked("web", "db")))
    host = carried_out(host, make_release(host, ReleaseRequest(("web",))))
    host = carried_out(host, make_plan(host, asked("new")))
    assert [a.reserved_range for a in host.ledger.allocations] == [
        IdRange(SECOND, 65536),
        IdRange(THIRD, 65536),
    ]
    plan = make_release(host, ReleaseRequest(("web",), forget=True))
    assert (plan.kind, plan.changes) == ("forget", ())
    assert plan.ledger == LedgerChange(forget=("web",))
    assert plan.changed
    host = carried_out(host, plan)
    assert make_plan(host, asked("other")).allocations[0].reserved_range == IdRange(FIRST, 65536)


def test_the_same_name_gets_its_range_back_and_no_other_name_does() -> None:
    host = carried_out(state(), make_plan(state(), asked("web")))
    host = carried_out(host, make_release(host, ReleaseRequest(("web",))))
    plan = make_plan(host, asked("new", "web"))
    assert [a.reserved_range for a in plan.allocations] == [
        IdRange(SECOND, 65536),
        IdRange(FIRST, 65536),
    ]
    assert plan.ledger.unkeep == (("web", IdRange(FIRST, 65536)),)
    assert carried_out(host, plan).ledger.quarantined == ()


def test_the_whole_block_of_a_single_uid_is_kept_back() -> None:
    host = carried_out(state(), make_plan(state(), asked("web", strategy=SingleUid())))
    host = carried_out(host, make_release(host, ReleaseRequest(("web",))))
    plan = make_plan(host, asked("new", strategy=SingleUid(block=1)))
    assert plan.allocations[0].reserved_range == IdRange(1000010000, 1)


@pytest.mark.parametrize("names", [("web",), ("old", "web")], ids=["it stands", "one of two"])
def test_only_what_is_kept_back_can_be_forgotten(names: tuple[str, ...]) -> None:
    kept = Quarantined("old", IdRange(SECOND, 65536), "")
    host = state(**same_lines(OURS), allocations=[per_container("web", FIRST)], quarantined=[kept])
    with pytest.raises(UnknownNameError, match="nothing was forgotten"):
        make_release(host, ReleaseRequest(names, forget=True))


def test_forgetting_a_name_that_stands_anew_leaves_it_standing() -> None:
    host = carried_out(state(), make_plan(state(), asked("web")))
    host = carried_out(host, make_release(host, ReleaseRequest(("web",))))
    host = carried_out(host, make_plan(host, asked("web", strategy=PerContainer(size=65535))))
    host = carried_out(host, make_release(host, ReleaseRequest(("web",), forget=True)))
    assert [a.reserved_range for a in host.ledger.allocations] == [IdRange(SECOND, 65535)]
    assert host.ledger.quarantined == ()
    assert host.subuid.raw == b"usernsplan-web:655360:65535\n"


# Docker


@pytest.mark.parametrize("value", ["dockremap", "default", "997", "dockremap:dockremap", "997:996"])
def test_docker_is_not_left_with_a_remap_user_without_lines(value: str) -> None:
    raw = b'{\n  "debug": true,\n  "userns-remap": "%s"\n}\n' % value.encode()
    host = state(**same_lines(DOCKER_LINES), daemon_json=raw, allocations=[DEFAULT], **REMAPPED)
    with pytest.raises(RefusedError, match=f'"userns-remap" is "{value}"') as caught:
        make_release(host, ReleaseRequest(("default",)))
    assert "--unset-remap" in caught.value.hint
    plan = make_release(host, ReleaseRequest(("default",), unset_remap=True))
    assert {c.path: c.after for c in plan.changes} == {
        SUBUID: b"",
        SUBGID: b"",
        DAEMON_JSON: b'{\n  "debug": true\n}\n',
    }
    assert any("systemctl restart docker" in step for step in plan.next_steps)


@pytest.mark.parametrize(
    "raw",
    [
        None,
        b"{}",
        b'{"userns-remap": "alice"}',
        b'{"userns-remap": "1000"}',
        b'{"userns-remap": ""}',
    ],
    ids=["no file", "no remap", "somebody else", "somebody else's uid", "off"],
)
@pytest.mark.parametrize("yes", [False, True])
def test_a_daemon_json_that_points_to_somebody_else_is_left_alone(
    raw: bytes | None, yes: bool
) -> None:
    host = state(**same_lines(DOCKER_LINES), daemon_json=raw, allocations=[DEFAULT], **REMAPPED)
    plan = make_release(host, ReleaseRequest(("default",), unset_remap=yes))
    assert [c.path for c in plan.changes] == [SUBUID, SUBGID]


def test_a_container_that_docker_does_not_use_is_released_without_a_question() -> None:
    host = carried_out(state(), make_plan(state(), asked("web", "db", daemon="db")))
    plan = make_release(host, ReleaseRequest(("web",)))
    assert [c.path for c in plan.changes] == [SUBUID, SUBGID]
    with pytest.raises(RefusedError, match="usernsplan-db"):
        make_release(host, ReleaseRequest(("web", "db")))


@pytest.mark.parametrize(
    ("before", "left"),
    [
        (b'{"debug": true}', b'{"debug": true}'),
        (
            b'{\n    "debug": true,\n    "ip": "::1"\n}\n',
            b'{\n    "debug": true,\n    "ip": "::1"\n}\n',
        ),
        (b"{}", b"{}"),
    ],
)
def test_allocate_and_release_leave_daemon_json_as_it_was(before: bytes, left: bytes) -> None:
    host = state(daemon_json=before, **REMAPPED)
    host = carried_out(host, make_plan(host, asked()))
    assert json.loads(host.daemon_json or b"")["userns-remap"] == "dockremap"
    host = carried_out(host, make_release(host, ReleaseRequest(("default",), unset_remap=True)))
    assert host.daemon_json == left


def test_a_broken_daemon_json_does_not_keep_a_container_from_being_released() -> None:
    # Its owner is an account, but not one that Docker was ever pointed at.
    alices = per_container("web", FIRST, owner="alice")
    host = state(**same_lines(b"alice:589824:65536\n"), daemon_json=b"{,}", allocations=[alices])
    try:
        plan = make_release(host, ReleaseRequest(("web",)))
    except Exception as error:  # noqa: BLE001 - whatever it is, its hint must be one that release understands
        assert "--no-daemon-config" not in getattr(error, "hint", "")  # noqa: PT017
    else:
        assert [c.after for c in plan.changes] == [b"", b""]


def test_the_next_step_that_is_told_can_be_pasted() -> None:
    names = [f"c{n}" for n in range(5)]
    host = carried_out(state(), make_plan(state(), asked(*names)))
    *_, step = make_release(host, ReleaseRequest(tuple(names))).next_steps
    words = step.partition("#")[0].split()
    assert words[:3] == ["usernsplan", "release", "--forget"]
    assert words[3:]
    assert set(words[3:]) <= set(names)


# What comes back


RELEASED = Quarantined("web", IdRange(FIRST, 65536), "2026-01-02T00:00:00Z")


def test_what_an_older_ledger_released_comes_back_by_its_name_and_size() -> None:
    host = state(quarantined=[RELEASED, Quarantined("db", IdRange(SECOND, 65536), "")])
    plan = make_plan(host, asked("db", "web", "new"))
    assert [a.reserved_range for a in plan.allocations] == [
        IdRange(base, 65536) for base in (SECOND, FIRST, THIRD)
    ]
    assert [a.since for a in plan.allocations] == ["", "", ""]
    assert carried_out(host, plan).ledger.quarantined == ()


def test_the_latest_of_several_comes_back_unless_somebody_else_has_it() -> None:
    later = Quarantined("web", IdRange(THIRD, 65536), "2026-02-02T00:00:00Z")
    host = state(quarantined=[later, RELEASED])
    assert make_plan(host, asked("web")).ledger.unkeep == (("web", later.reserved_range),)
    taken = state(**same_lines(b"bob:720896:1\n"), quarantined=[later, RELEASED])
    plan = make_plan(taken, asked("web"))
    assert plan.ledger.unkeep == (("web", RELEASED.reserved_range),)
    assert carried_out(taken, plan).ledger.quarantined == (later,)


@pytest.mark.parametrize(
    "other",
    [
        state(subgid=b"bob:655359:1\n", quarantined=[RELEASED]),
        state(passwd=PASSWD + b"bob:x:589836:1::/:\n", quarantined=[RELEASED]),
        state(quarantined=[RELEASED, Quarantined("old", IdRange(589836, 1), "")]),
    ],
    ids=["a line", "an account", "another released one"],
)
def test_whoever_has_an_id_of_it_keeps_it_from_coming_back(other: HostState) -> None:
    plan = make_plan(other, asked("web"))
    assert (plan.allocations[0].reserved_range, plan.ledger.unkeep) == (IdRange(SECOND, 65536), ())
    assert "USN132" in codes(plan)


@pytest.mark.parametrize(
    "running",
    [
        {"namespaces": IdSet((IdRange(SECOND - 1, 1),))},
        {"unlisted": (Unlisted(MOUNT, "/srv/other", "uid", FIRST, FIRST + 65536),)},
    ],
    ids=["a user namespace", "a mount"],
)
def test_what_runs_in_it_may_be_a_strangers_and_then_it_does_not_come_back(
    running: dict[str, Any],
) -> None:
    # systemd-nspawn may have taken the range since the release. Another range would leave the files of a container
    # that was never stopped with ids that it lacks, so nothing is changed at all.
    host = state(quarantined=[RELEASED], **running)
    with pytest.raises(RefusedError, match="'web' had 589824-655359 before its release") as caught:
        make_plan(host, asked("new", "web"))
    assert "--start 589824" in caught.value.hint
    assert "start: 589824" in caught.value.in_file


def test_an_older_range_does_not_come_back_instead_of_one_in_use() -> None:
    later = Quarantined("web", IdRange(THIRD, 65536), "2026-02-02T00:00:00Z")
    running = IdSet((IdRange(THIRD, 1),))
    with pytest.raises(RefusedError, match="720896"):
        make_plan(state(quarantined=[later, RELEASED], namespaces=running), asked("web"))
    # Who has ids of a range that cannot come back anyway is of no interest.
    taken = state(
        **same_lines(b"bob:720896:1\n"), quarantined=[later, RELEASED], namespaces=running
    )
    assert make_plan(taken, asked("web")).ledger.unkeep == (("web", RELEASED.reserved_range),)


def test_who_names_the_range_gets_it_back_whatever_runs_there() -> None:
    host = state(quarantined=[RELEASED], namespaces=IdSet((IdRange(FIRST, 65536),)))
    plan = make_plan(host, asked("web", start=FIRST))
    assert plan.ledger.unkeep == (("web", RELEASED.reserved_range),)
    assert "USN135" in codes(plan)
    # Or others.
    plan = make_plan(host, asked("web", start=SECOND))
    assert (plan.allocations[0].reserved_range, plan.ledger.unkeep) == (IdRange(SECOND, 65536), ())
    assert "USN132" in codes(plan)


def test_a_mount_of_its_own_volume_keeps_nothing_from_coming_back() -> None:
    own = Unlisted(MOUNT, "/srv/web", "uid", FIRST, FIRST + 65536, path="/srv/web")
    host = state(quarantined=[RELEASED], unlisted=(own,))
    host = replace(host, ledger=replace(host.ledger, volumes=(Volume("/srv/web", "web", ""),)))
    assert make_plan(host, asked("web")).ledger.unkeep == (("web", RELEASED.reserved_range),)


def test_dockers_own_comes_back_with_the_filler_of_its_shared_map() -> None:
    host = state(**REMAPPED)
    host = carried_out(host, make_plan(host, asked(strategy=Shared())))
    before = host.ledger.allocations
    host = carried_out(host, make_release(host, ReleaseRequest(("default",), unset_remap=True)))
    host = carried_out(host, make_plan(host, asked(strategy=Shared())))
    assert (host.ledger.allocations, host.ledger.quarantined) == (before, ())
