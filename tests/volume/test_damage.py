"""Journals that were damaged: the run is named with its place and a remedy, and stops no other volume's work."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.command import here
from usernsplan.errors import RefusedError
from usernsplan.layout import Layout
from usernsplan.volume.journal import run
from usernsplan.volume.logs import _folder
from usernsplan.volume.parts import TOP

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.volume.tree import Host

DEEP = "[" * 100_000


def two_volumes(host: Host) -> Path:
    """A volume that was fixed, and another one that is yet to be; the folder of the run."""
    host.allocate("web")
    for place in (host.volume, host.outside):
        (place / "sub").mkdir()
        (place / "sub/file").touch()
    return host.runs / str(host.fix("--container", "web", "--mode", "shift")["run"])


def owners(top: Path) -> list[int]:
    return [os.lstat(path).st_uid for path in sorted(top.rglob("*"))]


def _folder_in_its_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


RUN_JSON: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "deep": lambda path: path.write_text(DEEP),
    "other types": lambda path: path.write_text('{"format": 2, "state": "done", "trees": [1e999]}'),
    "lacks fields": lambda path: path.write_text('{"format": 2, "state": "changing"}'),
    "a folder": _folder_in_its_place,
}


@pytest.mark.spread(3)
@pytest.mark.parametrize("damage", RUN_JSON.values(), ids=list(RUN_JSON))
def test_a_damaged_run_stops_its_own_volume_and_no_other(
    host: Host, damage: Callable[[Path], object]
) -> None:
    folder = two_volumes(host)
    damage(folder / "run.json")
    now = owners(host.volume)
    said = host.refusal("--container", "web", "--mode", "shift", "--again", status=9)
    assert str(folder / "run.json") in said
    assert f"mv {folder} " in said
    assert owners(host.volume) == now
    other = host.fix("--container", "web", "--mode", "shift", path=host.outside)
    assert other["counts"]["changed"] == 3
    # It stays where it is, is named by those who look, and is not taken for old.
    assert str(folder / "run.json") in here("list", "--root", host.root)[1]
    host.undo(str(other["run"]))
    assert str(folder / "run.json") in here("check", "--root", host.root, status=None)[0]
    pruned = here("history", "--prune-runs", "--older-than", "0h", "--root", host.root)
    assert f"run {folder.name} stays" in pruned[1]
    assert folder.is_dir()


def test_of_a_run_that_notes_nowhere_where_it_worked_its_log_decides(host: Host) -> None:
    """An older version noted it in run.json alone: what had changed something stops everything, nothing else does."""
    folder = two_volumes(host)
    (folder / "trees.json").unlink()
    (folder / "run.json").write_bytes(b"")
    assert "is damaged" in host.refusal("--container", "web", status=9, path=host.outside)
    for log in folder.glob("*.[0-9]*"):
        log.write_bytes(b"")
    host.fix("--container", "web", path=host.outside)


def _first_line(path: Path, line: object) -> None:
    _, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(
        b"".join([(line if isinstance(line, str) else json.dumps(line)).encode() + b"\n", *rest])
    )


LOGS: dict[str, Callable[[Path], object]] = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: os.truncate(path, 0),
    "cut": lambda path: os.truncate(path, path.stat().st_size - 3),
    "one bit": lambda path: path.write_bytes(
        path.read_bytes().replace(b'"common":[0,0]', b'"common":[1,0]')
    ),
    "deep": lambda path: _first_line(path, DEEP),
    "not text": lambda path: path.write_bytes(b"\xff\xfe" + path.read_bytes()),
}


@pytest.mark.spread(6)
@pytest.mark.parametrize("damage", LOGS.values(), ids=list(LOGS))
@pytest.mark.parametrize("more", [(), ("--dry-run",), ("--yes",)])
def test_by_a_damaged_log_nothing_is_taken_back(
    host: Host, damage: Callable[[Path], object], more: tuple[str, ...]
) -> None:
    folder = two_volumes(host)
    [log] = [path for path in folder.glob("folders.*") if path.stat().st_size]
    before, now = log.read_bytes(), owners(host.volume)
    damage(log)
    assert not log.exists() or log.read_bytes() != before
    state = (folder / "run.json").read_bytes()
    _, said = here("undo", folder.name, *more, "--root", host.root, status=9)
    assert f"{log} is damaged" in said
    assert f"mv {folder} " in said
    assert owners(host.volume) == now
    assert (folder / "run.json").read_bytes() == state
    # Put back from a backup, it serves.
    log.write_bytes(before)
    host.undo(folder.name)
    assert set(owners(host.volume)) == {0}


def test_of_a_run_of_an_older_version_every_line_is_looked_at(host: Host) -> None:
    """It noted no checksums: a line that is cut, or tells of a volume that the run does not have."""
    folder = two_volumes(host)
    [log] = [path for path in folder.glob("folders.*") if path.stat().st_size]
    content = json.loads((folder / "run.json").read_text())
    del content["sums"]
    (folder / "run.json").write_text(json.dumps(content))
    whole, now = log.read_bytes(), owners(host.volume)
    for raw in (whole[:-1], whole + b'{"p":[0],"i":[1,0,0]}\n', whole + b"x\n"):
        log.write_bytes(raw)
        _, said = here("undo", folder.name, "--root", host.root, status=9)
        assert f"{log} is damaged" in said
        assert owners(host.volume) == now
    log.write_bytes(whole)
    host.undo(folder.name)


@pytest.mark.parametrize(
    "line",
    [
        *({}, [], None, 7, {"p": [0]}, {"p": [0], "i": [0, 1]}, {"p": [0, ".."], "i": [0, 1, 2]}),
        *(
            {"p": [0, "a/b"], "i": [0, 1, 2]},
            {"p": [0], "i": [0, 1, "2"]},
            {"p": [0.5], "i": [0, 1, 2]},
        ),
        *(
            {"p": [0], "i": [0, 1, 2], "own": own}
            for own in ([], [1], [1, 2, 3], [-1, 0], [2**32 - 1, 0], ["0", 0], 5)
        ),
        *(
            {"p": [0], "i": [0, 1, 2], "others": [[[0, 0], [name]]]}
            for name in ("../x", "..", "", 7, None)
        ),
        {"p": [0], "i": [0, 1, 2], "others": 5},
        *(
            {"p": [0], "i": [0, 1, 2], "special": [special]}
            for special in ([], ["/x", *[0] * 10], [float("inf")] * 10)
        ),
        {"p": [0], "i": [0, 1, float("inf")]},
        {"p": [0], "i": [0, 1, 2], "left": ["\0"]},
    ],
    ids=lambda line: json.dumps(line)[:60],
)
def test_a_line_that_no_run_writes_is_no_note(line: object) -> None:
    with pytest.raises((ValueError, LookupError, TypeError, AttributeError, OverflowError)):
        _folder(line, TOP)  # type: ignore[arg-type]


def test_a_field_of_another_kind_is_damage(host: Host) -> None:
    folder = two_volumes(host)
    whole = (folder / "run.json").read_text()
    layout = Layout(str(host.root), str(host.root))
    assert run(layout, folder.name).sums
    odd: tuple[Any, ...] = (1.5, "x", {"a": 1}, [[[]]], -7.0)
    for field in json.loads(whole):
        for value in odd:
            if isinstance(value, str) and field in {"command", "container", "method"}:
                continue
            if field in {"format", "state"}:
                continue
            (folder / "run.json").write_text(json.dumps({**json.loads(whole), field: value}))
            with pytest.raises(RefusedError, match="is damaged"):
                run(layout, folder.name)
    for deep in (
        '"end": 1e999',
        '"end": NaN',
        '"stage": 9',
        '"mode": "idmap"',
        '"run": "another"',
        '"targets": {"uids": null}',
    ):
        (folder / "run.json").write_text(whole.rstrip()[:-1] + f", {deep}}}\n")
        with pytest.raises(RefusedError, match="is damaged"):
            run(layout, folder.name)


@pytest.mark.parametrize("state", ["done", "changing", "undoing"])
def test_a_run_of_a_method_that_is_unknown_is_neither_finished_nor_taken_back(
    host: Host, state: str
) -> None:
    """Another version made it: what it did to the volume is not for us to guess."""
    folder = two_volumes(host)
    content = json.loads((folder / "run.json").read_text())
    written = json.dumps({**content, "method": "grant", "state": state})
    (folder / "run.json").write_text(written)
    now = owners(host.volume)
    for more in ((), ("--dry-run",)):
        _, said = here("undo", folder.name, *more, "--root", host.root, status=9)
        assert "'grant', which this usernsplan does not know" in said
        assert f"usernsplan undo {folder.name} --root {host.root}" in said
    if state != "done":
        said = host.refusal("--container", "web", "--mode", "shift", status=9)
        assert f"run {folder.name} on" in said
    assert owners(host.volume) == now
    assert (folder / "run.json").read_text() == written
