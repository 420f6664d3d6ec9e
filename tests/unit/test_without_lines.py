"""Allocations that only the ledger has: no line of subuid or subgid grants them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.desired import PER_CONTAINER, again, applied, decided, file, ids
from tests.unit.states import asked, carried_out, per_container, same_lines, state
from usernsplan import (
    HostState,
    Layout,
    PerContainer,
    Plan,
    ReleaseRequest,
    Shared,
    SingleUid,
    make_plan,
    make_release,
    render,
)
from usernsplan.audit import check
from usernsplan.audit.base import Facts
from usernsplan.engines import ENGINES, verdict
from usernsplan.engines.base import RenderContext, allocate_again
from usernsplan.errors import InvalidFileError, InvalidValueError, RefusedError
from usernsplan.formats.spec_writer import text
from usernsplan.model import Actor, Intent
from usernsplan.planner.recovery import as_mended, mend
from usernsplan.planner.repair import make_repair

FIRST, SECOND = 589824, 655360
# subuid(5) is not read here: the library of the service is installed.
BYPASSED = state(nsswitch=b"subid: sss\n", plugin="/usr/lib/libsubid_sss.so")
ALONE = replace(per_container("web", FIRST), in_files=False)
# The manual pages of these say that they write uid_map themselves, as root.
NEED_NO_LINE = {
    *("uid_map", "gid_map", "podman", "quadlet", "oci", "containerd", "nspawn"),
    # The kubelet chooses the ids of a pod, and the other two have no user namespace.
    *("kubernetes", "openshift", "systemd"),
}


def allocated(host: HostState, *names: str) -> HostState:
    return carried_out(host, make_plan(host, asked(*names, in_files=False)))


def codes(plan: Plan) -> set[str]:
    return {finding.code for finding in plan.findings}


@pytest.mark.parametrize("host", [state(), BYPASSED], ids=["files", "a service"])
def test_the_ledger_gets_the_range_and_no_file_changes(host: HostState) -> None:
    plan = make_plan(host, asked("web", "db", in_files=False))
    assert plan.changes == ()
    assert [(a.in_files, a.mapping.uids[0].host) for a in plan.ledger.add] == [
        (False, FIRST),
        (False, SECOND),
    ]
    assert "USN145" in codes(plan)


def test_nobody_else_gets_the_range() -> None:
    after = make_plan(allocated(state(), "web"), asked("db"))
    assert after.allocations[0].mapping.uids[0].host == SECOND
    assert "USN145" not in codes(after)


def test_the_same_command_again_changes_nothing_also_without_the_option() -> None:
    host = allocated(state(), "web")
    assert not make_plan(host, asked("web", in_files=False)).changed
    assert not make_plan(host, asked("web")).changed
    # Where the files are not read, what needs no line is as it was.
    assert not make_plan(allocated(BYPASSED, "web"), asked("web")).changed


@pytest.mark.parametrize(("has", "said"), [(True, False), (False, True)])
def test_lines_neither_come_nor_go_by_allocating_again(has: bool, said: bool) -> None:
    host = carried_out(state(), make_plan(state(), asked("web", in_files=has)))
    with pytest.raises(RefusedError, match="is allocated already, with") as caught:
        make_plan(host, asked("web", in_files=said))
    assert "release web" in caught.value.hint


def test_after_its_release_it_gets_its_range_and_lines() -> None:
    host = allocated(state(), "web")
    gone = make_release(host, ReleaseRequest(("web",)))
    assert gone.changes == ()
    assert [str(range_) for _, range_ in gone.ledger.quarantine] == ["589824-655359"]
    plan = make_plan(carried_out(host, gone), asked("db", "web"))
    assert {a.name: a.mapping.uids[0].host for a in plan.ledger.add} == {"db": SECOND, "web": FIRST}
    assert b"usernsplan-web:589824:65536\n" in plan.changes[0].after


def test_where_the_files_are_not_read_the_refusal_names_the_option() -> None:
    with pytest.raises(RefusedError, match="libsubid_sss") as caught:
        make_plan(BYPASSED, asked("web"))
    assert "--no-lines" in caught.value.hint
    assert "'lines: false'" in caught.value.in_file
    # Docker's own allocation cannot do without lines.
    with pytest.raises(RefusedError) as caught:
        make_plan(BYPASSED, asked())
    assert "--no-lines" not in caught.value.hint


def test_a_map_that_the_files_cannot_hold_needs_no_option() -> None:
    plan = make_plan(BYPASSED, asked("web", strategy=Shared(max=100000)))
    assert not plan.changes
    assert plan.ledger.add


def test_where_the_files_are_not_read_the_pool_of_an_installed_engine_is_left_out() -> None:
    host = replace(BYPASSED, engines=frozenset({"kubernetes", "podman"}))
    plan = make_plan(host, asked("web", in_files=False))
    assert [a.name for a in plan.ledger.add] == ["web"]
    with pytest.raises(RefusedError, match="libsubid_sss"):
        make_plan(host, asked("web", engines=("kubernetes",)))


def test_without_lines_no_pool_is_made_by_the_way() -> None:
    host = replace(state(), engines=frozenset({"kubernetes"}))
    assert [a.name for a in make_plan(host, asked("web", in_files=False)).ledger.add] == ["web"]
    with pytest.raises(InvalidValueError, match="kubernetes"):
        make_plan(host, asked("web", in_files=False, engines=("kubernetes",)))


@pytest.mark.parametrize(
    ("names", "words"),
    [((), {}), (("web",), {"daemon": "web"}), (("web",), {"owner": "alice"})],
    ids=["Docker's own", "Docker's", "an owner of lines"],
)
def test_what_needs_lines_does_not_go_without(
    names: tuple[str, ...], words: dict[str, str]
) -> None:
    with pytest.raises(InvalidValueError, match="lines"):
        make_plan(state(), replace(asked(*names, in_files=False), **words))  # type: ignore[arg-type]


def test_no_further_owner_gets_anything() -> None:
    host = replace(state(), engines=frozenset({"lxc", "podman"}))
    plan = make_plan(host, asked("web", in_files=False))
    assert (plan.changes, plan.ledger.add[0].extra_owners) == ((), ())
    plan = make_plan(state(), asked("web", in_files=False, engines=("lxc",)))
    assert (plan.changes, plan.ledger.add[0].extra_owners) == ((), ())
    assert "USN120" in codes(plan)


def test_an_account_of_the_usual_name_can_do_nothing_with_it() -> None:
    passwd = b"usernsplan-web:x:1001:1001::/:/bin/sh\n"
    assert make_plan(state(passwd=passwd), asked("web", in_files=False)).ledger.add


def test_a_wished_start_follows_the_rules_of_new_ranges() -> None:
    def started(start: int, lines: bytes = b"") -> Plan:
        return make_plan(state(**same_lines(lines)), asked("web", in_files=False, start=start))

    assert started(SECOND).allocations[0].mapping.uids[0].host == SECOND
    with pytest.raises(InvalidValueError, match="not a multiple"):
        started(SECOND + 1)
    with pytest.raises(InvalidValueError, match="outside the pool"):
        started(65536)
    # There is nothing to adopt: the line is another's.
    with pytest.raises(RefusedError, match="not free"):
        started(FIRST, b"usernsplan-web:589824:65536\n")


@pytest.mark.parametrize("strategy", [PerContainer(), SingleUid()])
def test_exactly_the_engines_that_read_no_line_can_use_it(
    strategy: PerContainer | SingleUid,
) -> None:
    [made] = make_plan(state(), asked("web", in_files=False, strategy=strategy)).ledger.add
    granted = replace(made, in_files=True)
    for engine in ENGINES:
        can = verdict(engine, granted).can and engine in NEED_NO_LINE
        assert verdict(engine, made).can is can, engine


def test_an_engine_that_needs_lines_says_why_and_how_to_get_them() -> None:
    with pytest.raises(RefusedError, match="only the ledger has it") as caught:
        render("lxc", ALONE, RenderContext(layout=Layout("/srv/r")))
    assert "podman" in caught.value.hint
    assert "usernsplan release web --root /srv/r" in caught.value.hint
    with pytest.raises(RefusedError, match="only the ledger has it"):
        render("podman", ALONE, RenderContext(state(), rootless=True))


def test_the_command_that_makes_it_again_has_the_option() -> None:
    assert "--no-lines" in allocate_again(ALONE, Layout())
    assert "--no-lines" not in allocate_again(per_container("web", FIRST), Layout())


def test_there_is_nothing_to_restore() -> None:
    repair = make_repair(state(allocations=[ALONE]))
    assert (repair.changes, repair.findings) == ((), ())


def test_check_reports_who_is_granted_its_ids() -> None:
    """useradd does not see them, so it may give them out."""
    assert check(Facts(state(allocations=[ALONE]))) == ()
    lines = same_lines(b"alice:589824:65536\n")
    found = check(Facts(state(**lines, allocations=[ALONE])))
    assert [one.severity for one in found if "alice" in one.message] == ["error", "error"]


def test_a_run_that_was_killed_is_completed() -> None:
    """No file can show how far it came, and the ids are given to nobody else meanwhile."""
    plan = make_plan(state(), asked("web", in_files=False))
    intent = Intent("allocate web", Actor(0), plan.ledger, plan.changes)
    mended = mend(intent, {})
    assert (mended.completed, mended.changes, mended.removals) == (True, (), ())
    assert [a.name for a in as_mended(state(), intent).ledger.allocations] == ["web"]


# Plan files


@pytest.mark.parametrize(
    "said",
    [
        "containers: [{name: web, lines: false}, db]\n",
        "lines: false\ncontainers: [web, {name: db, lines: true}]\n",
    ],
)
def test_a_plan_file_says_which_have_lines(said: str) -> None:
    desired = decided(state(), PER_CONTAINER + said)
    assert {a.name: a.in_files for a in desired.allocate.ledger.add} == {"web": False, "db": True}
    assert [step.text.endswith("without lines") for step in desired.steps] == [True, False]
    host = applied(state(), desired)
    assert not decided(host, PER_CONTAINER + said).pending
    # Without the key they stay as they are.
    assert not decided(host, PER_CONTAINER + "containers: [web, db]\n").pending


def test_what_a_host_has_goes_through_its_plan_file() -> None:
    host = applied(
        state(), decided(state(), PER_CONTAINER + "containers: [db, {name: web, lines: false}]\n")
    )
    spec = again(host)
    assert {one.name: one.in_files for one in spec.containers} == {"db": None, "web": False}
    other = applied(state(), decided(state(), text(spec)))
    assert ids(other) == ids(host)
    assert [a.in_files for a in other.ledger.allocations] == [True, False]


def test_an_error_about_lines_names_the_line_of_the_plan_file() -> None:
    with pytest.raises(InvalidFileError, match=r"p\.yaml:2: lines: "):
        file(PER_CONTAINER + "lines: 1\n")
    said = "containers:\n- name: web\n  owner: alice\n  lines: false\n"
    with pytest.raises(InvalidValueError, match=r"^p\.yaml:5: containers\[0\]\.lines: "):
        decided(state(), PER_CONTAINER + said)
    said = "daemon: web\ncontainers:\n- name: web\n  lines: false\n"
    with pytest.raises(InvalidValueError, match=r"^p\.yaml:5: containers\[0\]\.lines: "):
        decided(state(), PER_CONTAINER + said)
    host = applied(state(), decided(state(), PER_CONTAINER + "containers: [web]\n"))
    with pytest.raises(RefusedError, match=r"^p\.yaml:2: containers\[0\]\.lines: .* with lines"):
        decided(host, PER_CONTAINER + "containers: [{name: web, lines: false}]\n")
