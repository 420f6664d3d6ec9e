"""A killed run is completed or put back, even if other programs have changed the files since."""

from __future__ import annotations

import json

import pytest

from usernsplan.layout import DAEMON_JSON, SUBGID, SUBUID
from usernsplan.model import Actor, Change, Intent, LedgerChange
from usernsplan.planner.recovery import Mended, mend

BOB, EVE = b"bob:100000:65536\n", b"eve:165536:65536\n"
WEB, DB = b"usernsplan-web:589824:65536\n", b"usernsplan-db:655360:65536\n"
PLAIN = b'{\n  "debug": true\n}\n'
REMAPPED = b'{\n  "debug": true,\n  "userns-remap": "usernsplan-web"\n}\n'


def allocation(
    before: bytes | None = BOB, lines: bytes = WEB, config: bytes | None = None
) -> Intent:
    """A run that adds lines; with ``config``, the old daemon.json, it also sets userns-remap."""
    after = (before or b"") + lines
    changes = [Change(SUBUID, before, after), Change(SUBGID, before, after)]
    if config is not None:
        changes.append(Change(DAEMON_JSON, config, REMAPPED))
    return Intent("usernsplan allocate", Actor(0), LedgerChange(), tuple(changes))


def release(config: bytes | None = None) -> Intent:
    """A run that removes the lines of web; with ``config``, as above, also userns-remap."""
    changes = [Change(path, BOB + WEB, BOB) for path in (SUBUID, SUBGID)]
    if config is not None:
        changes.append(Change(DAEMON_JSON, config, PLAIN))
    return Intent("usernsplan release", Actor(0), LedgerChange(remove=("web",)), tuple(changes))


def mended(intent: Intent, *now: bytes | None) -> tuple[bool, tuple[bytes | None, ...]]:
    """Whether the run counts as completed, and the files afterwards, in the order of the intent."""
    content = {change.path: raw for change, raw in zip(intent.changes, now, strict=True)}
    done = mend(intent, content)
    for change in done.changes:
        assert content[change.path] == change.before
        assert change.after != change.before
        content[change.path] = change.after
    for path in done.removals:
        assert content[path] is not None
        content[path] = None
    return done.completed, tuple(content.values())


@pytest.mark.parametrize("written", [0, 1])
def test_an_allocation_that_stopped_between_its_files_is_put_back(written: int) -> None:
    files = [BOB + WEB] * written + [BOB] * (2 - written)
    assert mended(allocation(), *files) == (False, (BOB, BOB))


def test_an_allocation_that_had_replaced_every_file_is_completed() -> None:
    now = {SUBUID: BOB + WEB, SUBGID: BOB + WEB}
    assert mend(allocation(), now) == Mended(completed=True, changes=(), removals=())


def test_a_run_without_a_file_is_completed() -> None:
    intent = Intent("usernsplan release --forget web", Actor(0), LedgerChange(forget=("web",)), ())
    assert mend(intent, {}) == Mended(completed=True, changes=(), removals=())


@pytest.mark.parametrize("written", [1, 2])
def test_a_release_that_took_a_line_out_is_completed(written: int) -> None:
    files = [BOB] * written + [BOB + WEB] * (2 - written)
    assert mended(release(), *files) == (True, (BOB, BOB))


@pytest.mark.parametrize("now", [BOB + WEB, WEB + BOB, BOB + WEB + EVE])
def test_a_release_that_took_nothing_out_did_not_happen(now: bytes) -> None:
    # It may even have failed, reported that, and restored its lines.
    assert mended(release(), now, BOB + WEB) == (False, (now, BOB + WEB))


def test_files_that_the_run_made_are_taken_away_again() -> None:
    intent = allocation(before=None)
    assert mended(intent, WEB, None) == (False, (None, None))


def test_a_file_that_the_run_made_and_somebody_else_has_used_since_stays_with_his_line() -> None:
    intent = allocation(before=None)
    assert mended(intent, WEB + EVE, None) == (False, (EVE, None))


@pytest.mark.parametrize(
    ("now", "left"),
    [
        (BOB + WEB + EVE, BOB + EVE),
        (EVE + BOB + WEB, EVE + BOB),
        (WEB + BOB, BOB),
        (WEB, b""),
        (BOB + EVE, BOB + EVE),
        (EVE, EVE),
        (b"", b""),
        (BOB + WEB.rstrip(), BOB),
        (BOB.rstrip(), BOB.rstrip()),
        (b"#" + WEB + BOB, b"#" + WEB + BOB),
        (BOB + WEB.replace(b"65536", b"65535"), BOB + WEB.replace(b"65536", b"65535")),
    ],
    ids=[
        *(
            "appended",
            "put in front",
            "sorted",
            "bob went",
            "ours went, eve came",
            "all exchanged",
            "emptied",
        ),
        *("line end lost", "bob's line end lost", "ours commented out", "ours changed"),
    ],
)
def test_of_what_others_did_since_everything_stays_and_of_ours_nothing(
    now: bytes, left: bytes
) -> None:
    assert mended(allocation(), now, BOB)[1] == (left, BOB)
    completed, files = mended(release(), now, BOB)
    assert (completed, files) == (True, (left, BOB))


@pytest.mark.parametrize("intent", [allocation(), release()], ids=["allocation", "release"])
def test_a_file_that_somebody_took_away_is_not_made_again(intent: Intent) -> None:
    assert mended(intent, None, None)[1] == (None, None)


def test_an_allocation_whose_lines_all_stand_is_completed_whatever_others_added() -> None:
    assert mended(allocation(), BOB + WEB + EVE, BOB + WEB) == (True, (BOB + WEB + EVE, BOB + WEB))
    assert mended(allocation(), WEB + BOB + EVE, EVE + BOB + WEB) == (
        True,
        (WEB + BOB + EVE, EVE + BOB + WEB),
    )


def test_an_allocation_is_put_back_in_both_files_if_others_touched_the_one_that_has_it() -> None:
    assert mended(allocation(), BOB + WEB + EVE, BOB) == (False, (BOB + EVE, BOB))


def test_every_line_of_an_allocation_of_several_is_put_back() -> None:
    intent = allocation(lines=WEB + DB)
    assert mended(intent, BOB + DB + EVE + WEB, BOB) == (False, (BOB + EVE, BOB))


def test_a_line_that_somebody_had_already_and_that_is_put_in_once_more_goes_once() -> None:
    intent = allocation(before=BOB + WEB)
    assert mended(intent, WEB + WEB + BOB + EVE, BOB + WEB)[1] == (WEB + BOB + EVE, BOB + WEB)


def test_a_last_line_without_its_end_is_somebody_elses_still() -> None:
    before, after = BOB.rstrip(), BOB + WEB
    intent = Intent(
        "x",
        Actor(0),
        LedgerChange(),
        (Change(SUBUID, before, after), Change(SUBGID, before, after)),
    )
    assert mended(intent, after, before) == (False, (before, before))
    assert mended(intent, after + EVE, before) == (False, (BOB + EVE, before))


SORTED = b"dockremap:2:1\ndockremap:3:65533\n" + BOB + b"dockremap:589824:2\n"
ORDERED = BOB + b"dockremap:2:1\ndockremap:589824:2\ndockremap:3:65533\n"


@pytest.mark.parametrize("now", [SORTED, ORDERED, SORTED + EVE, ORDERED + EVE])
def test_a_run_that_put_lines_into_their_order_never_loses_one(now: bytes) -> None:
    intent = Intent(
        "x",
        Actor(0),
        LedgerChange(),
        (Change(SUBUID, SORTED, ORDERED), Change(SUBGID, SORTED, ORDERED)),
    )
    _, files = mended(intent, now, SORTED)
    assert files[0] is not None
    assert sorted(files[0].splitlines()) == sorted(now.splitlines())


def test_what_is_mended_needs_no_mending() -> None:
    intent = allocation(config=PLAIN)
    content = {SUBUID: BOB + WEB + EVE, SUBGID: BOB, DAEMON_JSON: PLAIN}
    for change in mend(intent, content).changes:
        content[change.path] = change.after
    assert mend(intent, content).changes == ()


# daemon.json


@pytest.mark.parametrize("written", [0, 1, 2])
def test_docker_goes_back_with_the_lines(written: int) -> None:
    intent = allocation(config=PLAIN)
    files = [c.after for c in intent.changes[:written]] + [
        c.before for c in intent.changes[written:]
    ]
    assert mended(intent, *files) == (False, (BOB, BOB, PLAIN))


@pytest.mark.parametrize(
    ("now", "left"),
    [
        (b'{"userns-remap": "usernsplan-web", "ip": "::1"}', {"ip": "::1"}),
        (b'{"ip": "::1",\n"userns-remap": "usernsplan-web"}', {"ip": "::1"}),
        (b'{"userns-remap": "usernsplan-web"}', {}),
        (b'{"userns-remap": "eve", "ip": "::1"}', {"userns-remap": "eve", "ip": "::1"}),
        (b'{"ip": "::1"}', {"ip": "::1"}),
    ],
    ids=["another key", "in front of it", "the only key", "somebody else was faster", "taken out"],
)
def test_a_daemon_json_that_others_changed_keeps_their_keys_and_loses_ours(
    now: bytes, left: dict[str, str]
) -> None:
    completed, (subuid, subgid, config) = mended(
        allocation(config=PLAIN), BOB + EVE, BOB + WEB, now
    )
    assert (completed, subuid, subgid) == (False, BOB + EVE, BOB)
    assert json.loads(config or b"") == left


def test_the_remap_user_of_before_comes_back_into_a_file_that_others_changed() -> None:
    was = REMAPPED.replace(b"usernsplan-web", b"bob")
    intent = allocation(config=was)
    _, (_, _, config) = mended(intent, BOB, BOB, REMAPPED.replace(b"true", b"false"))
    assert json.loads(config or b"") == {"debug": False, "userns-remap": "bob"}


def test_a_daemon_json_that_the_run_made_is_taken_away_again() -> None:
    changes = (
        *allocation().changes,
        Change(DAEMON_JSON, None, b'{"userns-remap": "usernsplan-web"}'),
    )
    intent = Intent("x", Actor(0), LedgerChange(), changes)
    assert mended(intent, BOB, BOB + WEB, changes[2].after) == (False, (BOB, BOB, None))
    edited = b'{"userns-remap": "usernsplan-web", "ip": "::1"}'
    _, (_, _, config) = mended(intent, BOB, BOB + WEB, edited)
    assert json.loads(config or b"") == {"ip": "::1"}


def test_a_daemon_json_that_somebody_took_away_is_not_made_again() -> None:
    assert mended(allocation(config=PLAIN), BOB + WEB, BOB, None) == (False, (BOB, BOB, None))
    assert mended(release(config=REMAPPED), BOB + WEB, BOB, None) == (True, (BOB, BOB, None))


def test_a_daemon_json_that_somebody_broke_is_left_as_it_is() -> None:
    assert mended(allocation(config=PLAIN), BOB + WEB, BOB, b"{,") == (False, (BOB, BOB, b"{,"))


@pytest.mark.parametrize(
    ("now", "left"),
    [
        (REMAPPED, {"debug": True}),
        (PLAIN, {"debug": True}),
        (b'{"ip": "::1", "userns-remap": "usernsplan-web"}', {"ip": "::1"}),
        (b'{"ip": "::1", "userns-remap": "eve"}', {"ip": "::1", "userns-remap": "eve"}),
    ],
    ids=["not yet", "done", "changed by others", "pointed elsewhere by others"],
)
def test_a_release_takes_docker_along(now: bytes, left: dict[str, str]) -> None:
    completed, (subuid, subgid, config) = mended(release(config=REMAPPED), BOB, BOB + WEB, now)
    assert (completed, subuid, subgid) == (True, BOB, BOB)
    assert json.loads(config or b"") == left
