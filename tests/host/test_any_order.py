"""Commands in any order: whose ids they are stays clear, and files, ledger and events say the same."""

from __future__ import annotations

import os
import shutil
import tempfile
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.command import here, needs_root
from usernsplan.formats import subid
from usernsplan.holdings import holdings, own_ids
from usernsplan.ids import IdRange, IdSet
from usernsplan.layout import Layout
from usernsplan.ledger import open_ledger
from usernsplan.ledger.fold import fold
from usernsplan.mapping import KINDS
from usernsplan.model import ROOT, Allocation, LedgerState, Quarantined

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.mapping import Kind

# What others wrote, and may stay or go only as a whole.
LINES = {
    "alice": (IdRange(100000, 65536), IdRange(300000, 1000)),
    "core": (IdRange(10000000, 100),),
    ROOT: (IdRange(400000, 65536),),
    "usernsplan-old": (IdRange(851968, 65536),),
}
TEXT = "".join(f"{owner}:{ids.start}:{ids.count}\n" for owner, own in LINES.items() for ids in own)
FILES = {
    "etc/passwd": "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\ncore:x:1001:1001::/:/bin/sh\n",
    "etc/group": "root:x:0:\nrender:x:104:\nalice:x:1000:\ncore:x:1001:\ndocker:x:990:\n",
    "etc/subuid": TEXT,
    "etc/subgid": f"# people\n{TEXT}{ROOT}:104:1\n",
    "var/lib/lxc/gpu/config": "lxc.idmap = u 0 400000 1000\nlxc.idmap = g 0 400000 104\n"
    "lxc.idmap = g 104 104 1\nlxc.idmap = g 105 400105 895\n",
    "home/alice/.config/containers/systemd/app.container": "[Container]\nUIDMap=0:2001:50\n",
    "etc/containers/systemd/web.container": "[Container]\nUIDMap=0:7000000:1000\n",
}
NAMES = ("web", "db", "cut", "web2")
STANDING = ("alice", "core", "gpu", "alice-app", "old", "web")
PASSES = ("u:1000:33", "g:104:50", "b:1000-1001:7", "g:docker:70000", "u:1001:0")

names = st.sampled_from(NAMES)
passes = st.lists(st.sampled_from(PASSES), max_size=2, unique=True).map(
    lambda some: [word for one in some for word in ("--pass", one)]
)
sizes = st.sampled_from((None, None, None, 100, 65536, 131072))
which = st.integers(0, 9)
starts = st.sampled_from((None, 589824, 655360, 720896))


def option(name: str, value: object) -> list[str]:
    return [] if value is None else [name, str(value)]


class Host(RuleBasedStateMachine):
    """A host below a folder, and any command on it."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        for path, text in FILES.items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text(text)
        for name in (*NAMES, *STANDING):
            place = self.root / "srv" / name / "file"
            if not place.exists():
                place.parent.mkdir(parents=True)
                place.touch()
                os.chown(place, 33, 33)
        self.folded = LedgerState()
        self.ledger = open_ledger(Layout(str(self.root)))

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    def run(self, *words: str) -> None:
        _, said = here(*words, "--root", self.root, status=None)
        assert "internal error" not in said, said

    @rule(name=names, size=sizes, passes=passes, start=starts)
    def allocate(self, name: str, size: int | None, passes: list[str], start: int | None) -> None:
        more = [*option("--size", size), *option("--start", start), *passes]
        self.run("allocate", "--strategy", "per-container", name, *more)

    @rule(name=names, owner=st.sampled_from(("alice", ROOT, "core")), size=sizes, passes=passes)
    def slice(self, name: str, owner: str, size: int | None, passes: list[str]) -> None:
        words = ("allocate", "--strategy", "per-container", name, "--within", owner)
        self.run(*words, *option("--size", size), *passes)

    @rule(name=st.sampled_from((*STANDING, "--all")))
    def adopt(self, name: str) -> None:
        self.run("adopt", name)

    def known(self, number: int) -> str:
        """One of the ledger's names; a few times one that it lacks."""
        found = [a.name for a in self.state().allocations]
        return found[number % len(found)] if found and number < 9 else NAMES[number % len(NAMES)]

    @rule(number=which, with_lines=st.booleans(), forget=st.booleans())
    def release(self, number: int, *, with_lines: bool, forget: bool) -> None:
        name = self.known(number)
        self.run("release", name, *(["--with-lines"] if with_lines else []), "--yes")
        if forget:
            self.run("release", "--forget", name, "--yes")

    @rule(old=which, new=names)
    def rename(self, old: int, new: str) -> None:
        self.run("rename", self.known(old), new)

    @rule(number=which, size=sizes, passes=passes, start=starts)
    def remap(self, number: int, size: int | None, passes: list[str], start: int | None) -> None:
        more = [*option("--size", size), *option("--start", start), *passes]
        self.run("remap", self.known(number), *more, "--yes")

    @rule(number=which)
    def undo(self, number: int) -> None:
        self.run("remap", self.known(number), "--undo", "--yes")

    @rule(number=which, folder=st.sampled_from((*NAMES, *STANDING)))
    def give(self, number: int, folder: str) -> None:
        words = ("fix-volume", f"/srv/{folder}", "--container", self.known(number))
        self.run(*words, "--mode", "shift", "--jobs", "1")

    @rule()
    def describe(self) -> None:
        """What export writes is what stands here."""
        plan = self.root / "plan.yaml"
        out, _ = here("export", "--root", self.root, status=None)
        plan.write_text(out)
        said = here("plan", plan, "--check", "--root", self.root, status=None)
        if self.state().allocations and not any(v.former for v in self.state().volumes):
            assert "Already up to date" in said[0], (out, *said)

    def state(self) -> LedgerState:
        return self.ledger.state()

    @invariant()
    def events_make_the_ledger(self) -> None:
        state, folded = self.state(), LedgerState()
        for event in self.ledger.events():
            folded = fold(folded, event)
        assert (folded.allocations, folded.quarantined) == (state.allocations, state.quarantined)
        assert [(v.path, v.name, v.former) for v in folded.volumes] == [
            (v.path, v.name, v.former) for v in state.volumes
        ]

    @invariant()
    def every_id_is_one_allocations(self) -> None:
        state = self.state()
        for kind in KINDS:
            for one, other in combinations(state.allocations, 2):
                if not self.is_slice_of(one, other) and not self.is_slice_of(other, one):
                    shared = own_ids(one, kind) & own_ids(other, kind)
                    assert not shared, (kind, one, other)
            for kept in state.quarantined:
                for one in state.allocations:
                    if not self.was_slice_of(kept, one) and not (
                        kept.was and self.is_slice_of(one, kept.was)
                    ):
                        assert not own_ids(one, kind) & IdSet((kept.reserved_range,)), (kept, one)

    def is_slice_of(self, one: Allocation, other: Allocation) -> bool:
        return one.within == other.owner and not other.within

    def was_slice_of(self, kept: Quarantined, other: Allocation) -> bool:
        return kept.was is not None and self.is_slice_of(kept.was, other)

    @invariant()
    def no_id_of_others_is_taken(self) -> None:
        for kind in KINDS:
            for one in self.state().allocations:
                for owner, ids in self.others(kind):
                    if owner not in {one.within, one.owner}:
                        assert not own_ids(one, kind) & IdSet((ids,)), (owner, one)
                if one.within:
                    lines = IdSet(ids for owner, ids in self.others(kind) if owner == one.within)
                    assert not own_ids(one, kind) - lines, one

    def others(self, kind: Kind) -> Iterator[tuple[str, IdRange]]:
        held = [line for a in self.state().allocations for line in self.lines_of(a, kind)]
        for line in self.file(kind):
            owner, start, count = line.split(":")
            if f"{owner}:{start}:{count}" not in held or self.was_there(line, kind):
                yield owner, IdRange(int(start), int(count))

    def file(self, kind: Kind) -> list[str]:
        text = (self.root / subid.PATHS[kind].lstrip("/")).read_text()
        return [line for line in text.splitlines() if line and not line.startswith("#")]

    def was_there(self, line: str, kind: Kind) -> bool:
        return line in FILES[subid.PATHS[kind].lstrip("/")].splitlines()

    def lines_of(self, a: Allocation, kind: Kind) -> list[str]:
        return [
            raw.decode().strip() for one in holdings(a) if one.kind == kind for raw in one.wanted
        ]

    @invariant()
    def lines_are_those_of_the_allocations(self) -> None:
        for kind in KINDS:
            wanted = {line for a in self.state().allocations for line in self.lines_of(a, kind)}
            there = self.file(kind)
            assert len(there) == len(set(there))
            assert wanted <= set(there)
            assert {line for line in there if not self.was_there(line, kind)} <= wanted

    @invariant()
    def files_have_the_ids_of_their_container(self) -> None:
        state = self.state()
        known = {a.name: a for a in state.allocations}
        for volume in state.volumes:
            one = known.get(volume.name)
            # One that was released, and made anew elsewhere, does not have the files of the old one.
            if one and one.event < volume.event and volume.former is None:
                seen = (self.root / volume.path.lstrip("/") / "file").lstat()
                assert one.mapping.uids.to_host(33) in {None, seen.st_uid}, (volume, one)


@needs_root
@pytest.mark.parametrize(
    ("examples", "steps"), [(6, 15), pytest.param(40, 30, marks=pytest.mark.slow)]
)
@pytest.mark.usefixtures("volume_step")
def test_commands_in_any_order_leave_a_host_that_is_consistent(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        Host, settings=settings(max_examples=examples, stateful_step_count=steps, deadline=None)
    )
