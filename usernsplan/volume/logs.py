"""The logs of a run: how each folder was before it, a line each, written by its workers.

A line tells of its path only what differs from the line before, so that a chain of folders, however deep, takes little
room. What a kill cut short ends a log; anything else that is not as it was written is refused.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from usernsplan.errors import RefusedError
from usernsplan.escape import line as one_line
from usernsplan.escape import operand
from usernsplan.host import files
from usernsplan.ids import ID_LIMIT
from usernsplan.volume.passes import Form
from usernsplan.volume.renew import Proof
from usernsplan.volume.special import Special

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from usernsplan.volume.targets import Owner

_BUFFER = 1 << 20


@dataclass(slots=True)
class Folder:
    """One folder as it was: ``common`` is the owner of every plain entry that ``others`` and ``special`` do not name.

    ``volume`` is the number of the volume in its run, ``parts`` the names that lead from its top to the folder.
    ``own`` is the owner of the folder itself where that changes and needs no care; where it does need care, it is the
    entry '.' of ``special``. ``left`` are names that could not be looked at.
    """

    volume: int
    parts: tuple[str, ...]
    device: int
    inode: int
    own: Owner | None = None
    common: Owner | None = None
    others: list[tuple[Owner, list[str]]] = field(default_factory=list)
    special: list[Special] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def changes(self) -> bool:
        """Tell whether anything in it is to be changed."""
        return bool(self.own or self.common or self.others or self.special)

    def named(self) -> set[str]:
        """The entries that the note has by name: ``common`` is not theirs."""
        names = {name for _, names in self.others for name in names}
        return names.union(self.left, (entry.name for entry in self.special))


class Writer:
    """Appends folders to one log."""

    def __init__(self, path: str) -> None:
        is_new = not os.path.lexists(path)
        self._file = open(path, "ab", buffering=_BUFFER, opener=files.no_symlink)  # noqa: SIM115 - closed by close
        if is_new:
            files.sync_folder(os.path.dirname(path))
        else:
            # What a kill cut short was never acted upon.
            self._file.truncate(whole_lines(path))
        self._before: tuple[str, ...] = ()

    def write(self, folder: Folder) -> None:
        """Note one folder; it may still be in memory when this returns."""
        same = takewhile(
            lambda pair: pair[0] == pair[1], zip(self._before, folder.parts, strict=False)
        )
        kept = sum(1 for _ in same)
        self._before = folder.parts
        line: dict[str, Any] = {
            "p": [kept, *folder.parts[kept:]],
            "i": [folder.volume, folder.device, folder.inode],
        }
        if folder.own:
            line["own"] = folder.own
        if folder.common:
            line["common"] = folder.common
        if folder.others:
            line["others"] = folder.others
        if folder.special:
            line["special"] = [_packed(special) for special in folder.special]
        if folder.left:
            line["left"] = folder.left
        self._file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def sync(self) -> None:
        """Make what was noted survive a power cut."""
        self._file.flush()
        os.fdatasync(self._file.fileno())

    def close(self) -> None:
        """Write out what is in memory."""
        self._file.close()


def whole_lines(path: str) -> int:
    """How many bytes of a log are whole lines."""
    with open(path, "rb", opener=files.no_symlink) as file:
        return sum(len(line) for line in file if line.endswith(b"\n"))


class Links:
    """Keeps the workers of a run from changing an inode with several names at the same time. ``run``: its folder."""

    def __init__(self, run: str) -> None:
        self._path = os.path.join(run, "links")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep the other workers from such an inode: it is to be changed once, as a whole."""
        lock = os.open(
            self._path,
            os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
            0o600,
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def sum_of(path: str) -> list[int]:
    """The size and the CRC-32 of a log."""
    import zlib  # noqa: PLC0415 - only where something is changed

    size = crc = 0
    with open(path, "rb", opener=files.no_symlink) as file:
        while piece := file.read(_BUFFER):
            size, crc = size + len(piece), zlib.crc32(piece, crc)
    return [size, crc]


def damaged_log(path: str, why: str) -> RefusedError:
    """What to say of a log that does not say what a run wrote."""
    # It was opened below a folder that is pinned; others know it by its path.
    folder = os.path.realpath(os.path.dirname(path))
    away = os.path.join(
        os.path.dirname(os.path.dirname(folder)), f"damaged-{os.path.basename(folder)}"
    )
    return RefusedError(
        f"{one_line(os.path.join(folder, os.path.basename(path)))} is damaged: {why}; what the volume was before the"
        " run cannot be told from it",
        hint="put it back from a backup; or look at the run's volume, and move the run away: "
        f"mv {operand(folder)} {operand(away)}",
    )


def read(log: str) -> Iterator[Folder]:
    """The folders of a log, in order. A line that a kill cut short ends it. Raises RefusedError for what is no line."""
    return joined(_lines(log))


def joined(pieces: Iterable[Folder]) -> Iterator[Folder]:
    """Make one note of the pieces that follow each other for the same folder."""
    last: Folder | None = None
    for piece in pieces:
        same = last and (last.volume, last.parts, last.inode) == (
            piece.volume,
            piece.parts,
            piece.inode,
        )
        # A piece that says something of its own is another note: of a later run over the same folder.
        if last and same and not (piece.own or piece.common):
            last.others += piece.others
            last.special += piece.special
            last.left += piece.left
            continue
        if last:
            yield last
        last = piece
    if last:
        yield last


def _lines(log: str) -> Iterator[Folder]:
    parts: tuple[str, ...] = ()
    with open(log, "rb", opener=files.no_symlink) as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                folder = _folder(json.loads(line), parts)
            except (
                ValueError,
                LookupError,
                TypeError,
                AttributeError,
                OverflowError,
                RecursionError,
            ) as error:
                raise damaged_log(log, f"line {number} cannot be read ({error!r:.100})") from error
            parts = folder.parts
            yield folder


def _folder(content: dict[str, Any], before: tuple[str, ...]) -> Folder:
    """What one line says; whatever is not as it was written raises an error."""
    kept, *more = content["p"]
    volume, device, inode = map(integer, content["i"])
    others = [
        (_owner(owner), list(map(_name, names))) for owner, names in content.get("others", ())
    ]
    return Folder(
        volume,
        (*before[: integer(kept)], *map(_name, more)),
        device,
        inode,
        _owner(content.get("own")),
        _owner(content.get("common")),
        [(owner, names) for owner, names in others if owner],
        [_unpacked(*fields) for fields in content.get("special", ())],
        list(map(_name, content.get("left", ()))),
    )


def integer(number: Any) -> int:  # noqa: ANN401 - what the JSON says
    """A number of the JSON, as it was written. Raises TypeError for anything else."""
    if type(number) is not int:
        raise TypeError(f"{number!r:.40} is no number")
    return number


def _name(name: Any) -> str:  # noqa: ANN401 - what the JSON says
    """The name of an entry of a folder, or '.', that itself: nothing that leads elsewhere."""
    if not isinstance(name, str) or name in {"", ".."} or "/" in name or "\0" in name:
        raise ValueError(f"{name!r:.40} is no name of an entry")
    return name


def _id(number: Any) -> int:  # noqa: ANN401 - what the JSON says
    if not 0 <= integer(number) < ID_LIMIT:
        raise ValueError(f"{number} is no id")
    return int(number)


def _owner(content: list[int] | None) -> Owner | None:
    if content is None:
        return None
    uid, gid = map(_id, content)
    return uid, gid


def _packed(special: Special) -> list[Any]:
    form = special.form
    raw = [
        value.hex() if value is not None else None
        for value in (form.acl, form.default_acl, form.capability)
    ]
    inode = [special.device, special.inode, form.mode, special.links, special.changed_ns]
    proof = [special.proof.size, special.proof.digest] if special.proof else []
    return [special.name, *inode, *form.owner, *raw, *proof]


def _unpacked(*fields: Any) -> Special:
    name, device, inode, mode, links, changed_ns, uid, gid, *more = fields
    # A run of an older version noted no proof.
    raw, proof = more[:3], more[3:]
    values = [bytes.fromhex(value) if value is not None else None for value in raw]
    form = Form((_id(uid), _id(gid)), integer(mode), *values)
    if proof:
        size, digest = proof
        proof = [integer(size), str(digest)]
    inode, links, changed_ns = map(integer, (inode, links, changed_ns))
    return Special(
        _name(name),
        integer(device),
        inode,
        links,
        changed_ns,
        form,
        Proof(*proof) if proof else None,
    )
