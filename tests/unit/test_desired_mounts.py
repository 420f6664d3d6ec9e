"""What a plan file comes to where it mounts volumes: the steps, what has to go first, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.each import each
from tests.unit.desired import PER_CONTAINER, again, applied, decided, file, refused, steps
from tests.unit.states import per_container, state
from usernsplan.errors import RefusedError
from usernsplan.formats.config import Config
from usernsplan.formats.spec_writer import text
from usernsplan.ids import IdRange
from usernsplan.layout import Layout
from usernsplan.mapping import IdMap, Mapping
from usernsplan.model import LedgerChange, MountSeen, Reservation, Volume, VolumeMount
from usernsplan.planner.defaults import of_spec
from usernsplan.planner.desired import fingerprint, make_desired
from usernsplan.planner.exported import exported
from usernsplan.planner.mounts import owned
from usernsplan.planner.recovery import as_changed
from usernsplan.planner.wanted import refuse_together
from usernsplan.report.desired import counts

if TYPE_CHECKING:
    from usernsplan import HostState

WEB = per_container("web", 589824).mapping
OURS = "/run/usernsplan/volumes/web"
OTHER = Mapping(WEB.uids, IdMap.of((0, 655360, 65536)))
SHIFT = VolumeMount("/m", "/a", "web", "shift", WEB, run="r1")
OWN = VolumeMount("/m", "/a", "web", "own", owned((589824, 589824), (0, 0)), "0:0", run="r1")


def volumes(*said: str, name: str = "web") -> str:
    return (
        PER_CONTAINER
        + f"engines: []\ncontainers:\n- {{name: {name}, volumes: [{', '.join(said)}]}}\n"
    )


def web(*mounts: VolumeMount, given: tuple[Volume, ...] = ()) -> HostState:
    """A host that has web, these mounts, and these volumes whose files were changed."""
    host = applied(state(), decided(state(), volumes()))
    return as_changed(host, {}, LedgerChange(mounts=mounts, volumes=given))


# The steps.


@each(
    ("said", "step"),
    [
        ("{path: /a, method: idmap}", f"+ mount {OURS}/a: /a for web (own 0:0)"),
        ("{path: /a/b, mode: shift, method: idmap}", f"+ mount {OURS}/a-b: /a/b for web (shift)"),
        (
            "{path: /a, mode: shift, method: idmap, persist: true}",
            "+ mount /var/lib/usernsplan/volumes/web/a: /a for web (shift), returns at boot",
        ),
        (
            "{path: /a, user: '5:6', method: idmap, at: /m, read-only: true, protect: nosuid, cross-mounts: true}",
            "+ mount /m: /a for web (own 5:6), read-only, protected by nosuid, with the mounts in it",
        ),
        (
            "{path: /a, method: auto}",
            "~ volume /a: fix for web (own 0:0), with a mount where one is possible",
        ),
    ],
)
def test_what_is_mounted(said: str, step: str) -> None:
    desired = decided(web(), volumes(said))
    assert steps(web(), volumes(said)) == [step]
    assert (desired.to_fix, counts(desired)) == (
        1,
        {"add": 0, "change": 0, "remove": 0, "volumes": 1},
    )
    # On a host without the container it is the same mount.
    assert steps(state(), volumes(said))[-1] == step
    after = applied(web(), desired)
    assert steps(after, volumes(said), prune=True) == []


def test_two_volumes_of_one_name_get_mount_points_of_their_own() -> None:
    said = volumes("{path: /a/b, method: idmap}", "{path: /a-b, method: idmap}")
    assert [s.name for s in decided(web(), said).steps] == [f"{OURS}/a-b", f"{OURS}/a-b.2"]


@each(
    ("noted", "said", "why"),
    [
        (SHIFT, "mode: shift, at: /m", None),
        (OWN, "at: /m", None),
        (replace(SHIFT, at=f"{OURS}/a"), "mode: shift", None),
        # The folder of a container that was renamed has its former name.
        (replace(SHIFT, at="/run/usernsplan/volumes/old/a"), "mode: shift", None),
        (replace(SHIFT, lasting="service"), "mode: shift, at: /m, persist: true", None),
        (replace(SHIFT, options=("noexec", "ro")), "mode: shift, at: /m, read-only: true", None),
        (replace(SHIFT, mapping=OTHER), "mode: shift, at: /m", "it has another map"),
        (replace(OWN, mapping=owned((589824, 589825), (0, 0))), "at: /m", "it has another map"),
        (OWN, "user: 5, at: /m", "it has another mode or user"),
        (OWN, "mode: shift, at: /m", "it has another mode or user"),
        (SHIFT, "mode: shift, at: /n", "it is at /m"),
        (SHIFT, "mode: shift", "it is at /m"),
        (SHIFT, "mode: shift, at: /m, read-only: true", "it is not read-only"),
        (replace(SHIFT, options=("ro",)), "mode: shift, at: /m", "it is read-only"),
        (SHIFT, "mode: shift, at: /m, persist: true", "it does not return at boot"),
        (replace(SHIFT, lasting="mount"), "mode: shift, at: /m", "it returns at boot"),
        (SHIFT, "mode: shift, at: /m, protect: parent", "nothing protects its source"),
        (replace(SHIFT, protect="nosuid"), "mode: shift, at: /m", "its source is protected by nosuid"),
        (SHIFT, "mode: shift, at: /m, cross-mounts: true", "it lacks the mounts in the volume"),
        (replace(SHIFT, crosses=True), "mode: shift, at: /m", "it shows the mounts in the volume"),
        (replace(SHIFT, source="/other"), "mode: shift, at: /m", "it shows /other for web"),
    ],
)  # fmt: skip
def test_a_mount_that_differs_from_the_file_is_replaced(
    noted: VolumeMount, said: str, why: str | None
) -> None:
    host, plan = web(noted), volumes(f"{{path: /a, method: idmap, {said}}}")
    desired = decided(host, plan)
    assert desired.pending is (why is not None)
    if why is not None:
        assert [(s.sign, s.kind) for s in desired.steps] == [("~", "mount")]
        assert desired.steps[0].text.endswith(f": {why}")
        assert [m.at for m in desired.mounts[0].instead] == [noted.at]
    # Nothing is pruned for it, and then all is right.
    assert desired.kept == ()
    assert steps(applied(host, desired), plan, prune=True) == []


@each(
    ("seen", "why", "goes_first"),
    [
        (MountSeen("/m", is_standing=True, mapping=WEB, options=("noexec",), of_source=("noexec",)), None, False),
        # Before Linux 6.15 the kernel does not tell the map.
        (MountSeen("/m", is_standing=True), None, False),
        (MountSeen("/m"), "nothing is mounted there", False),
        (MountSeen("/m", is_standing=True, forgotten="no unit"), "it does not return at boot: no unit", False),
        (MountSeen("/m", is_standing=True, mapping=OTHER), "it has another map than the recorded one", True),
        (MountSeen("/m", is_standing=True, options=("ro",)), "it is read-only, which nobody asked for", True),
        (MountSeen("/m", hidden_by="/"), "the mount at / hides it", False),
        # Somebody else's mount is nothing to this file.
        (MountSeen("/n"), None, False),
    ],
)  # fmt: skip
def test_a_recorded_mount_that_does_not_stand_so_is_made_again(
    seen: MountSeen, why: str | None, goes_first: bool
) -> None:
    host = replace(web(SHIFT, replace(SHIFT, at="/n", run="r2")), mounts=(seen,))
    said = volumes("{path: /a, mode: shift, method: idmap, at: /m}")
    desired = decided(host, said)
    assert [s.text for s in desired.steps] == (
        [] if why is None else [f"/a for web (shift): {why}"]
    )
    assert [m.at for one in desired.mounts for m in one.instead] == ["/m"] * goes_first


def test_the_mounts_of_a_container_follow_its_new_name() -> None:
    host = web(replace(SHIFT, at=f"{OURS}/a"))
    said = volumes("{path: /a, mode: shift, method: idmap}", name="new").replace(
        "name: new", "name: new, was: web"
    )
    assert steps(host, said) == ["~ container new: renamed from web"]
    after = applied(host, decided(host, said))
    assert [(m.at, m.name) for m in after.ledger.mounts] == [(f"{OURS}/a", "new")]
    assert steps(after, said, prune=True) == []


def test_two_mounts_that_change_places_both_go_first() -> None:
    host = web(SHIFT, replace(SHIFT, at="/n", source="/b", run="r2"))
    said = volumes(
        "{path: /a, mode: shift, method: idmap, at: /n}",
        "{path: /b, mode: shift, method: idmap, at: /m}",
    )
    desired = decided(host, said)
    assert [(s.sign, s.name) for s in desired.steps] == [("~", "/n"), ("~", "/m")]
    assert sorted(m.at for one in desired.mounts for m in one.instead) == ["/m", "/n"]
    assert steps(applied(host, desired), said) == []


def test_what_the_file_does_not_name_stays_unless_it_is_pruned() -> None:
    host = web(SHIFT, replace(SHIFT, at="/n", run="r2"))
    said = volumes("{path: /a, mode: shift, method: idmap, at: /n}")
    assert steps(host, said) == []
    assert decided(host, said).kept == ("mount /m",)
    pruned = decided(host, said, prune=True)
    assert [f"{s.sign} {s.kind} {s.name}" for s in pruned.steps] == ["- mount /m"]
    assert (pruned.pending, pruned.kept, counts(pruned)["remove"]) == (True, (), 1)
    assert fingerprint(pruned) != fingerprint(decided(host, said))
    assert [m.at for m in applied(host, pruned).ledger.mounts] == ["/n"]


def test_mounts_go_before_their_container_does() -> None:
    gone = steps(web(SHIFT), PER_CONTAINER + "engines: []\n", prune=True)
    assert [one.partition(":")[0] for one in gone] == ["- mount /m", "- container web"]


@each(
    ("noted", "given", "step"),
    [
        ((), (), "~ volume /a: fix for web (shift), with a mount where one is possible"),
        ((SHIFT,), (), None),
        ((replace(SHIFT, options=("ro",)),), (), None),
        ((), (Volume("/a", "web", "shift"),), None),
        ((OWN,), (), "~ volume /a: fix for web (shift), with a mount where one is possible: it has another mode or user"),
    ],
)  # fmt: skip
def test_with_auto_a_volume_is_right_by_either_method(
    noted: tuple[VolumeMount, ...], given: tuple[Volume, ...], step: str | None
) -> None:
    host = web(*noted, given=given)
    said = volumes("{path: /a, mode: shift, method: auto}")
    assert steps(host, said, prune=True) == ([] if step is None else [step])


@each(
    ("method", "said", "kind"),
    [
        (None, "/a", "volume"),
        ("chown", "/a", "volume"),
        ("idmap", "/a", "mount"),
        ("idmap", "{path: /a, method: chown}", "volume"),
        ("chown", "{path: /a, method: idmap}", "mount"),
    ],
)
def test_the_method_of_the_host_counts_where_the_file_names_none(
    method: str | None, said: str, kind: str
) -> None:
    config = Config(method=method)  # type: ignore[arg-type]
    spec = of_spec(file(volumes(said)), config)
    assert [s.kind for s in make_desired(web(), spec).steps] == [kind]


# What is refused.


TWICE = "the volume /a appears a second time; the first is in line 4"
BB = "- {name: bb, volumes: "


@each(
    ("aa", "bb", "message"),
    [
        ("/a", "{path: /a, method: idmap}", TWICE),
        ("{path: /a, method: idmap}", "/a", TWICE),
        ("{path: /a, method: auto}", "{path: /a, method: auto}", TWICE),
        (
            "{path: /a, method: idmap, at: /m}",
            "{path: /b, method: idmap, at: /m}",
            "the mount point /m appears a second time; the first is in line 4",
        ),
        (
            "{path: /a, method: idmap, at: /m}",
            "{path: /a, method: idmap, at: /m}",
            "the mount point /m appears a second time; the first is in line 4",
        ),
        ("/a", "{path: /a/b, method: idmap}", "the volume /a/b of 'bb' is inside /a, which belongs to 'aa'"),
        ("{path: /a/b, method: idmap}", "/a", "the volume /a/b of 'aa' is inside /a, which belongs to 'bb'"),
        ("/a", "{path: /b, method: idmap, at: /a}", "the mount point /a would hide the volume /a, or a part of it"),
        ("/a", "{path: /b, method: idmap, at: /a/m}", "the mount point /a/m would hide the volume /a, or a part of it"),
        ("/m/a", "{path: /b, method: idmap, at: /m}", "the mount point /m would hide the volume /m/a, or a part of it"),
        ("/a", "{path: /b, method: idmap, user: 70000}", "/b: the map of 'bb' has no user 70000:0"),
        ("/a", "{path: /b, method: idmap, at: /}", "the mount point / would hide the volume /b, or a part of it"),
    ],
)  # fmt: skip
def test_volumes_that_contradict_each_other(aa: str, bb: str, message: str) -> None:
    said = (
        PER_CONTAINER + "containers:\n- name: aa\n"
        f"  volumes: [{aa}]\n- name: bb\n  volumes: [{bb}]\n"
    )
    assert refused(state(), said) == f"p.yaml:6: {message}"


@each(
    ("aa", "bb"),
    [
        ("{path: /a, method: idmap}", "{path: /a, method: idmap}"),
        ("{path: /a, method: idmap}", "{path: /a/b, method: idmap}"),
        ("{path: /a, method: idmap, at: /m}", "{path: /b, method: idmap, at: /ma}"),
    ],
)
def test_one_volume_may_be_mounted_for_several_containers(aa: str, bb: str) -> None:
    said = PER_CONTAINER + f"containers:\n- {{name: aa, volumes: [{aa}]}}\n{BB}[{bb}]}}\n"
    host = applied(state(), decided(state(), said))
    assert len(host.ledger.mounts) == 2
    assert steps(host, said, prune=True) == []
    assert make_desired(host, again(host), prune=True).steps == ()


def test_an_undo_that_would_take_more_away_is_refused() -> None:
    together = (SHIFT, replace(SHIFT, at="/n"))
    with pytest.raises(RefusedError) as caught:
        refuse_together(Layout("/x"), SHIFT, together, [SHIFT])
    assert str(caught.value) == "run r1 mounted /x/m, and /x/n, which stays"
    assert caught.value.hint.endswith("usernsplan undo r1 --root /x")
    refuse_together(Layout("/x"), SHIFT, together, together)
    with pytest.raises(RefusedError, match="does not know the run"):
        refuse_together(Layout("/x"), replace(SHIFT, run=""), together, together)


# The file of a host as it is.


def test_a_mount_is_exported_as_it_was_asked_for() -> None:
    host = web(
        replace(OWN, at=f"{OURS}/a"),
        replace(SHIFT, at=f"{OURS}/more", options=("ro",)),
        replace(SHIFT, source="/b", lasting="service", protect="parent", crosses=True),
    )
    assert text(exported(host)).partition("  volumes:\n")[2] == (
        "  - path: /b\n    mode: shift\n    method: idmap\n    at: /m\n    persist: true\n"
        "    protect: parent\n    cross-mounts: true\n"
        "  - path: /a\n    mode: own\n    user: '0:0'\n    method: idmap\n"
        f"  - path: /a\n    mode: shift\n    method: idmap\n    at: {OURS}/more\n    read-only: true\n"
    )
    assert make_desired(host, again(host), prune=True).steps == ()


def test_an_export_leaves_no_method_to_the_config() -> None:
    host = web(SHIFT, given=(Volume("/b", "web", "shift"),))
    for method in (None, "chown", "idmap", "auto"):
        config = Config(method=method)
        found = exported(host, config)
        assert make_desired(host, of_spec(found, config), prune=True).steps == ()
        written = [v.method for v in found.containers[0].volumes]
        assert written == [None if method in {None, "chown"} else "chown", "idmap"]


@each(
    ("noted", "given"),
    [
        (replace(SHIFT, source="/a\udcff"), ()),
        (replace(SHIFT, at="/m\x1b"), ()),
        (SHIFT, (Volume("/a", "web", "shift"),)),
    ],
)
def test_a_mount_of_which_the_file_could_not_say_the_same_is_left_out(
    noted: VolumeMount, given: tuple[Volume, ...]
) -> None:
    [container] = exported(web(noted, given=given)).containers
    assert [v.method for v in container.volumes] == [None] * len(given)


def test_a_reservation_and_a_mount_are_kept_by_name() -> None:
    host = as_changed(web(SHIFT), {}, LedgerChange(reserve=(Reservation(IdRange(5, 1), "x"),)))
    assert decided(host, PER_CONTAINER).kept == ("web", "reservation 5", "mount /m")
