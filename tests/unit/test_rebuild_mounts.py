"""The mounts of a lost ledger, as the journals of runs show them."""

from __future__ import annotations

from dataclasses import replace

from tests.each import each
from tests.unit.states import per_container, same_lines, state
from usernsplan.mapping import IdMap, Mapping
from usernsplan.model import VolumeMount
from usernsplan.planner.mounts import owned
from usernsplan.planner.rebuild import Given, make_rebuilt

WEB = per_container("web", 589824).mapping
OTHER = Mapping(IdMap.of((0, 655360, 65536)), IdMap.of((0, 655360, 65536)))
LINES = same_lines(b"usernsplan-web:589824:65536\nusernsplan-db:720896:65536\n")
MOUNT = VolumeMount("/m", "/a", "web", "shift", WEB, lasting="mount", protect="parent")
ALSO = replace(MOUNT, at="/n", mode="own", mapping=owned((589824, 589824), (0, 0)), user="0:0")
DONE = Given("r1", "web", WEB, "shift", None, ("/a",), mounts=(MOUNT,))


@each(
    ("runs", "recorded"),
    [
        ([DONE], [replace(MOUNT, run="r1")]),
        ([DONE._replace(mounts=(ALSO, MOUNT))], [replace(MOUNT, run="r1"), replace(ALSO, run="r1")]),
        # The last run at a place decides: it was made again, taken away, or is another volume's now.
        ([DONE, DONE._replace(run="r2")], [replace(MOUNT, run="r2")]),
        ([DONE, DONE._replace(run="r2", is_undone=True)], []),
        ([DONE._replace(is_undone=True), DONE._replace(run="r2")], [replace(MOUNT, run="r2")]),
        (
            [DONE, DONE._replace(run="r2", mounts=(replace(MOUNT, source="/b"),))],
            [replace(MOUNT, source="/b", run="r2")],
        ),
        ([DONE, DONE._replace(run="r2", mounts=(ALSO,), is_undone=True)], [replace(MOUNT, run="r1")]),
        # A run that changed files says nothing of a mount.
        ([DONE, DONE._replace(run="r2", mounts=())], [replace(MOUNT, run="r1")]),
    ],
)  # fmt: skip
def test_the_last_run_at_a_mount_point_decides(
    runs: list[Given], recorded: list[VolumeMount]
) -> None:
    found = make_rebuilt(state(**LINES), runs)
    assert list(found.change.mounts) == recorded
    assert not [one for one in found.left_out if one.what.startswith("mount")]


@each(
    ("run", "why"),
    [
        (DONE._replace(is_done=False), "run r1 was interrupted"),
        (DONE._replace(mapping=OTHER), "'web', whose ids are unknown or have changed"),
        (
            DONE._replace(container="gone", mapping=OTHER),
            "'gone', whose ids are unknown or have changed",
        ),
    ],
)
def test_a_mount_that_is_not_sure_is_left_out_and_named(run: Given, why: str) -> None:
    found = make_rebuilt(state(**LINES), [run])
    assert found.change.mounts == ()
    [left] = [one for one in found.left_out if one.what == "mount /m"]
    assert why in left.why
    # No file was changed, so no volume is recorded.
    assert found.change.volumes == ()


def test_a_mount_has_the_name_that_its_container_has_now() -> None:
    # The lines have the first name; only a later run shows the new one.
    later = DONE._replace(run="r2", container="www", mounts=(replace(ALSO, name="www"),))
    found = make_rebuilt(state(**LINES), [DONE, later])
    assert [(m.at, m.name) for m in found.change.mounts] == [("/m", "www"), ("/n", "www")]


def test_an_undone_run_says_nothing_of_its_container() -> None:
    undone = DONE._replace(container="gone", is_undone=True)
    found = make_rebuilt(state(**LINES), [undone])
    assert {a.name for a in found.change.add} == {"web", "db"}
    assert not [one for one in found.left_out if one.what == "gone"]
