"""allocate and Docker: when daemon.json is written, with which bytes, and what must be there or said first."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from tests.unit.states import (
    DOCKREMAP_GROUP,
    DOCKREMAP_USER,
    GROUP,
    PASSWD,
    REMAPPED,
    asked,
    carried_out,
    per_container,
    same_lines,
    shared,
    state,
    with_accounts,
)
from usernsplan import AllocateRequest, IdRange, Plan, Shared, SingleUid, make_plan
from usernsplan.errors import InvalidFileError, InvalidValueError, RefusedError
from usernsplan.layout import DAEMON_JSON, SUBGID, SUBUID
from usernsplan.model import DockerData

FIRST, SECOND = 589824, 655360
USERADD = (
    "useradd",
    "--system",
    "--user-group",
    "--no-create-home",
    "--home-dir",
    "/nonexistent",
    "--shell",
)


def daemon_json(plan: Plan) -> bytes | None:
    """What the plan makes of daemon.json; None where it leaves it alone."""
    return next((c.after for c in plan.changes if c.path == DAEMON_JSON), None)


def codes(plan: Plan) -> set[str]:
    return {finding.code for finding in plan.findings}


# When


def test_no_name_makes_the_default_allocation_and_points_docker_at_it() -> None:
    plan = make_plan(state(**REMAPPED), asked())
    [allocation] = plan.allocations
    assert (allocation.name, allocation.owner) == ("default", "dockremap")
    assert [c.path for c in plan.changes] == [SUBUID, SUBGID, DAEMON_JSON]
    assert plan.changes[0].after == b"dockremap:589824:65536\n"
    assert daemon_json(plan) == b'{\n  "userns-remap": "dockremap"\n}\n'
    assert plan.changes[2].before is None
    assert any("systemctl restart docker" in step for step in plan.next_steps)


@pytest.mark.parametrize(
    "request_",
    [
        asked("web"),
        asked("web", replace_remap=True),
        asked(daemon_config=False),
        asked("web", owner="dockremap"),
    ],
    ids=["names", "names and yes", "no-daemon-config", "dockremap by name"],
)
@pytest.mark.parametrize(
    "raw", [None, b'{"userns-remap": "bob"}', b"not JSON"], ids=["no file", "another", "broken"]
)
def test_daemon_json_is_not_touched_unless_it_is_asked_for(
    request_: AllocateRequest, raw: bytes | None
) -> None:
    plan = make_plan(state(daemon_json=raw), request_)
    assert daemon_json(plan) is None
    assert plan.account_commands == ()
    assert not any("docker" in step and "restart" in step for step in plan.next_steps)


def test_docker_can_be_pointed_at_one_of_the_names() -> None:
    plan = make_plan(state(), asked("web", "db", daemon="db"))
    assert daemon_json(plan) == b'{\n  "userns-remap": "usernsplan-db"\n}\n'
    assert [command[-1] for command in plan.account_commands] == ["usernsplan-db"]


def test_docker_can_be_pointed_at_a_name_that_is_allocated_already() -> None:
    host = carried_out(state(), make_plan(state(), asked("web", "db")))
    plan = make_plan(host, asked("web", daemon="web"))
    assert [c.path for c in plan.changes] == [DAEMON_JSON]
    assert daemon_json(plan) == b'{\n  "userns-remap": "usernsplan-web"\n}\n'


def test_pointing_docker_at_a_name_that_is_not_repeated_leaves_it_with_its_lines() -> None:
    host = state(allocations=[per_container("web", FIRST)])
    try:
        plan = make_plan(host, asked("db", daemon="web"))
    except RefusedError:
        return  # as good: dockerd does not start for an owner without lines
    after = carried_out(host, plan)
    assert b"usernsplan-web:589824:65536\n" in after.subuid.raw
    assert b"usernsplan-web:589824:65536\n" in after.subgid.raw


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (asked("web", daemon="db"), "there is no allocation 'db'"),
        (asked(daemon="web"), "--daemon needs a name"),
        (asked("web", daemon="default"), "there is no allocation 'default'"),
    ],
)
def test_docker_cannot_be_pointed_at_nothing(request_: AllocateRequest, words: str) -> None:
    with pytest.raises(InvalidValueError, match=words):
        make_plan(state(), request_)


@pytest.mark.parametrize("owner", ["root", "default"])
@pytest.mark.parametrize("names", [(), ("web",)], ids=["default", "by name"])
def test_docker_is_not_pointed_at_an_owner_whose_name_means_something_else_to_it(
    owner: str, names: tuple[str, ...]
) -> None:
    # moby: root switches remapping off with a mere warning, and "default" is the user dockremap.
    host = state(passwd=PASSWD + b"default:x:990:990::/:/x\n", group=GROUP + b"default:x:990:\n")
    request = asked(*names, owner=owner, daemon=names[0] if names else None)
    with pytest.raises((RefusedError, InvalidValueError)):
        make_plan(host, request)


def test_a_map_that_docker_cannot_make_is_refused() -> None:
    host = carried_out(state(), make_plan(state(), asked("web", strategy=Shared())))
    with pytest.raises(RefusedError, match="Docker cannot make the map of 'web'"):
        make_plan(host, asked("web", daemon="web", strategy=Shared()))
    with pytest.raises(RefusedError, match="Docker cannot make the map of 'default'"):
        make_plan(state(), asked(strategy=SingleUid(container_id=33)))


def test_a_shared_map_is_made_for_docker_where_docker_is_to_use_it_and_for_no_other() -> None:
    plan = make_plan(state(), asked("web", "db", daemon="db", strategy=Shared()))
    assert [a.mapping.uids.triples() for a in plan.allocations] == [
        [(0, 2, 1), (3, 3, 65533)],
        [(0, 2, 1), (1, FIRST, 2), (3, 3, 65533)],
    ]
    assert [a.reserved_range for a in plan.allocations] == [None, IdRange(FIRST, 2)]
    again = make_plan(carried_out(state(), plan), asked("web", "db", strategy=Shared()))
    assert not again.changed


# The bytes


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"{}", b'{\n  "userns-remap": "dockremap"\n}'),
        (b"", b'{\n  "userns-remap": "dockremap"\n}\n'),
        (b'{"debug":true}', None),
        (
            b'{\n    "debug": true,\n    "hosts": [ ]\n}\n',
            b'{\n    "debug": true,\n    "hosts": [ ],\n    "userns-remap": "dockremap"\n}\n',
        ),
        (b'{\n\t"debug": true\n}', b'{\n\t"debug": true,\n\t"userns-remap": "dockremap"\n}'),
        (
            b'{\r\n  "debug": true\r\n}\r\n',
            b'{\r\n  "debug": true,\r\n  "userns-remap": "dockremap"\r\n}\r\n',
        ),
    ],
    ids=[
        "empty object",
        "empty file",
        "on one line",
        "four blanks",
        "tab, no final newline",
        "CR LF",
    ],
)
def test_the_other_keys_and_the_indentation_are_kept(before: bytes, after: bytes | None) -> None:
    plan = make_plan(state(daemon_json=before, **REMAPPED), asked())
    written = daemon_json(plan)
    assert written is not None
    if after is None:
        assert json.loads(written) == {"debug": True, "userns-remap": "dockremap"}
        assert b"\n" not in written
    else:
        assert written == after


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        (b'{"a": 1,}', "1:9"),
        (b'{"a": 1,\n "a": 2}', "2:2"),
        (b"{\n  // no\n}", "2:3"),
        (b'{"userns-remap": 1}', "1:18"),
        (b'{"userns-remap": null}', "1:18"),
        (b'{"data-root": ["x"]}', "1:15"),
        (b"[]", "1:1"),
        (b'\xef\xbb\xbf{"a": 1}', "1:1"),
        (b'{"a": "\xff"}', "1:8"),
        (b'{"a": 1} x', "1:10"),
        (b'{"a": 1', "1:8"),
        (b'{"a": NaN}', "1:7"),
    ],
    ids=[
        *(
            "trailing comma",
            "twice the same key",
            "comment",
            "a number",
            "null",
            "data-root",
            "array",
            "byte order mark",
        ),
        *("not UTF-8", "more behind it", "cut off", "NaN"),
    ],
)
def test_a_daemon_json_that_docker_would_not_read_alike_is_refused_with_its_place(
    raw: bytes, place: str
) -> None:
    with pytest.raises(InvalidFileError, match=rf"^/etc/docker/daemon\.json:{place}: "):
        make_plan(state(daemon_json=raw, **REMAPPED), asked())


def test_a_daemon_json_nested_without_end_is_refused_as_an_invalid_file() -> None:
    deep = b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(InvalidFileError):
        make_plan(state(daemon_json=deep, **REMAPPED), asked())


# What userns-remap is already


@pytest.mark.parametrize(
    "value",
    [
        "dockremap",
        "dockremap:dockremap",
        "dockremap:docker",
        "default",
        "997",
        "997:996",
        "997:dockremap",
    ],
)
def test_every_spelling_of_the_owner_counts_as_the_owner(value: str) -> None:
    raw = json.dumps({"userns-remap": value}).encode()
    plan = make_plan(state(daemon_json=raw, **REMAPPED), asked())
    assert daemon_json(plan) is None
    assert [c.path for c in plan.changes] == [SUBUID, SUBGID]


@pytest.mark.parametrize(
    "value",
    ["bob", "bob:bob", "1000", "1000:1000", "996", "DOCKREMAP", "dockremap2", "alice:dockremap"],
)
@pytest.mark.parametrize("yes", [False, True])
def test_another_user_is_replaced_only_with_yes(value: str, yes: bool) -> None:
    raw = b'{\n  "debug": true,\n  "userns-remap": "%s",\n  "ip": "::1"\n}\n' % value.encode()
    host = state(daemon_json=raw, **REMAPPED)
    if not yes:
        with pytest.raises(RefusedError, match=f'"userns-remap" is "{value}"') as caught:
            make_plan(host, asked())
        assert "--replace-remap" in caught.value.hint
        return
    plan = make_plan(host, asked(replace_remap=True))
    assert (
        daemon_json(plan)
        == b'{\n  "debug": true,\n  "userns-remap": "dockremap",\n  "ip": "::1"\n}\n'
    )


@pytest.mark.parametrize(
    ("config", "lines", "old", "new"),
    [
        (
            {"userns-remap": "bob"},
            b"bob:100000:65536\n",
            "/var/lib/docker/100000.100000",
            "/var/lib/docker/589824.589824",
        ),
        (
            {"userns-remap": "bob"},
            b"bob:300000:1\nbob:100000:65536\n",
            "/var/lib/docker/300000.300000",
            "/var/lib/docker/589824.589824",
        ),
        (
            {"userns-remap": "bob", "data-root": "/d"},
            b"bob:100000:65536\n",
            "/d/100000.100000",
            "/d/589824.589824",
        ),
        (
            {"userns-remap": "1000"},
            b"alice:100000:65536\n",
            "/var/lib/docker/100000.100000",
            "589824.589824",
        ),
        ({}, b"", "/var/lib/docker is hidden", "/var/lib/docker/589824.589824"),
        ({"data-root": "/d"}, b"", "/d is hidden", "/d/589824.589824"),
    ],
    ids=[
        "another user",
        "his first line counts",
        "another data-root",
        "by uid",
        "remap off",
        "remap off, data-root",
    ],
)
def test_the_old_and_the_new_data_root_are_named(
    config: dict[str, str], lines: bytes, old: str, new: str
) -> None:
    host = state(**same_lines(lines), daemon_json=json.dumps(config).encode(), **REMAPPED)
    plan = make_plan(host, asked(replace_remap=True))
    [finding] = [f for f in plan.findings if f.code == "USN106"]
    assert old in finding.message
    assert new in finding.message
    if "userns-remap" in config:
        with pytest.raises(RefusedError, match=re.escape(old)):
            make_plan(host, asked())


def test_the_data_root_of_a_shared_remap_is_dockerroot() -> None:
    plan = make_plan(state(**REMAPPED), asked(strategy=Shared(dockerroot=400)))
    [finding] = [f for f in plan.findings if f.code == "USN106"]
    assert "/var/lib/docker/400.400" in finding.message


def test_lines_that_dockerd_gave_its_own_user_are_not_joined() -> None:
    host = state(
        **same_lines(b"dockremap:165536:65536\n"),
        daemon_json=b'{"userns-remap": "default"}',
        **REMAPPED,
    )
    with pytest.raises(
        RefusedError, match=r"/etc/subuid:1: dockremap has 'dockremap:165536:65536'"
    ):
        make_plan(host, asked())


def test_lines_of_the_remap_user_by_its_uid_are_not_joined() -> None:
    host = state(b"997:165536:65536\n", **REMAPPED)
    with pytest.raises(RefusedError, match=r"/etc/subuid:1: dockremap has '997:165536:65536'"):
        make_plan(host, asked())


# The remap user


@pytest.mark.parametrize(
    ("passwd", "group", "commands"),
    [
        (PASSWD, GROUP, ((*USERADD, "/usr/sbin/nologin", "dockremap"),)),
        (PASSWD + DOCKREMAP_USER, GROUP, (("groupadd", "--system", "dockremap"),)),
        (
            PASSWD,
            GROUP + DOCKREMAP_GROUP,
            ((*USERADD[:2], "--gid", "dockremap", *USERADD[3:], "/usr/sbin/nologin", "dockremap"),),
        ),
        (PASSWD + DOCKREMAP_USER, GROUP + DOCKREMAP_GROUP, ()),
        (
            PASSWD + DOCKREMAP_USER,
            GROUP + b"docker:x:996:\n",
            (("groupadd", "--system", "dockremap"),),
        ),
    ],
    ids=["neither", "no group", "no user", "both", "a group of another name"],
)
def test_the_remap_user_and_the_group_of_its_name_are_made_where_they_are_missing(
    passwd: bytes, group: bytes, commands: tuple[tuple[str, ...], ...]
) -> None:
    host = state(passwd=passwd, group=group)
    plan = make_plan(host, asked())
    assert plan.account_commands == commands
    assert daemon_json(plan) is not None
    assert not plan.unfinished
    assert not make_plan(carried_out(host, plan), asked()).changed


@pytest.mark.parametrize(
    ("passwd", "root", "command"),
    [
        (PASSWD, "/", "useradd --system "),
        (PASSWD, "/srv/tree", "useradd --prefix /srv/tree --system "),
        (PASSWD + DOCKREMAP_USER, "/", "groupadd --system dockremap"),
    ],
)
def test_where_useradd_cannot_run_docker_is_not_pointed_at_nobody_and_the_command_is_told(
    passwd: bytes, root: str, command: str
) -> None:
    host = state(passwd=passwd, can_add_accounts=False, root=root)
    plan = make_plan(host, asked())
    assert [c.path for c in plan.changes] == [SUBUID, SUBGID]
    assert plan.unfinished
    assert plan.account_commands == ()
    assert "USN107" in codes(plan)
    assert plan.next_steps[0].startswith(command)
    again = make_plan(carried_out(host, plan), asked())
    assert (again.changed, again.unfinished) == (False, True)


def test_once_the_user_is_made_by_hand_the_same_words_point_docker_at_him() -> None:
    host = state(can_add_accounts=False)
    host = carried_out(host, make_plan(host, asked()))
    plan = make_plan(replace(host, accounts=state(**REMAPPED).accounts), asked())
    assert [c.path for c in plan.changes] == [DAEMON_JSON]
    assert not plan.unfinished


def test_a_user_who_exists_needs_no_useradd() -> None:
    plan = make_plan(state(can_add_accounts=False, **REMAPPED), asked())
    assert daemon_json(plan) is not None
    assert not plan.unfinished


@pytest.mark.parametrize("value", ["default", "dockremap", "dockremap:dockremap"])
def test_what_is_shown_before_the_user_is_made_is_what_is_done_after(value: str) -> None:
    host = state(daemon_json=json.dumps({"userns-remap": value}).encode())
    shown = make_plan(host, asked())
    assert shown.account_commands
    done = make_plan(with_accounts(host, shown), asked())
    assert done.changes == shown.changes
    assert {f.code for f in done.findings} == {f.code for f in shown.findings}


def test_docker_is_told_to_restart_when_the_lines_that_it_reads_come_or_come_back() -> None:
    raw = b'{"userns-remap": "dockremap"}'
    lines = b"dockremap:2:1\ndockremap:3:65533\ndockremap:589824:2\n"
    default = shared(
        "default",
        (0, 2, 1),
        (1, 589824, 2),
        (3, 3, 65533),
        owner="dockremap",
        reserved_range=IdRange(589824, 2),
    )
    host = state(**same_lines(lines), daemon_json=raw, allocations=[default], **REMAPPED)
    plan = make_plan(host, asked(strategy=Shared()))
    assert {c.path for c in plan.changes} == {SUBUID, SUBGID}
    assert any("systemctl restart docker" in step for step in plan.next_steps)


def test_with_a_second_remap_user_the_first_keeps_his_lines() -> None:
    host = carried_out(state(), make_plan(state(), asked("web", daemon="web")))
    with pytest.raises(RefusedError, match='"userns-remap" is "usernsplan-web"'):
        make_plan(host, asked("db", daemon="db"))
    plan = make_plan(host, asked("db", daemon="db", replace_remap=True))
    after = carried_out(host, plan)
    assert after.subuid.raw == b"usernsplan-web:589824:65536\nusernsplan-db:655360:65536\n"
    assert after.daemon_json == b'{\n  "userns-remap": "usernsplan-db"\n}\n'


BASE, FRESH, OLD = (
    f"/var/lib/docker{folder}" for folder in ("", "/589824.589824", "/100000.100000")
)


@pytest.mark.parametrize(
    ("has", "hidden"),
    [((), ()), ((BASE,), (BASE,)), ((FRESH,), ()), ((BASE, OLD, FRESH), (BASE, OLD))],
)
@pytest.mark.parametrize(
    "words", [asked(), asked("web", daemon="web")], ids=["Docker's own", "a name"]
)
@pytest.mark.parametrize("can_add", [True, False])
def test_what_docker_no_longer_sees_is_a_consequence(
    words: AllocateRequest, has: tuple[str, ...], hidden: tuple[str, ...], can_add: bool
) -> None:
    docker = tuple(DockerData(path, f"what is in {path}") for path in has)
    host = replace(state(can_add_accounts=can_add), docker=docker)
    said = " ".join(f.message for f in make_plan(host, words).consequences)
    assert [path for path in has if f"; in {path}: what is in {path}" in said] == list(hidden)
    assert bool(said) is bool(hidden)
    assert make_plan(host, replace(words, daemon_config=False, daemon=None)).consequences == ()


def test_where_lines_are_lost_nobody_knows_what_docker_sees_and_where_they_stand_it_goes_on() -> (
    None
):
    words = asked("web", daemon="web")
    host = carried_out(state(), make_plan(state(), words))
    host = replace(
        host,
        docker=(DockerData(BASE, "1 image"), DockerData(FRESH, "1 image")),
        subgid=state().subgid,
    )
    plan = make_plan(host, words)
    assert plan.changed
    assert plan.consequences
    same = replace(host, subuid=host.subuid, subgid=host.subuid)
    assert not make_plan(same, words).changed
    assert make_plan(same, words).consequences == ()
