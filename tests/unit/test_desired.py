"""What a plan file comes to on a host: the steps, what is refused with its line, and the file of a host as it is."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.each import each
from tests.unit.desired import PER_CONTAINER, again, applied, decided, ids, refused, steps
from tests.unit.states import (
    GROUP,
    PASSWD,
    REMAPPED,
    Known,
    per_container,
    same_lines,
    shared,
    state,
)
from usernsplan import HostState, IdRange, Layout
from usernsplan.formats.spec_writer import text
from usernsplan.model import Quarantined, Reservation, Volume, VolumeSeen
from usernsplan.planner.desired import make_desired, merged_changes
from usernsplan.planner.exported import exported, why_left_out
from usernsplan.planner.volumes import doubts
from usernsplan.report.desired import counts

WEB = b"usernsplan-web:589824:65536\n"
NFS = "reservations: [{ids: 589824-655359, for: NFS}]\n"


def with_ledger(host: HostState, **more: object) -> HostState:
    return replace(host, ledger=replace(host.ledger, **more))  # type: ignore[arg-type]


def web(**words: object) -> HostState:
    """A host that has web, and nothing else."""
    return replace(
        state(allocations=[per_container("web", 589824)], **same_lines(WEB), **REMAPPED),
        **words,  # type: ignore[arg-type]
    )


# The steps.


def test_what_comes() -> None:
    desired = decided(
        state(**REMAPPED),
        """\
strategy: per-container
engines: [docker, lxc, {name: podman-auto, containers: 2}]
daemon: web
containers:
- web
- {name: db, size: 100000, owner: dbs, volumes: [/db], user: '5:6'}
reservations: [{ids: 589824-589836, for: NFS}]
""",
    )
    assert [(s.sign, s.kind, s.name, s.text) for s in desired.steps] == [
        ("+", "container", "web", "0-65535 -> 655360-720895, owner usernsplan-web, and root"),
        ("+", "container", "db", "0-99999 -> 720896-820895, owner dbs, and root"),
        ("+", "pool", "containers", "0-131071 -> 851968-983039, owner containers"),
        ("+", "account", "usernsplan-web", "useradd"),
        ("+", "reservation", "589824-589836", "NFS"),
        ("~", "docker", "/etc/docker/daemon.json", '"userns-remap": "usernsplan-web"'),
        ("~", "volume", "/db", "fix for db (own 5:6)"),
    ]
    assert counts(desired) == {"add": 5, "change": 1, "remove": 0, "volumes": 1}
    assert desired.pending
    assert desired.kept == ()


def test_what_changes_and_what_goes() -> None:
    host = with_ledger(
        state(
            allocations=[per_container("web", 589824), per_container("old", 655360)],
            **same_lines(b"usernsplan-old:655360:65536\n"),
            **REMAPPED,
        ),
        reservations=(
            Reservation(IdRange(5, 2), "x"),
            Reservation(IdRange(765536, 2), "old words"),
        ),
    )
    said = (
        PER_CONTAINER
        + "engines: [lxc]\ncontainers: [web]\nreservations: [{ids: 765536-765537, for: new words}]\n"
    )
    assert steps(host, said) == [
        "~ reservation 765536-765537: new words",
        "~ container web: its lines are restored",
        "~ container web: also granted to root",
    ]
    assert decided(host, said).kept == ("old", "reservation 5-6")
    gone = decided(host, said, prune=True)
    assert [f"{s.sign} {s.kind} {s.name}" for s in gone.steps][3:] == [
        "- container old",
        "- reservation 5-6",
    ]
    assert counts(gone) == {"add": 0, "change": 3, "remove": 2, "volumes": 0}
    assert gone.kept == ()
    left = applied(host, gone)
    assert left.subuid.raw == b"usernsplan-web:589824:65536\nroot:589824:32768\nroot:622592:32768\n"
    assert [q.reserved_range for q in left.ledger.quarantined] == [IdRange(655360, 65536)]
    assert left.ledger.reservations == (Reservation(IdRange(765536, 2), "new words"),)


def test_files_that_two_steps_change_are_one_change() -> None:
    host = state(
        allocations=[per_container("old", 589824)],
        **same_lines(b"# x\nusernsplan-old:589824:65536\n"),
    )
    [subuid, subgid] = merged_changes(
        decided(host, PER_CONTAINER + "containers: [web]\n", prune=True)
    )
    assert subuid.before == host.subuid.raw
    assert subuid.after == subgid.after == b"# x\nusernsplan-web:655360:65536\n"


def test_where_the_host_is_as_the_file_says_nothing_is_to_be_done() -> None:
    for prune in (False, True):
        desired = decided(web(), PER_CONTAINER + "containers: [web]\n", prune=prune)
        assert not desired.pending
        assert (desired.steps, desired.kept, merged_changes(desired)) == ((), (), ())


def test_a_file_without_containers_asks_for_nothing() -> None:
    assert not decided(state(), PER_CONTAINER).pending
    assert decided(web(), PER_CONTAINER).kept == ("web",)
    assert decided(web(), PER_CONTAINER + "containers: []\n", prune=True).prune.ledger.remove == (
        "web",
    )


# What is refused, and where.


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("size", "131072", r"'web' is allocated already"),
        ("size", "1", r"'web' is allocated already"),
        ("start", "655360", r"'web' is allocated already, as host uids 589824-655359"),
        ("owner", "somebody", r"'web' is allocated already, to the owner usernsplan-web"),
    ],
)
def test_what_stands_is_never_renumbered(key: str, value: str, message: str) -> None:
    found = refused(web(), PER_CONTAINER + f"containers:\n- new\n- name: web\n  {key}: {value}\n")
    assert re.match(rf"p\.yaml:5: containers\[1\]\.{key}: {message}", found), found


@pytest.mark.parametrize("prune", [False, True])
def test_a_host_has_one_strategy(prune: bool) -> None:
    assert "this host's strategy is per-container" in refused(
        web(), "strategy: shared\n", prune=prune
    )


@pytest.mark.parametrize(
    ("containers", "message"),
    [
        (
            "[{name: aa, start: 589825}]",
            "p.yaml:2: containers[0].start: 589825 is not a multiple of 65536",
        ),
        (
            "[aa, {name: bb, start: 65536}]",
            "p.yaml:2: containers[1].start: 65536-131071 is outside the pool",
        ),
        (
            "[{name: aa, start: 589824, size: 65537}, {name: bb, start: 655360}]",
            "p.yaml:2: containers[1].start: 589824-655360 of 'aa' and 655360-720895 of 'bb' overlap",
        ),
        (
            "[{name: bb, start: 589824}, {name: aa, start: 589824}]",
            "p.yaml:2: containers[0].start: 589824-655359 of 'aa' and 589824-655359 of 'bb' overlap",
        ),
        (
            "[{name: aa, owner: xx}, {name: bb, owner: xx}]",
            "p.yaml:2: containers[1]: the owner xx has the allocation 'aa'",
        ),
        (
            "[{name: aa, owner: usernsplan-bb}, bb]",
            "p.yaml:2: containers[1]: the owner usernsplan-bb has the allocation",
        ),
        ("[a]", "p.yaml:2: containers[0]: 'a' is not a container name"),
        ("[aa, 'b b']", "p.yaml:2: containers[1]: 'b b' is not a container name"),
        (
            "[containers]",
            "p.yaml:2: containers[0]: 'containers' is the name of the pool of podman-auto",
        ),
        (
            "[{name: aa, block: 5}]",
            "p.yaml:2: containers[0].block: not an option of the strategy per-container",
        ),
        ("[{name: aa, size: 0}]", "p.yaml:2: containers[0].size: no such range of ids"),
    ],
)
def test_what_a_container_cannot_have_is_told_with_its_line(containers: str, message: str) -> None:
    assert refused(state(), PER_CONTAINER + f"containers: {containers}\n").startswith(message)


@pytest.mark.parametrize(
    ("host", "more", "whose"),
    [
        (state(), NFS, "589824-655359 is reserved in /var/lib/usernsplan/ledger.sqlite3: NFS"),
        (
            with_ledger(state(), reservations=(Reservation(IdRange(655359, 1), "x"),)),
            "",
            "655359 is reserved in",
        ),
        (state(**same_lines(b"bob:655359:5\n")), "", "655359 is granted by a line of /etc/subuid"),
        (state(subgid=b"bob:589816:9\n"), "", "589824 is granted by a line of /etc/subgid"),
        (
            state(quarantined=[Quarantined("q", IdRange(589824, 5), "")]),
            "",
            "589824-589828 is quarantined",
        ),
        (web(), "", "589824-655359 is granted by a line"),
        (state(allocations=[shared("aa", (0, 2, 1), reserved_range=IdRange(589824, 1))]), "", None),
    ],
)
def test_a_start_that_somebody_has_is_refused(
    host: HostState, more: str, whose: str | None
) -> None:
    found = refused(host, PER_CONTAINER + more + "containers:\n- {name: new, start: 589824}\n")
    assert whose is None or whose in found
    assert whose is None or found.startswith(f"p.yaml:{3 + bool(more)}: containers[0].start: ")


def test_ids_that_were_given_out_cannot_be_reserved() -> None:
    found = refused(
        web(),
        PER_CONTAINER + "containers: [web]\nreservations:\n- {ids: 655359-665536, for: NFS}\n",
    )
    assert found.startswith(
        "p.yaml:4: reservations[0].ids: 655359-665536 overlaps 589824-655359 of 'web'"
    )


def test_what_is_reserved_is_given_to_nobody() -> None:
    host = applied(state(), decided(state(), PER_CONTAINER + NFS + "containers: [aa]\n"))
    assert ids(host)["aa"][1] == "655360-720895"
    # Later words that know nothing of it keep out of it too.
    host = applied(host, decided(host, PER_CONTAINER + "containers: [aa, bb]\n"))
    assert ids(host)["bb"][1] == "720896-786431"


def test_a_volume_is_one_containers() -> None:
    said = (
        PER_CONTAINER
        + "containers:\n- {name: aa, volumes: [/v]}\n- name: bb\n  volumes:\n  - /w\n  - /v\n"
    )
    assert refused(state(), said).startswith(
        "p.yaml:7: the volume /v appears a second time; the first is in line 3"
    )


@pytest.mark.parametrize("names", [("aa", "bb"), ("bb", "aa")])
@pytest.mark.parametrize(("first", "second"), [("/v", "/v/w"), ("/v/w", "/v"), ("/v", "/v/w/x")])
def test_a_volume_inside_of_another_is_refused(
    names: tuple[str, str], first: str, second: str
) -> None:
    containers = [
        f"- {{name: {name}, volumes: [{path}]}}\n"
        for name, path in zip(names, (first, second), strict=True)
    ]
    found = refused(state(), PER_CONTAINER + "containers:\n- cc\n" + "".join(containers))
    assert found.startswith("p.yaml:5: ")


def test_volumes_that_only_begin_alike_are_two() -> None:
    said = (
        PER_CONTAINER
        + "containers:\n- {name: aa, volumes: [/v]}\n- {name: bb, volumes: [/vw, /v.w]}\n"
    )
    assert [v.path for v in decided(state(), said).volumes] == ["/v", "/vw", "/v.w"]


def test_daemon_names_a_container_of_the_file() -> None:
    assert refused(web(), PER_CONTAINER + "daemon: web\ncontainers: [aa]\n").startswith(
        "p.yaml:2: daemon: this file has no container 'web'"
    )


@pytest.mark.parametrize("owner", ["1000", "0"])
def test_an_owner_that_readers_take_for_another_is_refused(owner: str) -> None:
    found = refused(state(), PER_CONTAINER + f"containers:\n- {{name: aa, owner: '{owner}'}}\n")
    assert found.startswith("p.yaml:3: containers[0]")


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ("strategy: shared\nsize: 5\n", "p.yaml:2: size: "),
        ("strategy: per-container\nsize: 0\n", "p.yaml:2: size: "),
        ("strategy: shared\ndockerroot: 0\n", "p.yaml:2: dockerroot: "),
        ("strategy: per-container\nengines:\n- lxc\n- nope\n", "p.yaml:2: engines: "),
        ("strategy: shared\nengines: [podman-auto]\n", "p.yaml:2: engines"),
        (
            "strategy: per-container\nengines:\n- {name: podman-auto, containers: 0}\n",
            "p.yaml:2: engines: ",
        ),
        (
            "strategy: per-container\nengines:\n- {name: docker, containers: 1}\n",
            "p.yaml:2: engines: ",
        ),
        (
            "strategy: per-container\ncontainers:\n- {name: aa, start: 4294901760}\n",
            "p.yaml:3: containers[0]",
        ),
        ("strategy: per-container\npool: 5\ncontainers: [aa]\n", "p.yaml:2: pool: "),
        (f"strategy: per-container\ndaemon: {'a' * 40}\ncontainers:\n- {'a' * 40}\n", "p.yaml:"),
        (
            "strategy: per-container\ncontainers:\n- name: aa\n  user: '65536'\n  volumes: [/v]\n",
            "p.yaml:",
        ),
    ],
)
def test_every_error_is_told_with_line_and_key(said: str, place: str) -> None:
    assert refused(state(), said).startswith(place)


def test_another_strategy_is_told_with_its_line() -> None:
    assert refused(web(), "strategy: shared\n").startswith("p.yaml:1: strategy: ")


# Docker's daemon.json.


OURS = b'{"userns-remap": "usernsplan-web"}'
OTHERS = b'{"userns-remap": "alice"}'


def test_docker_is_pointed_where_the_file_says_and_else_left_alone() -> None:
    said = PER_CONTAINER + "containers: [web]\n"
    for raw in (OURS, OTHERS, b"{broken", None):
        assert not decided(web(daemon_json=raw), said).pending
        assert not decided(web(daemon_json=raw), said + "daemon: false\n").pending
    for raw in (OTHERS, None, b"{}"):
        desired = decided(web(daemon_json=raw), said + "daemon: web\n")
        # An account has its own entry in passwd: the record goes.
        assert [f"{s.sign} {s.kind} {s.name}" for s in desired.steps] == [
            "+ account usernsplan-web",
            "~ container web",
            "~ docker /etc/docker/daemon.json",
        ]
        assert [one.sign for one in desired.allocate.records] == ["-"]
    assert "daemon.json:1:2" in refused(web(daemon_json=b"{broken"), said + "daemon: web\n")


def test_what_docker_is_pointed_at_is_not_pruned() -> None:
    host = web(daemon_json=OURS)
    assert "without its lines Docker does not start" in refused(host, PER_CONTAINER, prune=True)
    assert "without its lines" in refused(host, PER_CONTAINER + "daemon: false\n", prune=True)
    # Unless the same file points it elsewhere.
    desired = decided(host, PER_CONTAINER + "daemon: aa\ncontainers: [aa]\n", prune=True)
    assert [f"{s.sign} {s.kind} {s.name}" for s in desired.steps] == [
        *(
            "+ container aa",
            "+ account usernsplan-aa",
            "~ docker /etc/docker/daemon.json",
            "- container web",
        ),
    ]
    assert b'"usernsplan-aa"' in (applied(host, desired).daemon_json or b"")


def test_docker_has_a_shared_map_without_a_gap() -> None:
    said = "strategy: shared\ndaemon: web\ncontainers: [web, {name: db, dockerroot: 7}]\n"
    host = applied(state(), decided(state(), said))
    found = {
        a.name: [(e.container, e.host, e.count) for e in a.mapping.uids]
        for a in host.ledger.allocations
    }
    assert found == {
        "web": [(0, 2, 1), (1, 589824, 2), (3, 3, 65533)],
        "db": [(0, 7, 1), (8, 8, 65528)],
    }
    assert not decided(host, said).pending
    assert not make_desired(host, again(host), prune=True).pending


# Volumes.


@pytest.mark.parametrize(
    ("noted", "wanted", "is_pending"),
    [
        (Volume("/v", "web", "own", "T", "0:0", 1), "/v", False),
        (Volume("/v", "web", "own", "T", "0:0", 1), "{path: /v, user: '0:1'}", True),
        (Volume("/v", "web", "own", "T", "", 1), "/v", True),
        (Volume("/v", "web", "shift", "T", "", 1), "/v", True),
        (Volume("/v", "web", "shift", "T", "", 1), "{path: /v, mode: shift}", False),
        (Volume("/v", "db", "own", "T", "0:0", 1), "/v", True),
        (Volume("/w", "web", "own", "T", "0:0", 1), "/v", True),
        # Given when the container had another range.
        (Volume("/v", "web", "own", "T", "0:0", 0), "/v", True),
        (Volume("/v", "web", "own", "T", "0:0", 2), "/v", False),
    ],
)
def test_a_volume_is_fixed_unless_it_is_known_to_be(
    noted: Volume, wanted: str, is_pending: bool
) -> None:
    host = with_ledger(
        web(), volumes=(noted,), allocations=(replace(per_container("web", 589824), event=1),)
    )
    desired = decided(host, PER_CONTAINER + f"containers: [{{name: web, volumes: [{wanted}]}}]\n")
    assert desired.pending is is_pending
    assert [v.path for v in desired.volumes] == ["/v"] * is_pending


# The file of a host as it is.


@pytest.mark.parametrize(
    ("noted", "why"),
    [
        (Volume("/v", "web", "own", "1", "0:0"), ""),
        (Volume("/v", "web", "shift", "1"), ""),
        (Volume("/v", "web", "own", "1"), "its user was not noted"),
        (Volume("/v\udcff", "web", "shift", "1"), "YAML cannot write its path"),
        (Volume("/v", "web", "idmap", "1"), "its mode 'idmap' is unknown to this usernsplan"),
        (Volume("/v", "web", "", "1", "0:0"), "its mode '' is unknown to this usernsplan"),
    ],
)
def test_a_volume_of_which_the_file_could_not_say_the_same_is_left_out(
    noted: Volume, why: str
) -> None:
    host = with_ledger(
        web(), volumes=(noted,), allocations=(replace(per_container("web", 589824), since="1"),)
    )
    assert why_left_out(noted) == why
    [container] = exported(host).containers
    assert [(v.path, v.mode) for v in container.volumes] == [("/v", noted.mode)] * (not why)


def test_a_volume_of_an_unknown_mode_does_not_look_right_and_is_given_again_by_no_guess() -> None:
    noted = Volume("/v", "web", "idmap", "2")
    held = with_ledger(
        web(), volumes=(noted,), allocations=(replace(per_container("web", 589824), since="1"),)
    ).ledger
    seen = VolumeSeen("/v", top=(589824, 589824))
    doubt = doubts(held, [seen], Layout())["/v"]
    assert "mode 'idmap', which this usernsplan does not know" in doubt.fact
    assert doubt.remedy.endswith("usernsplan fix-volume /v --container web")
    assert not doubts(replace(held, volumes=(replace(noted, mode="shift"),)), [seen], Layout())


def places(host: HostState) -> dict[str, str]:
    return {a.name: a.published for a in host.ledger.allocations}


def test_a_container_and_a_pool_may_be_published_otherwise_than_the_others() -> None:
    said = "engines: [{name: podman-auto, publish: none}]\ncontainers: [aa, {name: bb, publish: none}]\n"
    host = applied(state(), decided(state(), PER_CONTAINER + said))
    assert places(host) == {"aa": "userdb", "bb": "none", "containers": "none"}
    host = applied(host, decided(host, PER_CONTAINER + "publish: none\n" + said))
    assert set(places(host).values()) == {"none"}


def test_an_empty_host() -> None:
    assert (
        text(exported(state()))
        == "version: 1\nstrategy: per-container\nengines: []\ncontainers: []\n"
    )
    assert not make_desired(state(), again(state()), prune=True).pending


@each(
    "said",
    [
        PER_CONTAINER
        + "containers: [aa, {name: bb, size: 5}, {name: cc, owner: xx, start: 1048576, size: 131072}]\n",
        PER_CONTAINER + "daemon: aa\ncontainers: [aa, bb]\n",
        PER_CONTAINER + "containers: [default, web]\n",
        PER_CONTAINER + "engines: [docker, lxc]\ncontainers: [default, web]\n",
        PER_CONTAINER + "engines: [lxc]\ncontainers: [aa, bb]\n",
        PER_CONTAINER
        + "engines: [{name: podman-auto, containers: 3}, kubernetes]\ncontainers: [aa]\n",
        PER_CONTAINER + "engines: [podman-auto]\n",
        PER_CONTAINER
        + "engines: [{name: podman-auto, publish: none}]\ncontainers: [aa, {name: bb, publish: none}]\n",
        PER_CONTAINER + "publish: none\nengines: [kubernetes]\ncontainers: [aa]\n",
        PER_CONTAINER
        + "publish: none\nengines: [{name: kubernetes, publish: userdb}]\ncontainers: [aa]\n",
        PER_CONTAINER + "publish: none\ncontainers: [aa, {name: bb, publish: userdb}]\n",
        PER_CONTAINER
        + "engines: [{name: podman-auto, containers: 3, start: 16777216}]\ncontainers: [aa]\n",
        PER_CONTAINER + "engines: [docker]\ncontainers: [aa, {name: bb, engines: [lxc]}]\n",
        PER_CONTAINER + "engines: [docker-instance]\ncontainers: [aa]\n",
        PER_CONTAINER + "containers: [{name: aa, owner: root}, {name: bb, owner: root}, cc]\n",
        PER_CONTAINER
        + "containers: [{name: aa, owner: alice}]\nreservations: [{ids: 5, for: x}, {ids: 6-9, for: y}]\n",
        PER_CONTAINER
        + "containers: [{name: aa, volumes: [/a, {path: /b, mode: shift}], user: '3:4'}]\n",
        PER_CONTAINER
        + "containers: [{name: aa, volumes: [/a, {path: /b, method: idmap}]}, {name: bb, volumes: [{path: /b, "
        "method: idmap, mode: shift}, {path: /b, method: idmap, at: /m, user: 5, read-only: true, "
        "protect: parent, cross-mounts: true}, {path: /c, method: idmap, persist: true}]}]\n",
        "strategy: single-uid\ncontainers: [aa, {name: bb, block: 1}, {name: cc, container-id: 33}]\n",
        "strategy: single-uid\nengines: [lxc]\ncontainers: [aa, {name: bb, owner: xx, start: 1000500000}]\n",
        "strategy: single-uid\ndaemon: aa\ncontainers: [aa]\n",
        "strategy: shared\ncontainers: [aa, {name: bb, dockerroot: 400}, {name: cc, max: 4294967294}]\n",
        "strategy: shared\ncontainers: [{name: aa, identity: true}, {name: bb, identity: true, max: 1000}]\n",
        "strategy: shared\ndockerroot: 9\ndaemon: bb\ncontainers: [aa, bb]\n",
        "strategy: shared\ncontainers: [default, web]\n",
        "strategy: shared\nengines: [lxc]\ncontainers: [aa, bb]\n",
        "strategy: shared\nidentity: true\ncontainers: [default]\n",
    ],
)
def test_export_and_plan_is_nothing_to_do_and_an_empty_host_gets_the_same(said: str) -> None:
    host = applied(state(), decided(state(), said))
    assert not decided(host, said, prune=True).pending
    found = again(host)
    for prune in (False, True):
        desired = make_desired(host, found, prune=prune)
        assert desired.steps == ()
        assert not desired.pending
        assert desired.kept == ()
    # The same containers get the same ids where nothing is; so would another host, by the same file.
    new = applied(state(), make_desired(state(), found))
    assert ids(new) == ids(host)
    assert text(exported(new)) == text(exported(host))
    assert places(new) == places(host)
    assert (new.subuid.raw, new.daemon_json) == (host.subuid.raw, host.daemon_json)


@each("prune", [False, True])
@each("raw", [None, OURS, OTHERS, b'{"userns-remap": "nobody-at-all"}', b"{broken", b"[]"])
@each("lines", [WEB, b"", WEB + b"bob:765536:65536\n"])
def test_export_of_any_daemon_json(raw: bytes | None, lines: bytes, prune: bool) -> None:
    known = Known(
        passwd=PASSWD + b"usernsplan-web:x:900:900::/:/bin/sh\n",
        group=GROUP + b"usernsplan-web:x:900:\n",
    )
    # Its owner is an account, so it is not published.
    allocated = replace(per_container("web", 589824), published="none")
    host = state(allocations=[allocated], daemon_json=raw, **same_lines(lines), **known)
    found = again(host)
    assert (found.daemon == "web") == (raw == OURS)
    # What was lost is put back, whatever the file says.
    assert [s.name for s in make_desired(host, found, prune=prune).steps] == ["web"] * (
        lines == b""
    )


def test_export_where_docker_is_pointed_at_an_account_that_is_missing() -> None:
    host = web(daemon_json=OURS)
    assert not make_desired(host, again(host)).pending


@pytest.mark.parametrize("raw", [b'{"userns-remap": 5}', b"{broken"])
def test_what_is_wrong_in_daemon_json_is_nothing_to_a_file_that_leaves_it_alone(raw: bytes) -> None:
    desired = decided(web(daemon_json=raw), PER_CONTAINER + "containers: [web]\n", prune=True)
    assert desired.prune.findings == ()


def test_what_is_in_quarantine_stays_there() -> None:
    host = with_ledger(web(), quarantined=(Quarantined("old", IdRange(765536, 5), "1"),))
    assert not make_desired(host, again(host), prune=True).pending


def test_half_of_what_lxc_was_granted_is_no_reason_to_grant_more() -> None:
    two = (
        per_container("web", 589824),
        replace(per_container("db", 655360), extra_owners=("root",)),
    )
    lines = WEB + b"usernsplan-db:655360:65536\nroot:655360:65536\n"
    host = state(allocations=two, **same_lines(lines))
    assert not make_desired(host, again(host), prune=True).pending


def test_volumes_whose_path_cannot_be_printed_are_no_reason_to_fail() -> None:
    volumes = (
        Volume("/a\nb", "web", "own", "", "0:0"),
        Volume("/\udcff", "web", "own", "", "0:0"),
        Volume("/c", "gone", "own"),
    )
    host = with_ledger(web(), volumes=volumes)
    assert not make_desired(host, again(host), prune=True).pending


def test_a_volume_that_an_older_run_noted_without_its_user_is_exported_as_it_is() -> None:
    host = with_ledger(web(), volumes=(Volume("/v", "web", "own", "", ""),))
    assert not make_desired(host, again(host), prune=True).pending
