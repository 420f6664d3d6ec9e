"""What engines print of a container, and what we take from it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.each import each
from usernsplan.errors import InvalidFileError
from usernsplan.formats.inspect import parse
from usernsplan.mapping import IdMap

BAD_PATHS = ('"/a\\u0000b"', '"/\\ud800"', "7", '["/srv"]', '"srv"', "1e999")


def entry(**more: Any) -> dict[str, Any]:
    return {"Name": "/web", "Mounts": [], **more}


def mount(source: str, kind: str = "bind") -> dict[str, Any]:
    return {"Type": kind, "Source": source, "Destination": "/data", "RW": True}


def test_sources_are_those_of_binds_and_volumes_each_once() -> None:
    mounts = [
        mount("/srv/a"),
        mount("/var/lib/x/_data", "volume"),
        mount("", "tmpfs"),
        mount("/srv/a"),
    ]
    [found] = parse(json.dumps([entry(Mounts=mounts)]), "docker")
    assert (found.name, found.sources, found.mapping, found.pid) == (
        "web",
        ("/srv/a", "/var/lib/x/_data"),
        None,
        0,
    )


def test_podman_tells_the_map_and_the_process() -> None:
    config = {"IDMappings": {"UidMap": ["0:589824:65536"], "GidMap": ["0:2:1", "3:3:65533"]}}
    [found] = parse(json.dumps([entry(HostConfig=config, State={"Pid": 42})]), "podman")
    assert found.pid == 42
    assert found.mapping is not None
    assert (found.mapping.uids, found.mapping.gids) == (
        IdMap.of((0, 589824, 65536)),
        IdMap.of((0, 2, 1), (3, 3, 65533)),
    )


@each(
    "text",
    [
        *(
            "",
            "nonsense",
            "{}x",
            "3",
            "[3]",
            "[[]]",
            '[{"Mounts": 3}]',
            '[{"Name": "x", "Mounts": [3]}]',
        ),
        '[{"Name": "x", "HostConfig": {"IDMappings": {"UidMap": ["0:0"], "GidMap": ["0:0:1"]}}}]',
        '[{"Name": "x", "HostConfig": {"IDMappings": {"UidMap": ["0:0:1"]}}}]',
        *(
            f'[{{"Name": "x", "State": {{"Pid": {pid}}}}}]'
            for pid in ('"many"', "1e999", "NaN", "-5", "[1]", "true", "0.5")
        ),
        *(
            f'[{{"Name": "x", "Mounts": [{{"Type": "bind", "Source": {source}}}]}}]'
            for source in BAD_PATHS
        ),
        *("[" * 100_000, '{"a":' * 100_000, "[" + "9" * 5000 + "]"),
    ],
)
def test_what_no_engine_prints_is_an_error_of_ours(text: str) -> None:
    with pytest.raises(InvalidFileError, match="podman container inspect") as caught:
        parse(text, "podman")
    assert "--container" in caught.value.hint


def test_an_empty_list_is_no_container() -> None:
    assert parse("[]", "docker") == ()
