"""What is mounted inside volumes and shown twice: by mountinfo written by hand."""

from __future__ import annotations

import pytest

from usernsplan.errors import RefusedError
from usernsplan.host.mounts import MountPoint
from usernsplan.volume import spots
from usernsplan.volume.spots import seen_twice

ROOT = MountPoint("8:1", "/", "/", "ext4")


def bind(source: str, point: str) -> MountPoint:
    """``mount --bind`` of something on the root file system."""
    return MountPoint("8:1", source, point, "ext4")


def disk(point: str, device: str = "8:2", root: str = "/") -> MountPoint:
    return MountPoint(device, root, point, "xfs")


def twice(monkeypatch: pytest.MonkeyPatch, mounts: list[MountPoint], *paths: str) -> set[str]:
    monkeypatch.setattr(spots, "all_mounts", lambda: [ROOT, *mounts])
    return set(seen_twice(paths or ("/srv/vol",)))


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        ([], set()),
        ([disk("/srv/vol/m")], set()),
        ([bind("/other", "/srv/vol/m")], set()),
        ([bind("/srv/volume/x", "/srv/vol/m")], set()),
        ([bind("/srv/vol/a", "/mnt")], set()),
        # What lies in the volume itself is met there.
        ([bind("/srv/vol/a", "/srv/vol/b")], {"/srv/vol/b"}),
        ([bind("/srv/vol/b", "/srv/vol/a")], {"/srv/vol/a"}),
        ([bind("/srv/vol/a/x/y", "/srv/vol/a/z")], {"/srv/vol/a/z"}),
        # Of several mounts of one folder, one is left.
        ([bind("/other", "/srv/vol/a"), bind("/other", "/srv/vol/b")], {"/srv/vol/b"}),
        ([bind("/other", "/srv/vol/b"), bind("/other", "/srv/vol/a")], {"/srv/vol/b"}),
        ([disk(f"/srv/vol/{name}") for name in "abc"], {"/srv/vol/b", "/srv/vol/c"}),
        ([disk("/srv/vol/a"), disk("/srv/vol/b", "8:3")], set()),
        # A part of what is mounted before it.
        ([disk("/srv/vol/a"), disk("/srv/vol/b", root="/x")], {"/srv/vol/b"}),
        ([disk("/srv/vol/a"), disk("/srv/vol/a/y", root="/x")], {"/srv/vol/a/y"}),
        ([disk("/srv/vol/a", root="/x"), disk("/srv/vol/b", root="/y")], set()),
        # The same outside as well.
        (
            [disk("/data"), disk("/srv/vol/a", root="/x"), disk("/srv/vol/b", root="/x")],
            {"/srv/vol/b"},
        ),
    ],
)
def test_a_mount_is_left_out_where_what_it_shows_is_met_under_another_name(
    monkeypatch: pytest.MonkeyPatch, mounts: list[MountPoint], expected: set[str]
) -> None:
    assert twice(monkeypatch, mounts) == expected


@pytest.mark.parametrize("outside", [[], [disk("/data")]])
def test_a_part_of_what_is_mounted_after_it_is_met_there_too(
    monkeypatch: pytest.MonkeyPatch, outside: list[MountPoint]
) -> None:
    # /srv/vol/a is /srv/vol/b/x: one of them is to be left out, and without a hole in /srv/vol/b it is the part.
    mounts = [*outside, disk("/srv/vol/b", root="/top"), disk("/srv/vol/a", root="/top/x")]
    assert twice(monkeypatch, mounts) == {"/srv/vol/a"}


def test_what_another_mount_hides_is_not_met_there(monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = [bind("/srv/vol/a", "/srv/vol/b"), MountPoint("0:9", "/", "/srv/vol/a", "tmpfs")]
    assert twice(monkeypatch, mounts) == set()


def test_of_several_volumes_a_mount_in_one_may_show_a_part_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mounts = [bind("/srv/b/x", "/srv/a/m")]
    assert twice(monkeypatch, mounts, "/srv/a", "/srv/b") == {"/srv/a/m"}
    assert twice(monkeypatch, mounts, "/srv/a") == set()
    shared = [bind("/other", "/srv/a/m"), bind("/other", "/srv/b/m")]
    assert twice(monkeypatch, shared, "/srv/a", "/srv/b") == {"/srv/b/m"}
    assert twice(monkeypatch, shared, "/srv/b", "/srv/a") == {"/srv/b/m"}


@pytest.mark.parametrize(
    ("source", "point"), [("/srv/vol", "/srv/vol/m"), ("/srv", "/srv/vol/m"), ("/", "/srv/vol/a/m")]
)
def test_a_mount_that_shows_the_whole_volume_is_refused(
    monkeypatch: pytest.MonkeyPatch, source: str, point: str
) -> None:
    with pytest.raises(RefusedError, match=point) as raised:
        twice(monkeypatch, [bind(source, point)])
    assert "unmount" in raised.value.hint


def test_a_mount_that_shows_another_of_the_volumes_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(RefusedError, match="/srv/a/m"):
        twice(monkeypatch, [bind("/srv/b", "/srv/a/m")], "/srv/a", "/srv/b")
