"""usernsplan.yaml: what is read from it, and every way in which it can be wrong, by line and key."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.each import each
from tests.unit.specs import ODD, WHOLE
from usernsplan.errors import InvalidFileError
from usernsplan.formats import spec as formats
from usernsplan.formats.spec import (
    Spec,
    SpecContainer,
    SpecEngine,
    SpecReservation,
    SpecVolume,
    parse,
)
from usernsplan.formats.spec_writer import document, text
from usernsplan.ids import IdRange

ROOT_KEYS = (
    "version, strategy, pool, engines, publish, daemon, lines, containers, reservations, harden, hosts, "
    "size, block, container-id, dockerroot, max, identity"
)
CONTAINER_KEYS = (
    "name, owner, start, lines, publish, user, volumes, engines, pass, pass-privileged, within, was, adopt, local, map, "
    "harden, size, block, container-id, dockerroot, max, identity"
)
# A container with volumes.
ONE = "strategy: shared\ncontainers:\n- name: aa\n  volumes:\n"
VOLUME_KEYS = "path, mode, user, method, at, persist, read-only, protect, cross-mounts"


def errors(raw: bytes | str) -> list[str]:
    """What is said of a file, without its name: ``LINE: KEY: FACT``."""
    with pytest.raises(InvalidFileError) as caught:
        parse(raw.encode() if isinstance(raw, str) else raw, "p.yaml")
    said = str(caught.value).split("\n")
    assert all(line.startswith("p.yaml:") for line in said), said
    return [line.removeprefix("p.yaml:") for line in said]


def read(raw: bytes | str) -> Spec:
    return parse(raw.encode() if isinstance(raw, str) else raw, "p.yaml")


@pytest.fixture(params=["C", "Python"])
def _loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML with libyaml, and as it is where that was not built."""
    if request.param == "Python":
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)


both_loaders = pytest.mark.usefixtures("_loader")


# What is read.


@both_loaders
def test_every_key_is_read_with_its_line() -> None:
    spec = read(WHOLE)
    assert [list(c.lines) for c in spec.containers] == [
        [],
        ["name", "owner", "start", "user", "size", "volumes", "lines", "publish"],
        ["name", "local"],
    ]
    assert replace(spec, containers=tuple(replace(c, lines={}) for c in spec.containers)) == Spec(
        place="p.yaml",
        strategy="per-container",
        options={
            "size": 131072,
            "block": 1,
            "container-id": 33,
            "dockerroot": 7,
            "max": 1000,
            "identity": False,
        },
        pool=IdRange(589824, 458752),
        engines=(
            SpecEngine("docker"),
            SpecEngine("podman-auto", 5, publish="none"),
            SpecEngine("lxc"),
        ),
        daemon="web",
        containers=(
            SpecContainer("web", 17, "containers[0]"),
            SpecContainer(
                "db",
                18,
                "containers[1]",
                owner="somebody",
                start=720896,
                options={"size": 65536},
                volumes=(
                    SpecVolume("/srv/db", "own", "999:0", 24),
                    SpecVolume("/srv/other", "own", "33:0", 25),
                    SpecVolume("/srv/rootfs", "shift", "", 27),
                    SpecVolume(
                        "/srv/web",
                        "shift",
                        "",
                        28,
                        "idmap",
                        "/mnt/web",
                        persist=True,
                        read_only=True,
                        protect="nosuid",
                        cross_mounts=True,
                    ),
                    SpecVolume("/srv/logs", "own", "999:0", 36, "auto"),
                ),
                in_files=False,
                publish="passwd",
            ),
            SpecContainer("mine", 39, "containers[2]", local=True),
        ),
        reservations=(
            SpecReservation(IdRange(765536, 65536), "the NFS server", 44, "reservations[0]"),
            SpecReservation(IdRange(5, 1), "one", 46, "reservations[1]"),
        ),
        hosts=(("web1", ("web",)), ("*", ("db", "web"))),
        lines=spec.lines,
        in_files=True,
        publish="userdb",
    )
    assert list(spec.lines) == [
        *("version", "strategy", "size", "block", "container-id", "dockerroot", "max", "identity"),
        *("pool", "engines", "daemon", "containers", "hosts", "reservations", "lines", "publish"),
    ]
    assert list(spec.lines.values()) == [*range(2, 12), 15, 16, 40, 43, 47, 48]


@both_loaders
def test_only_the_strategy_is_needed() -> None:
    assert read("strategy: shared\n") == Spec("p.yaml", "shared", lines={"strategy": 1})


@both_loaders
@pytest.mark.parametrize(
    "raw",
    [
        b"\xef\xbb\xbfstrategy: shared\ncontainers:\n- aa\n",
        b"strategy: shared\r\ncontainers:\r\n- aa\r\n",
        b"strategy: shared\rcontainers:\r- aa\r",
        b"strategy: shared\ncontainers:\n- aa",
        b"strategy: shared\ncontainers:\n- 'aa'\n...\n",
        b"strategy: !!str shared\ncontainers: !!seq\n- !!str aa\n",
        b'{"strategy": "shared",\n"containers":\n["aa"]}',
        b"'strategy': >-\n  shared\ncontainers: [&a aa]",
    ],
    ids=[
        "BOM",
        "CRLF",
        "CR",
        "no last end",
        "an end of document",
        "plain tags",
        "JSON",
        "folded, and an anchor",
    ],
)
def test_what_yaml_takes_for_the_same(raw: bytes) -> None:
    spec = read(raw)
    assert (spec.strategy, [c.name for c in spec.containers]) == ("shared", ["aa"])


@both_loaders
def test_an_alias_is_what_it_stands_for() -> None:
    spec = read(
        "strategy: shared\ncontainers:\n- {name: aa, user: &u '33:34', volumes: [/a]}\n"
        "- {name: bb, user: *u, volumes: [/b]}\n"
    )
    assert [c.volumes[0].user for c in spec.containers] == ["33:34", "33:34"]


@both_loaders
@pytest.mark.parametrize(
    ("written", "user"),
    [
        ("0", "0:0"),
        ("33", "33:0"),
        ("'33'", "33:0"),
        ("'33:34'", "33:34"),
        ('"0:0"', "0:0"),
        ("'012:07'", "12:7"),
        # No digit above 59 stands after the colon of what YAML 1.1 takes for a number.
        ("1000:1000", "1000:1000"),
        ("33:60", "33:60"),
        ("33:60 # a comment", "33:60"),
    ],
)
def test_a_user_in_quotes_and_without(written: str, user: str) -> None:
    spec = read(f"strategy: shared\ncontainers:\n- name: aa\n  user: {written}\n  volumes: [/a]\n")
    assert spec.containers[0].volumes[0].user == user


def test_a_volume_has_the_user_of_its_container_unless_it_says_another() -> None:
    spec = read("""
strategy: shared
containers:
- name: aa
  volumes: [/plain, {path: /said, user: '1:2'}, {path: /shift, mode: shift}]
- name: bb
  volumes: [/later, {path: /said2, mode: own, user: 3}]
  user: '7:8'
""")
    assert [(v.path, v.mode, v.user) for c in spec.containers for v in c.volumes] == [
        ("/plain", "own", "0:0"),
        ("/said", "own", "1:2"),
        ("/shift", "shift", ""),
        ("/later", "own", "7:8"),
        ("/said2", "own", "3:0"),
    ]


def test_a_volume_has_several_mounts_at_different_places() -> None:
    [one] = read("""
strategy: shared
containers:
- name: aa
  user: 7
  volumes:
  - {path: /a, method: idmap}
  - {path: /a, method: idmap, at: /m, mode: shift}
""").containers
    assert [(v.at, v.mode, v.user) for v in one.volumes] == [
        ("", "own", "7:0"),
        ("/m", "shift", ""),
    ]


@pytest.mark.parametrize(
    ("written", "daemon"), [("false", False), ("'false'", "false"), ("web", "web"), ("'no'", "no")]
)
def test_daemon_is_a_name_or_false(written: str, daemon: str | bool) -> None:
    found = read(f"strategy: shared\ndaemon: {written}\n").daemon
    assert found == daemon
    assert type(found) is type(daemon)


@pytest.mark.parametrize(
    ("written", "ids"),
    [
        ("5", IdRange(5, 1)),
        ("'5-5'", IdRange(5, 1)),
        ("0-4294967294", IdRange(0, 4294967295)),
        ("4294967294", IdRange(4294967294, 1)),
        ("1000-2000", IdRange(1000, 1001)),
    ],
)
def test_ranges(written: str, ids: IdRange) -> None:
    assert read(f"strategy: shared\npool: {written}\n").pool == ids


# What is wrong.


@both_loaders
@each(
    ("raw", "said"),
    [
        # At the top
        ("strategy: x\n", "1: strategy: 'x' is not one of shared, single-uid, per-container"),
        ("size: 1\n", "1: the key 'strategy' is missing"),
        ("{}\n", "1: the key 'strategy' is missing"),
        (
            "strategy: per-contianer\n",
            (
                "1: strategy: 'per-contianer' is not one of shared, single-uid, per-container; "
                "did you mean per-container?"
            ),
        ),
        ("strategy: shared\nfoo: 1\n", f"2: foo: no such key; the keys are {ROOT_KEYS}"),
        (
            "strategy: shared\nStrategy: shared\n",
            "2: Strategy: no such key; did you mean strategy?",
        ),
        ("strategy: shared\non: 1\n", f"2: on: no such key; the keys are {ROOT_KEYS}"),
        ("strategy: shared\n? [a, b]\n: 1\n", f"2: ?: no such key; the keys are {ROOT_KEYS}"),
        (
            "strategy: shared\nversion: 2\n",
            "2: version: this usernsplan knows only version 1 of the format",
        ),
        ("strategy: shared\nversion: '1'\n", "2: version: '1' is not a whole number"),
        ("strategy: shared\nversion: 1.0\n", "2: version: '1.0' is not a whole number"),
        ("strategy: [shared]\n", "1: strategy: expected text"),
        ("strategy: {shared: 1}\n", "1: strategy: expected text"),
        (
            "strategy: true\n",
            "1: strategy: YAML reads 'true' as true or false: put it in quotes",
        ),
        # Numbers
        ("strategy: shared\nmax: '5'\n", "2: max: '5' is not a whole number"),
        ("strategy: shared\nmax: 5.0\n", "2: max: '5.0' is not a whole number"),
        ("strategy: shared\nmax: 1e3\n", "2: max: '1e3' is not a whole number"),
        ("strategy: shared\nmax: true\n", "2: max: 'true' is not a whole number"),
        ("strategy: shared\nmax:\n", "2: max: the value is missing: expected a whole number"),
        ("strategy: shared\nmax: [5]\n", "2: max: expected a whole number"),
        # Booleans
        ("strategy: shared\nidentity: 1\n", "2: identity: '1' is not true or false"),
        ("strategy: shared\nidentity: 'true'\n", "2: identity: 'true' is not true or false"),
        *(
            (
                f"strategy: shared\nidentity: {word}\n",
                f"2: identity: YAML readers disagree about '{word}': write true or false",
            )
            for word in ("on", "off", "yes", "no", "True", "FALSE", "Yes")
        ),
        (
            "strategy: shared\nidentity:\n",
            "2: identity: the value is missing: expected true or false",
        ),
        # Docker's daemon
        (
            "strategy: shared\ndaemon: no\n",
            "2: daemon: YAML readers disagree about 'no': write true or false",
        ),
        ("strategy: shared\ndaemon: ''\n", "2: daemon: '' is not printable text"),
        # Ranges
        ("strategy: shared\npool: 10-5\n", "2: pool: no such range of ids: start 10, count -4"),
        (
            "strategy: shared\npool: 4294967295\n",
            "2: pool: no such range of ids: start 4294967295, count 1",
        ),
        (
            "strategy: shared\npool: 0-4294967295\n",
            "2: pool: no such range of ids: start 0, count 4294967296",
        ),
        ("strategy: shared\npool: 5 - 10\n", "2: pool: '5 - 10' is not a range"),
        ("strategy: shared\npool: 1000:10\n", None),
        ("strategy: shared\npool: [5, 10]\n", "2: pool: expected a range FIRST-LAST"),
        ("strategy: shared\npool: 5..10\n", "2: pool: '5..10' is not a range"),
        (
            "strategy: shared\npool: 2001-01-01\n",
            "2: pool: YAML reads '2001-01-01' as a date: put it in quotes",
        ),
        # Engines
        ("strategy: shared\nengines: docker\n", "2: engines: expected a list"),
        ("strategy: shared\nengines: {name: docker}\n", "2: engines: expected a list"),
        ("strategy: shared\nengines:\n", "2: engines: expected a list"),
        (
            "strategy: shared\nengines:\n- [docker]\n",
            "3: engines[0]: expected keys and values: name, containers, start, ids-per-pod, publish",
        ),
        (
            "strategy: shared\nengines:\n- containers: 5\n",
            "3: engines[0]: the key 'name' is missing",
        ),
        (
            "strategy: shared\nengines:\n- docker\n- name: lxc\n  count: 5\n",
            "5: engines[1].count: no such key; the keys are name, containers, start, ids-per-pod, publish",
        ),
        (
            "strategy: shared\nengines:\n- {name: lxc, containers: many}\n",
            "3: engines[0].containers: 'many' is not a whole number",
        ),
        # Containers
        ("strategy: shared\ncontainers: web\n", "2: containers: expected a list"),
        ("strategy: shared\ncontainers: {web: {}}\n", "2: containers: expected a list"),
        ("strategy: shared\ncontainers:\n", "2: containers: expected a list"),
        (
            "strategy: shared\ncontainers: ['']\n",
            "2: containers[0]: '' is not printable text",
        ),
        (
            "strategy: shared\ncontainers: [[web]]\n",
            f"2: containers[0]: expected keys and values: {CONTAINER_KEYS}",
        ),
        (
            "strategy: shared\ncontainers:\n- size: 5\n",
            "3: containers[0]: the key 'name' is missing",
        ),
        (
            "strategy: shared\ncontainers:\n- aa\n- bb\n- aa\n",
            "5: containers[2]: 'aa' appears a second time; the first is in line 3",
        ),
        (
            "strategy: shared\ncontainers:\n- name: aa\n  pool: 5\n",
            f"4: containers[0].pool: no such key; the keys are {CONTAINER_KEYS}",
        ),
        (
            "strategy: shared\ncontainers:\n- name: aa\n  start: x\n",
            "4: containers[0].start: 'x' is not a whole number",
        ),
        (
            "strategy: shared\ncontainers:\n- name: aa\n  owner: ~\n",
            "4: containers[0].owner: YAML reads '~' as nothing: put it in quotes",
        ),
        (
            "strategy: shared\ncontainers:\n- name: aa\n  user: root\n",
            "4: containers[0].user: 'root' is not a user of the container in numbers, '33:33'",
        ),
        (
            "strategy: shared\ncontainers:\n- name: aa\n  user: 33:33\n",
            "4: containers[0].user: YAML reads '33:33' as a number to base 60; put it in quotes",
        ),
        *(
            (
                f"strategy: shared\ncontainers:\n- name: aa\n  user: '{user}'\n",
                f"4: containers[0].user: '{user}' is not a user of the container in numbers, '33:33'",
            )
            for user in (
                "",
                ":",
                "33:",
                ":33",
                "33:33:33",
                "-1",
                "+1",
                "33 ",
                "0x21",
                "12345678901",
                "٣:٣",
            )
        ),
        # Volumes
        (
            "strategy: shared\ncontainers:\n- {name: aa, volumes: /a}\n",
            "3: containers[0].volumes: expected a list",
        ),
        (
            "strategy: shared\ncontainers:\n- name: aa\n  volumes:\n  - /b\n  - a/b\n",
            "6: containers[0].volumes[1]: 'a/b' is not an absolute path without '..'",
        ),
        *(
            (
                f"strategy: shared\ncontainers:\n- name: aa\n  volumes: ['{path}']\n",
                f"4: containers[0].volumes[0]: '{path}' is not an absolute path without '..'",
            )
            for path in ("", ".", "/..", "/../a", "/a/..", "/a/../b", "~/a", " /a")
        ),
        (
            "strategy: shared\ncontainers:\n- name: aa\n  volumes: [7]\n",
            "4: containers[0].volumes[0]: YAML reads '7' as a number: put it in quotes",
        ),
        (
            "strategy: shared\ncontainers:\n- name: aa\n  volumes:\n  - mode: own\n",
            "5: containers[0].volumes[0]: the key 'path' is missing",
        ),
        (
            "strategy: shared\ncontainers:\n- name: aa\n  volumes:\n  - path: /a\n    mode: copy\n",
            "6: containers[0].volumes[0].mode: 'copy' is not one of own, shift",
        ),
        (
            "strategy: shared\ncontainers:\n- name: aa\n  volumes:\n  - path: /a\n    mode: shift\n    user: 33\n",
            "5: containers[0].volumes[0]: 'user' is only for mode own; mode shift keeps every owner",
        ),
        (
            "strategy: shared\ncontainers:\n- name: aa\n  volumes:\n  - /a\n  - {path: /a, mode: shift}\n",
            "6: containers[0].volumes[1]: /a appears a second time; the first is in line 5",
        ),
        (
            "strategy: shared\ncontainers:\n- name: aa\n  volumes:\n  - path: /a\n    size: 5\n",
            f"6: containers[0].volumes[0].size: no such key; the keys are {VOLUME_KEYS}",
        ),
        (
            "strategy: shared\ncontainers:\n- name: aa\n  volumes:\n  - path: /a\n    method: idmpa\n",
            (
                "6: containers[0].volumes[0].method: 'idmpa' is not one of chown, idmap, auto; "
                "did you mean idmap?"
            ),
        ),
        (
            ONE + "  - {path: /a, method: idmap, protect: nosiud}\n",
            (
                "5: containers[0].volumes[0].protect: 'nosiud' is not one of nosuid, parent; "
                "did you mean nosuid?"
            ),
        ),
        (
            ONE + "  - {path: /a, method: idmap, read_only: true}\n",
            "5: containers[0].volumes[0].read_only: no such key; did you mean read-only?",
        ),
        (
            ONE + "  - {path: /a, method: idmap, at: mnt/a}\n",
            "5: containers[0].volumes[0].at: 'mnt/a' is not an absolute path without '..'",
        ),
        (
            ONE + "  - {path: /a, method: idmap, persist: yes}\n",
            (
                "5: containers[0].volumes[0].persist: "
                "YAML readers disagree about 'yes': write true or false"
            ),
        ),
        *(
            (
                ONE + f"  - /b\n  - {{path: /a{method}, {key}: {value}}}\n",
                f"6: containers[0].volumes[1]: '{key}' is only for method idmap",
            )
            for method in ("", ", method: chown", ", method: auto")
            for key, value in (
                ("at", "/m"),
                ("persist", "false"),
                ("read-only", "true"),
                ("protect", "parent"),
                ("cross-mounts", "true"),
            )
        ),
        *(
            (
                ONE + f"  - {{path: /a, {first}}}\n  - {{path: /a, {second}}}\n",
                "6: containers[0].volumes[1]: /a appears a second time; the first is in line 5",
            )
            for first, second in (
                ("method: idmap", "method: idmap"),
                ("method: idmap, at: /m", "method: idmap, at: /m, read-only: true"),
                ("method: idmap, at: /m", "method: chown"),
                ("method: auto", "method: idmap, at: /m"),
                ("mode: own", "method: idmap, at: /m"),
            )
        ),
        # Reservations
        ("strategy: shared\nreservations: 5-6\n", "2: reservations: expected a list"),
        (
            "strategy: shared\nreservations: [5-6]\n",
            "2: reservations[0]: expected keys and values: ids, for",
        ),
        (
            "strategy: shared\nreservations:\n- ids: 5-6\n",
            "3: reservations[0]: the key 'for' is missing",
        ),
        (
            "strategy: shared\nreservations:\n- for: me\n",
            "3: reservations[0]: the key 'ids' is missing",
        ),
        (
            "strategy: shared\nreservations:\n- {ids: 5-6, for: ''}\n",
            "3: reservations[0].for: '' is not printable text",
        ),
        (
            "strategy: shared\nreservations:\n- {ids: 5, for: me}\n- {ids: 5-5, for: you}\n",
            "4: reservations[1]: 5 appears a second time",
        ),
        (
            "strategy: shared\nreservations:\n- {ids: 5, for: me, since: now}\n",
            "3: reservations[0].since: no such key; the keys are ids, for",
        ),
    ],
)
def test_what_is_wrong_is_told_with_line_and_key(raw: str, said: str | None) -> None:
    found = errors(raw)
    assert len(found) == 1
    assert found[0].startswith("2: pool: ") if said is None else found == [said]


@both_loaders
@each(
    "number",
    # 60010 in YAML 1.1 and text in 1.2; 5349 and 12345; 16 in both, but no plain decimal; 1000 and text; binary.
    ["1000:10", "012345", "0x10", "1_000", "0b11", "+5", "00", "1:0", "-0"],
)
@each(
    ("before", "key"),
    [
        ("strategy: per-container\nsize: ", "2: size"),
        ("strategy: per-container\ncontainers:\n- name: aa\n  start: ", "4: containers[0].start"),
        ("strategy: per-container\npool: ", "2: pool"),
        (
            "strategy: per-container\nengines:\n- name: podman-auto\n  containers: ",
            "4: engines[0].containers",
        ),
        ("strategy: per-container\nversion: ", "2: version"),
    ],
)
def test_numbers_that_readers_take_for_others_are_caught(
    number: str, before: str, key: str
) -> None:
    [said] = errors(f"{before}{number}\n")
    assert said == f"{key}: '{number}' is not a plain decimal number: YAML may read another value"


@both_loaders
@each(
    ("word", "read_as"),
    [
        *(
            (word, "true or false")
            for word in ("yes", "no", "on", "off", "true", "False", "YES", "Off")
        ),
        *((word, "nothing") for word in ("null", "~", "Null")),
        *(
            (word, "a number")
            for word in (
                "12",
                "012",
                "0x1F",
                "1_000",
                "1000:10",
                "1.5",
                "6.8523015e+5",
                ".inf",
                ".NaN",
            )
        ),
        *((word, "a date") for word in ("2026-01-01", "2001-12-14t21:59:43.10-05:00")),
    ],
)
@each(
    ("before", "key"),
    [
        ("containers:\n- name: ", "3: containers[0].name"),
        ("containers:\n- name: aa\n  owner: ", "4: containers[0].owner"),
        ("reservations:\n- ids: 5-6\n  for: ", "4: reservations[0].for"),
        ("engines:\n- name: ", "3: engines[0].name"),
    ],
)
def test_what_yaml_does_not_take_for_text_is_no_text(
    word: str, read_as: str, before: str, key: str
) -> None:
    lines = f"strategy: shared\n{before}{word}\n"
    assert errors(lines) == [f"{key}: YAML reads '{word}' as {read_as}: put it in quotes"]


@both_loaders
@each(
    "word", ["yes", "on", "null", "~", "12", "012", "2026-01-01", "1000:10", "=", "<<", "y", "0o7"]
)
def test_in_quotes_it_is_text(word: str) -> None:
    assert read(f"strategy: shared\ncontainers: ['{word}']\n").containers[0].name == word
    assert read(f'strategy: shared\ncontainers: ["{word}"]\n').containers[0].name == word


@both_loaders
@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (
            "strategy: shared\nmax: 5\nstrategy: shared\n",
            "3: strategy: duplicate key: the first is in line 1",
        ),
        (
            "strategy: shared\n'strategy': shared\n",
            "2: strategy: duplicate key: the first is in line 1",
        ),
        (
            "strategy: shared\ncontainers:\n- name: aa\n  name: bb\n",
            "4: containers[0].name: duplicate key: the first is in line 3",
        ),
        (
            "strategy: shared\ncontainers:\n- name: aa\n  volumes:\n  - path: /a\n    path: /a\n",
            "6: containers[0].volumes[0].path: duplicate key: the first is in line 5",
        ),
        (
            "strategy: shared\nengines:\n- name: aa\n  name: aa\n",
            "4: engines[0].name: duplicate key: the first is in line 3",
        ),
        (
            "strategy: shared\nreservations:\n- ids: 5\n  for: me\n  ids: 5\n",
            "5: reservations[0].ids: duplicate key: the first is in line 3",
        ),
        (
            '{"strategy": "shared", "strategy": "shared"}',
            "1: strategy: duplicate key: the first is in line 1",
        ),
    ],
)
def test_equal_keys_are_caught_at_every_level(raw: str, said: str) -> None:
    assert errors(raw) == [said]


@both_loaders
def test_several_errors_are_told_at_once_in_the_order_of_their_lines() -> None:
    found = errors("""\
reservations:
- {ids: 1}
containers:
- name: yes
  size: 0x1
- bb
- bb
- {size: 1}
foo: 1
strategy: x
strategy: shared
""")
    assert [line.rpartition(": ")[0] or line for line in found] == sorted(
        (line.rpartition(": ")[0] or line for line in found),
        key=lambda line: int(line.partition(":")[0]),
    )
    assert [line.split(": ")[:2] for line in found] == [
        ["2", "reservations[0]"],
        ["4", "containers[0].name"],
        ["5", "containers[0].size"],
        ["7", "containers[2]"],
        ["8", "containers[3]"],
        ["9", "foo"],
        ["10", "strategy"],
        ["11", "strategy"],
    ]


def test_errors_of_one_line_are_told_in_the_order_in_which_they_stand() -> None:
    found = errors("strategy: shared\ncontainers: [" + "1, " * 12 + "]\n")
    assert [line.split(": ")[1] for line in found] == [
        f"containers[{number}]" for number in range(12)
    ]


# What is no YAML, or not what it looks like.


@both_loaders
@pytest.mark.parametrize(
    ("raw", "place"),
    [
        (b"strategy: shared\n---\nstrategy: shared\n", "2:1"),
        (b"strategy: shared\ncontainers:\n\t- aa\n", "3:"),
        (b"strategy: shared\ncontainers: [aa\n", "3:"),
        (b"strategy: 'shared\n", "2:1"),
        (b"strategy: shared\nmax: *a\n", "2:6"),
        (b"%YAML 3.0\n---\nstrategy: shared\n", "1:1"),
        (b"strategy: shared\nmax: 1: 2\n", "2:"),
        (b"strategy: shared\nmax: @a\n", "2:6"),
    ],
    ids=["two documents", "tab", "open list", "open quote", "no anchor", "version", "colon", "at"],
)
def test_what_is_no_yaml_is_told_with_its_place(raw: bytes, place: str) -> None:
    [said] = errors(raw)
    assert said.startswith(place)
    assert "not YAML: " in said


def test_a_byte_order_mark_belongs_in_front() -> None:
    assert errors(b"strategy: shared\n\xef\xbb\xbfmax: 1\n")[0].startswith("2:")


@both_loaders
@pytest.mark.parametrize("escape", ["\\UFFFFFFFF", "\\U00110000", "\\ud800"])
def test_a_character_that_unicode_lacks_is_an_error(escape: str) -> None:
    assert errors(f'strategy: shared\ncontainers: ["a{escape}b"]\n')


@both_loaders
@pytest.mark.parametrize("character", ["\0", "\a", "\x1b", "\x7f", "\ufffe"])
def test_a_character_that_yaml_forbids_is_told_with_its_line(character: str) -> None:
    [said] = errors(f"strategy: shared\ncontainers: [a{character}b]\n")
    assert said.startswith(("2: not YAML: ", "2:16: not YAML: "))


@pytest.mark.parametrize("character", ["\0", "\a", "\x1b", "\x7f", "\ufffe"])
def test_a_character_that_yaml_forbids_is_an_error(character: str) -> None:
    with pytest.raises(InvalidFileError, match="not YAML"):
        read(f"strategy: shared\ncontainers: [a{character}b]\n")


@each("escape", ["\\0", "\\a", "\\e", "\\x7f", "\\n", "\\t", "\\u200b", "\\_", "\\u202e"])
@each(
    ("before", "after", "key"),
    [
        ("containers: [", "]", "containers[0]"),
        ("containers: [{name: aa, owner: ", "}]", "containers[0].owner"),
        ("daemon: ", "", "daemon"),
        ("reservations: [{ids: 5, for: ", "}]", "reservations[0].for"),
    ],
)
def test_text_that_cannot_be_printed_is_refused_and_shown_as_it_can(
    escape: str, before: str, after: str, key: str
) -> None:
    [said] = errors(f'strategy: shared\n{before}"a{escape}b"{after}\n')
    assert said.startswith(f"2: {key}: ")
    assert said.endswith(" is not printable text")
    assert said.isprintable()


def test_a_key_that_cannot_be_printed_is_shown_as_it_can() -> None:
    found = errors('strategy: shared\n"a\\e[31m\\np.yaml:1: max": 1\n')
    assert len(found) == 1
    assert found[0].isprintable()


@pytest.mark.parametrize(
    "raw", [b"strategy: shared\ncontainers: [\xff]\n", b"strategy: shared\nmax: '\xc3('\n"]
)
def test_what_is_not_utf8_is_told_with_its_line(raw: bytes) -> None:
    assert errors(raw) == ["2: not UTF-8"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_other_encodings_of_unicode_are_not_read(encoding: str) -> None:
    assert errors("strategy: shared\n".encode(encoding)) == ["1: not UTF-8"]


@both_loaders
@pytest.mark.parametrize("raw", ["", "\n\n", "# a comment\n\n# another\n", "---\n...\n", "\ufeff"])
def test_an_empty_file_is_an_error(raw: str) -> None:
    with pytest.raises(InvalidFileError) as caught:
        read(raw)
    assert str(caught.value).startswith(("p.yaml:1: ", "p.yaml:2: "))


@both_loaders
@pytest.mark.parametrize(
    "raw",
    ["- a\n", "hello\n", "~\n", "5\n", "[]\n", "!!set {strategy}\n", "!!omap [strategy: shared]\n"],
)
def test_what_is_no_mapping_at_the_top_is_an_error(raw: str) -> None:
    assert errors(raw) == [f"1: expected keys and values: {ROOT_KEYS}"]


@both_loaders
@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("strategy: !!python/object/apply:os.system [id]\n", "1: strategy: expected text"),
        ("strategy: !!python/name:os.system x\n", "1: strategy: 'x' is not text"),
        ("strategy: !mine shared\n", "1: strategy: 'shared' is not text"),
        ("strategy: !!binary c2hhcmVk\n", "1: strategy: 'c2hhcmVk' is not text"),
        ("strategy: shared\nmax: !!float 5\n", "2: max: '5' is not a whole number"),
        ("strategy: shared\ncontainers: !mine [aa]\n", "2: containers: expected a list"),
        (
            "strategy: shared\ncontainers:\n- !mine {name: aa}\n",
            f"3: containers[0]: expected keys and values: {CONTAINER_KEYS}",
        ),
        (
            "strategy: shared\ncontainers:\n- &b {name: aa}\n- {<<: *b}\n",
            "4: the alias *b stands for more than one value",
        ),
        ("strategy: shared\ncontainers: [<<, =]\n", None),
    ],
)  # fmt: skip
def test_tags_and_merge_keys_are_not_understood(raw: str, said: str | None) -> None:
    found = errors(raw)
    assert said is None or found == [said]
    assert said is not None or len(found) == 2


@both_loaders
@pytest.mark.parametrize(
    "raw",
    [
        "&a\nstrategy: *a\n",
        "&a\n? *a\n: b\n",
        "strategy: shared\ncontainers: &a [*a]\n",
        "strategy: shared\ncontainers:\n- &a {name: aa, volumes: [*a]}\n",
        "strategy: shared\nengines: &a\n- *a\n",
        "&a [*a]\n",
    ],
)
def test_what_contains_itself_is_an_error_and_not_the_end(raw: str) -> None:
    assert errors(raw)


@both_loaders
@pytest.mark.parametrize(
    "raw",
    [
        "[" * 20_000,
        "strategy: " + "[" * 5000 + "]" * 5000,
        "strategy: " + "{a: " * 2000 + "}" * 2000,
        "- " * 3000 + "a",
        "? " * 3000 + "a",
    ],
)
def test_depth_does_not_bring_us_down(raw: str) -> None:
    assert errors(raw) == ["1: nested too deeply"]


@both_loaders
@pytest.mark.parametrize(
    ("raw", "line"),
    [
        # 32 levels are read, the line of the next is told: a mapping, and then sequences.
        ("strategy:\n" + "".join(" " * deep + "-\n" for deep in range(1, 1500)), 33),
        ("\n\nstrategy: [[[\n" + "[" * 20_000, 4),
        ("strategy: " + "[\n" * 31 + "[" * 1500, 32),
        ("strategy: " + "[\n" * 32 + "[" * 1500, 32),
        ("strategy: shared\nengines:\n- podman\n- " + "{a: " * 2000, 4),
        ("# e\n" + "? " * 3000 + "a", 2),
    ],
)
def test_depth_is_told_with_its_line_whichever_reader_notices_it(raw: str, line: int) -> None:
    assert errors(raw) == [f"{line}: nested too deeply"]


@both_loaders
def test_a_text_that_names_the_depth_is_still_a_text() -> None:
    [said] = errors("strategy: shared\ncontainers: [exceeded maximum nesting depth\n")
    assert "not YAML: " in said


def test_as_much_as_no_plan_file_is_long() -> None:
    with pytest.raises(InvalidFileError, match="longer than 8388608 bytes"):
        read(b"strategy: shared\n#" + b"x" * (8 << 20))


def test_an_engine_stands_once() -> None:
    [said] = errors(
        "strategy: per-container\nengines:\n- {name: podman-auto, containers: 5}\n- podman-auto\n"
    )
    assert said.startswith("4: engines[1]: ")


@pytest.mark.parametrize("user", ["4294967295", "'4294967295:0'", "'0:4294967295'", "9999999999"])
def test_a_user_is_an_id_that_can_exist(user: str) -> None:
    [said] = errors(f"strategy: shared\ncontainers:\n- name: aa\n  user: {user}\n")
    assert said.startswith("4: containers[0].user: ")


@given(
    raw=st.binary(max_size=60)
    | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))
)
def test_bytes_of_any_kind_are_read_or_refused(raw: bytes) -> None:
    for more in (
        raw,
        b"strategy: shared\n" + raw,
        b"strategy: shared\ncontainers: [" + raw + b"]\n",
    ):
        with suppress(InvalidFileError):
            parse(more, "p.yaml")


# What is written.

UNTOUCHED: Literal[False] = False
texts = st.sampled_from(ODD) | st.text(min_size=1, max_size=12).filter(str.isprintable)
numbers = st.integers(0, 9999999999)
ids = st.integers(0, 4294967294)
ranges = st.builds(lambda a, b: IdRange(min(a, b), abs(a - b) + 1), ids, ids) | ids.map(
    lambda a: IdRange(a, 1)
)
users = st.builds("{}:{}".format, ids, ids)
options = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("size", "block", "container-id", "dockerroot", "max"), numbers),
        "identity": st.booleans(),
    },
)
# Any text may be a path but for NUL, surrogates and '..'.
paths = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12).map(
    lambda text: "/" + text
).filter(lambda path: ".." not in path.split("/"))  # fmt: skip
volumes = st.builds(SpecVolume, paths, st.just("own"), users, st.just(0)) | st.builds(
    SpecVolume,
    paths,
    st.just("shift"),
    st.just(""),
    st.just(0),
    st.just("idmap"),
    st.just("") | paths,
    st.booleans(),
    st.booleans(),
    st.sampled_from(["", "nosuid", "parent"]),
    st.booleans(),
)
containers = st.builds(
    SpecContainer,
    name=texts,
    line=st.just(0),
    at=st.just(""),
    owner=st.none() | texts,
    start=st.none() | numbers,
    options=options,
    engines=st.lists(texts, max_size=3, unique=True).map(tuple),
    volumes=st.lists(volumes, max_size=3, unique_by=lambda v: v.path).map(tuple),
)


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    engines = st.builds(SpecEngine, texts, st.none() | numbers, st.none() | numbers)
    return Spec(
        place="",
        strategy=draw(st.sampled_from(formats.STRATEGIES)),
        options=draw(options),
        pool=draw(st.none() | ranges),
        engines=draw(
            st.none() | st.lists(engines, max_size=3, unique_by=lambda e: e.name).map(tuple)
        ),
        daemon=draw(st.none() | st.just(UNTOUCHED) | texts),
        containers=draw(st.lists(containers, max_size=3, unique_by=lambda c: c.name).map(tuple)),
        reservations=tuple(
            SpecReservation(one, draw(texts), 0, "")
            for one in draw(st.lists(ranges, max_size=3, unique=True))
        ),
    )


def without_lines(spec: Spec) -> Spec:
    return replace(
        spec,
        place="",
        lines={},
        containers=tuple(
            replace(
                c, line=0, at="", lines={}, volumes=tuple(replace(v, line=0) for v in c.volumes)
            )
            for c in spec.containers
        ),
        reservations=tuple(replace(r, line=0, at="") for r in spec.reservations),
    )


@given(spec=specs())
def test_what_is_written_is_read_as_it_was(spec: Spec) -> None:
    written = text(spec)
    assert without_lines(parse(written.encode(), "")) == spec


@given(spec=specs())
def test_other_readers_of_yaml_take_it_for_the_same(spec: Spec) -> None:
    assert yaml.safe_load(text(spec)) == document(spec)


@given(spec=specs())
def test_readers_of_yaml_1_2_take_it_for_the_same(spec: Spec) -> None:
    ruamel = pytest.importorskip("ruamel.yaml")
    assert ruamel.YAML(typ="safe", pure=True).load(text(spec)) == document(spec)


@given(spec=specs())
def test_no_word_is_left_bare_that_some_reader_may_not_take_for_text(spec: Spec) -> None:
    """What YAML 1.2's core schema, or 1.1's types, know other than text; PyYAML does not know all of them."""
    others = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}

    node = yaml.compose(text(spec))
    assert node is not None
    for scalar in scalars(node):
        if scalar.style is None and scalar.tag.endswith(":str"):
            assert scalar.value.lower() not in others


def scalars(node: yaml.Node) -> list[yaml.ScalarNode]:
    if isinstance(node, yaml.MappingNode):
        return [scalar for _, value in node.value for scalar in scalars(value)]
    if isinstance(node, yaml.SequenceNode):
        return [scalar for value in node.value for scalar in scalars(value)]
    assert isinstance(node, yaml.ScalarNode)
    return [node]


def test_a_file_is_written_as_people_would() -> None:
    volumes = (SpecVolume("/a b", "own", "33:33", 0), SpecVolume("/c", "shift", "", 0))
    spec = Spec(
        "",
        "per-container",
        {"size": 131072},
        engines=(SpecEngine("lxc"), SpecEngine("podman-auto", 7)),
        daemon=False,
        containers=(
            SpecContainer("web", 0, ""),
            SpecContainer(
                "yes", 0, "", start=720896, volumes=volumes
            ),
        ),
        reservations=(SpecReservation(IdRange(5, 1), "it's me", 0, ""), SpecReservation(IdRange(6, 2), "NFS", 0, "")),
    )  # fmt: skip
    assert (
        text(spec)
        == """\
version: 1
strategy: per-container
size: 131072
engines:
- lxc
- name: podman-auto
  containers: 7
daemon: false
containers:
- name: web
- name: 'yes'
  start: 720896
  volumes:
  - path: '/a b'
    mode: own
    user: '33:33'
  - path: /c
    mode: shift
reservations:
- ids: '6-7'
  for: NFS
""".replace("- ids: '6-7'\n", "- ids: 5\n  for: 'it''s me'\n- ids: '6-7'\n")
    )


def test_a_date_is_not_written_bare() -> None:
    spec = Spec("", "shared", containers=(SpecContainer("2026-01-01", 0, ""),))
    assert "name: '2026-01-01'" in text(spec)
