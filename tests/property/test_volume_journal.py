"""Any folder that there can be is the same after it was written to a journal and read again."""

from __future__ import annotations

import json
import os
import tempfile
from array import array
from copy import deepcopy
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from usernsplan.volume.entries import Group
from usernsplan.volume.logs import Folder, Writer, joined, read
from usernsplan.volume.parts import TOP, Parts
from usernsplan.volume.passes import Form
from usernsplan.volume.renew import Proof

ID = st.integers(0, 4294967294)
# What statx gives: the kernel's own widths.
BIG = st.integers(0, 2**64 - 1)
OWNER = st.tuples(ID, ID)
NAME = st.one_of(
    st.binary(min_size=1, max_size=20)
    .map(lambda raw: os.fsdecode(raw.replace(b"/", b"-").replace(b"\0", b"\n")))
    .filter(lambda name: name != ".."),
    st.sampled_from(
        ["a", "b", "\n", '"', "\\", "\\u0041", "é", "\udcc3", "😀", "\u2028", "\r\n", "n" * 255]
    ),
)
PARTS = st.one_of(
    st.lists(st.sampled_from(["a", "b", "\n", "\udcff"]), max_size=4),
    st.lists(NAME, max_size=4),
    st.integers(100, 3000).map(lambda depth: ["d"] * depth),
).map(Parts.of)
RAW = st.one_of(st.none(), st.binary(max_size=30))
PROOF = st.one_of(
    st.none(), st.builds(Proof, st.integers(0, 2**63), st.text("0123456789abcdef", min_size=64))
)
GROUP = st.integers(1, 3).flatmap(
    lambda size: st.builds(
        Group,
        form=st.builds(Form, OWNER, st.integers(0, 0o177777), RAW, RAW, RAW),
        device=BIG,
        links=st.integers(1, 2**32),
        names=st.lists(st.one_of(NAME, st.just(".")), min_size=size, max_size=size),
        inodes=st.lists(BIG, min_size=size, max_size=size).map(lambda some: array("Q", some)),
        proofs=st.one_of(st.just([]), st.lists(PROOF, min_size=size, max_size=size)),
    )
)
FOLDER = st.builds(
    Folder,
    volume=st.integers(0, 3),
    parts=PARTS,
    device=BIG,
    inode=BIG,
    own=st.one_of(st.none(), OWNER),
    common=st.one_of(st.none(), OWNER),
    others=st.lists(st.tuples(OWNER, st.lists(NAME, max_size=3)), max_size=3),
    groups=st.lists(GROUP, max_size=2),
    left=st.lists(NAME, max_size=2),
)


def distinct(folders: list[Folder]) -> list[Folder]:
    """Of neighbours that are one folder, the first: they would be pieces."""
    kept: list[Folder] = []
    for folder in folders:
        if not kept or key(kept[-1]) != key(folder):
            kept.append(folder)
    return kept


def key(folder: Folder) -> tuple[int, Parts, int]:
    return (folder.volume, folder.parts, folder.inode)


def written(path: str, *runs: list[Folder]) -> bytes:
    """Each run appends with a writer of its own, as after a kill."""
    for folders in runs:
        writer = Writer(path)
        for folder in folders:
            writer.write(folder)
        writer.sync()
        writer.close()
    return Path(path).read_bytes()


@given(folders=st.lists(FOLDER, max_size=6).map(distinct), cut=st.integers(0, 6))
def test_what_was_noted_is_read_in_order_also_where_a_second_writer_went_on(
    folders: list[Folder], cut: int
) -> None:
    with tempfile.TemporaryDirectory() as below:
        path = f"{below}/folders.0"
        raw = written(path, folders[:cut], folders[cut:])
        assert list(read(path)) == folders
        assert raw.count(b"\n") == len(folders)
        for line in raw.splitlines():
            json.loads(line)


@given(folders=st.lists(FOLDER, min_size=1, max_size=4).map(distinct), data=st.data())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_a_log_that_a_kill_cut_short_is_read_up_to_its_last_whole_line(
    folders: list[Folder], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as below:
        path = f"{below}/folders.0"
        raw = written(path, folders)
        size = data.draw(st.integers(0, len(raw)))
        os.truncate(path, size)
        whole = raw[:size].count(b"\n")
        assert list(read(path)) == folders[:whole]


@given(folders=st.lists(FOLDER, min_size=1, max_size=4).map(distinct), data=st.data())
def test_a_folder_in_pieces_is_one_folder_again(folders: list[Folder], data: st.DataObject) -> None:
    pieces: list[Folder] = []
    whole: list[Folder] = []
    for folder in folders:
        # The first has what a folder has once; the lists go on in the others.
        cuts = sorted(data.draw(st.tuples(st.integers(0, 3), st.integers(0, 3))))
        bounds = list(zip([0, *cuts], [*cuts, 99], strict=True))
        cut = [
            Folder(
                *(folder.volume, folder.parts, folder.device, folder.inode),
                own=None if number else folder.own,
                common=None if number else folder.common,
                others=folder.others[start:stop],
                groups=folder.groups[start:stop],
                left=folder.left[start:stop],
            )
            for number, (start, stop) in enumerate(bounds)
        ]
        pieces += cut
        # What says nothing of the folder as a whole needs no room together.
        whole += [folder] if folder.own or folder.common else cut
    assert list(joined(deepcopy(pieces))) == whole
    with tempfile.TemporaryDirectory() as below:
        written(f"{below}/log", pieces)
        assert list(read(f"{below}/log")) == whole


@given(folder=FOLDER)
def test_a_folder_changes_where_anything_in_it_does(folder: Folder) -> None:
    nothing = Folder(folder.volume, folder.parts, folder.device, folder.inode, left=folder.left)
    assert nothing.changes() is False
    # Owner 0:0 is an owner like any other.
    for changed in (
        Folder(0, TOP, 1, 1, own=(0, 0)),
        Folder(0, TOP, 1, 1, common=(0, 0)),
        Folder(0, TOP, 1, 1, others=[((0, 0), ["a"])]),
    ):
        assert changed.changes() is True
    same = folder == Folder(
        folder.volume, folder.parts, folder.device, folder.inode, left=folder.left
    )
    assert folder.changes() is not same
