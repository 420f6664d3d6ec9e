"""Which options go with which method, and where a --at leads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.each import each
from tests.unit.states import per_container
from usernsplan.errors import InvalidValueError, RefusedError
from usernsplan.fixing import FixRequest
from usernsplan.layout import Layout
from usernsplan.model import LedgerState, Mode, Volume, VolumeMount
from usernsplan.volume import mounting, spots
from usernsplan.volume.decide import Meant

ASKED = FixRequest(("/srv/web",), "web")
WEB = per_container("web", 589824)
DB = per_container("db", 655360)
Words = dict[str, Any]
Method = Literal["chown", "idmap"]
CHANGES: list[tuple[str, Words]] = [
    ("discover", {"discover": "podman"}),
    ("reverse", {"reverse": True}),
    ("from", {"source": "db"}),
    ("from-map", {"from_map": ("b 0 1 2",)}),
    ("uid-map", {"uid_map": ("0:1:2",)}),
    ("gid-map", {"gid_map": ("0:1:2",)}),
]
PERMITS: list[tuple[str, Words]] = [
    ("unmapped", {"keep_unmapped": True}),
    ("outside-links", {"skip_outside_links": True}),
    ("drop-power", {"drop_power": True}),
    ("keep-power", {"keep_power": True}),
    ("again", {"again": True}),
    ("copy-up", {"copy_up": True}),
    ("jobs", {"jobs": 2}),
]
OF_MOUNTS: list[tuple[str, Words]] = [
    ("at", {"at": "/mnt"}),
    ("at", {"at": ""}),
    ("persist", {"persist": True}),
    ("read-only", {"read_only": True}),
    ("protect", {"protect": "nosuid"}),
]
OF_BOTH: list[Words] = [
    {"user": "33:33"},
    {"mode": "own"},
    {"mode": "shift"},
    {"user": "www", "passwd": "/img/etc/passwd"},
    {"cross_mounts": True},
    {"protected": True},
    {"take": True},
]


@each(
    ("method", "option", "words"),
    [
        *(("idmap", *one) for one in (*CHANGES, *PERMITS)),
        *(("chown", *one) for one in OF_MOUNTS),
    ],
)
def test_an_option_of_another_method_is_named(method: Method, option: str, words: Words) -> None:
    with pytest.raises(InvalidValueError) as error:
        mounting.settled(replace(ASKED, method=method, **words))
    assert error.value.option == option
    other = "chown" if method == "idmap" else "idmap"
    assert error.value.hint == f"leave it out, or use --method {other}"


@each(("option", "words"), CHANGES)
def test_auto_changes_the_disk_where_only_that_is_meant(option: str, words: Words) -> None:
    asked = replace(ASKED, method="auto", **words)
    assert mounting.settled(asked) == replace(asked, method="chown")
    for other, more in OF_MOUNTS:
        with pytest.raises(InvalidValueError, match=f"--{option} changes the disk") as error:
            mounting.settled(replace(asked, **more))
        assert error.value.option == other


@each("words", [{}, *OF_BOTH])
def test_what_goes_with_both_methods_is_left_alone(words: Words) -> None:
    for method in ("chown", "idmap", "auto"):
        asked = replace(ASKED, method=method, **words)
        assert mounting.settled(asked) == asked


@each(("option", "words"), [*PERMITS, *OF_MOUNTS])
def test_auto_may_be_given_what_only_one_method_needs(option: str, words: Words) -> None:
    asked = replace(ASKED, method="auto", **words)
    assert mounting.settled(asked) == asked, option


# What the ledger says.


def meant(ledger: LedgerState, *names: str, **words: Any) -> Meant:
    request = replace(ASKED, paths=names, method="idmap", **words)
    return mounting.as_mounted(Meant(request, ledger, WEB, names, lambda words: f"U {words}"))


BOTH = (replace(WEB, event=1), replace(DB, event=1))


@each(
    ("path", "name", "mode", "fact"),
    [
        ("/srv/web", "web", "shift", "/srv/web was given to 'web' by a change of owners"),
        ("/srv/web/in", "web", "shift", "contains /srv/web/in, which was given to 'web'"),
        ("/srv", "db", "shift", "lies in /srv, which was given to 'db'"),
        ("/srv/webs", "web", "shift", ""),
        # One owner is shown as another one, whoever it is.
        ("/srv/web", "web", "own", ""),
        ("/srv/web", "db", "own", "/srv/web was given to 'db' by a change of owners"),
    ],
)
def test_files_that_were_moved_are_not_moved_again_by_a_mount(
    path: str, name: str, mode: Mode, fact: str
) -> None:
    ledger = LedgerState(BOTH, volumes=(Volume(path, name, "shift", event=2),))
    found = mounting.against_mounts(meant(ledger, "/srv/web", mode=mode))
    assert [fact in one.fact for one in found] == [True] * bool(fact)
    back = f"U fix-volume {path} --container {name} --mode shift --reverse"
    assert all(back in one.remedy for one in found)
    assert all(("--take" in one.remedy) == (mode == "own") for one in found)


@each(
    ("words", "mode", "user"),
    [
        ({}, "shift", None),
        ({"mode": "own"}, "own", None),
        ({"user": "5:5"}, "own", "5:5"),
    ],
)
def test_a_mount_stays_as_it_was_unless_another_is_asked_for(
    words: Words, mode: str, user: str | None
) -> None:
    stands = VolumeMount("/mnt", "/srv/web", "web", "shift", WEB.mapping)
    found = meant(LedgerState(BOTH, mounts=(stands,)), "/srv/web", **words).request
    assert (found.mode, found.user) == (mode, user)
    assert meant(LedgerState(BOTH), "/srv/web").request.mode == "own"


# Where a --at leads.


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    root = tmp_path / "root"
    (root / "mnt").mkdir(parents=True)
    (root / "link").symlink_to("mnt")
    return Layout(str(root), str(root))


@pytest.mark.parametrize(
    ("words", "point"),
    [
        ("/mnt/web", "/mnt/web"),
        ("/mnt/web/", "/mnt/web"),
        ("//mnt//web", "/mnt/web"),
        ("/mnt/./web", "/mnt/web"),
        ("/new/folder/web", "/new/folder/web"),
        ("{root}/mnt/web", "/mnt/web"),
        # As the kernel will show it.
        ("/link/web", "/mnt/web"),
        ("web", "/mnt/web"),
    ],
)
def test_a_mount_point_has_one_name(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, words: str, point: str
) -> None:
    monkeypatch.chdir(f"{layout.root}/mnt")
    if words == "/link/web":
        words = f"{layout.root}{words}"
    assert spots.point_of(layout, words.format(root=layout.root)) == point


@pytest.mark.parametrize("words", ["", "/", ".", "/mnt/a\0b", "/mnt/..", "/mnt/a/../../b", "../x"])
def test_what_names_no_folder_is_no_mount_point(layout: Layout, words: str) -> None:
    with pytest.raises(InvalidValueError) as error:
        spots.point_of(layout, words)
    assert error.value.option == "at"
    assert error.value.hint


@pytest.mark.parametrize("words", ["/link", "/link/", "/./link"])
def test_a_symlink_is_named_by_its_real_path(layout: Layout, words: str) -> None:
    with pytest.raises(RefusedError, match="is a symlink") as error:
        spots.point_of(layout, words)
    assert error.value.option == "at"
    assert error.value.hint == f"name the real path, {layout.root}/mnt"


def test_a_mount_point_outside_the_root_is_refused(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    with pytest.raises(RefusedError, match="not below --root"):
        spots.point_of(layout, "mnt/web")
    Path(layout.root, "out").symlink_to("/mnt")
    with pytest.raises(RefusedError, match="not below --root"):
        spots.point_of(layout, "/out/web")
