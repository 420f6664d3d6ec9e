"""What Podman's units say about ids."""

from __future__ import annotations

import pytest

from tests.each import each
from usernsplan.errors import InvalidValueError
from usernsplan.formats.quadlet_file import Ids, extent, settings, together
from usernsplan.mapping import Extent


def said(*texts: str) -> Ids:
    return together(
        one for number, text in enumerate(texts) for one in settings(text.encode(), f"/{number}")
    )


@each(
    ("texts", "uids", "gids", "userns"),
    [
        (
            ["[Container]\nUIDMap=0:1:9\nUIDMap=9:0:1\nGIDMap=0:1:9\n"],
            ["0:1:9", "9:0:1"],
            ["0:1:9"],
            "",
        ),
        # An empty value drops what came before, in a drop-in too.
        (
            ["[Container]\nUIDMap=0:1:9\n", "[Container]\nUIDMap=\nUIDMap=0:5:2\n"],
            ["0:5:2"],
            [],
            "",
        ),
        (["[Container]\nUserNS=auto\n", "[Container]\nUserNS=keep-id\n"], [], [], "keep-id"),
        (["[Container]\nUIDMap = 0:1:9 \r\n"], ["0:1:9"], [], ""),
        (["[Container]\nUIDMap=\\\n# a comment\n  0:1:9\n"], ["0:1:9"], [], ""),
        # Other sections, comments, other keys.
        (
            ["[Service]\nUIDMap=0:1:9\n[Container]\n#UIDMap=0:1:9\n;UIDMap=0:1:9\nImage=x\n"],
            [],
            [],
            "",
        ),
        (["UIDMap=0:1:9\n"], [], [], ""),
        (["[Pod]\nPodName=p\nGIDMap=0:1:9\n"], [], ["0:1:9"], ""),
        # As Podman 4.4 called them.
        (
            ["[Container]\nRemapUsers=manual\nRemapUid=0:1:9\nRemapGid=0:2:9\n"],
            ["0:1:9"],
            ["0:2:9"],
            "",
        ),
        (["[Container]\nRemapUsers=auto\n"], [], [], "auto"),
        # Words for podman run.
        (
            ['[Container]\nPodmanArgs=--uidmap 0:1:9 --gidmap=0:2:9 --userns "auto"\n'],
            ["0:1:9"],
            ["0:2:9"],
            "auto",
        ),
    ],
)
def test_a_unit_and_its_drop_ins(
    texts: list[str], uids: list[str], gids: list[str], userns: str
) -> None:
    found = said(*texts)
    assert ([*found.uids], [*found.gids], found.userns) == (uids, gids, userns)
    assert (found.place is not None) == bool(uids or gids or userns)


def test_the_place_is_the_first_line_about_ids() -> None:
    text = "[Container]\nContainerName=web\nImage=x\nSubUIDMap=alice\n"
    found = said(text, "[Container]\nUIDMap=0:1:9\n")
    assert (found.name, found.whose_ids) == ("web", "alice")
    assert found.place
    assert (found.place.path, found.place.number) == ("/1", 2)


@each(
    ("text", "expected", "is_host"),
    [
        ("0:100000:65536", Extent(0, 100000, 65536), False),
        ("5:7", Extent(5, 7, 1), False),
        ("0:@100000:9", Extent(0, 100000, 9), True),
    ],
)
def test_a_map_is_read(text: str, expected: Extent, is_host: bool) -> None:
    assert extent(text) == (expected, is_host)


@each("text", ["", "0", "+0:1:9", "u0:1:9", "0:1:9#3", "0:1:", "0x1:1:1", "0:1:0", "-1:1:1"])
def test_what_podman_reckons_itself_is_no_map(text: str) -> None:
    with pytest.raises(InvalidValueError):
        extent(text)
