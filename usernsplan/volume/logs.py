"""The logs of a run: one line of JSON for each folder, as it was before the run.

The workers write them. A line has only the part of its path that differs from the line before, so
that even a deep chain of folders takes little room. A line that a kill cut short ends a log. Any
other line that no run writes is refused.
"""

from __future__ import annotations

import fcntl
import json
import os
from array import array
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from usernsplan.errors import RefusedError
from usernsplan.escape import line as one_line
from usernsplan.escape import operand
from usernsplan.host import files
from usernsplan.ids import ID_LIMIT
from usernsplan.values import dataclass, field, replace
from usernsplan.volume.entries import Group
from usernsplan.volume.parts import TOP, Parts
from usernsplan.volume.passes import Form

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from usernsplan.volume.renew import Proof
    from usernsplan.volume.targets import Owner

_BUFFER = 1 << 20
# The largest st_mode.
_MODES = 0o177777
# What json.dumps and json.loads would make again for each line.
_to_json = json.JSONEncoder(separators=(",", ":")).encode
_from_json = json.JSONDecoder().raw_decode


@dataclass(slots=True)
class Folder:
    """One folder as it was before the run, with what the run changes in it.

    ``volume`` is the number of the volume in its run, ``parts`` the place of the folder in it.
    ``common`` is the owner of every plain entry that ``others``, ``groups`` and ``left`` do not
    name. ``groups`` are the entries that need care. ``own`` is the owner of the folder itself, if
    the run changes it and it needs no care; if it needs care, it is a group of its own, with the
    name ".". ``left`` are the names that the run leaves alone. ``noted`` is how many names a look
    has put into these lists.

    The note of a very large folder has no ``common``. Its pieces name all that changes.
    """

    volume: int
    parts: Parts
    device: int
    inode: int
    own: Owner | None = None
    common: Owner | None = None
    others: list[tuple[Owner, list[str]]] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    noted: int = field(default=0, compare=False)

    def changes(self) -> bool:
        """Tell whether the run changes anything in it."""
        return bool(self.own or self.common or self.others or self.groups)

    def itself(self) -> Folder | None:
        """The same without the entries of the folder; None if the run leaves the folder alone."""
        care = [group for group in self.groups if group.is_folder]
        if not (self.own or care):
            return None
        return replace(self.piece(), own=self.own, groups=care)

    def piece(self) -> Folder:
        """Another piece of the note of this folder, still empty."""
        return Folder(self.volume, self.parts, self.device, self.inode)

    def named(self) -> set[str]:
        """The entries that the note names, so that ``common`` does not apply to them."""
        names = {name for _, names in self.others for name in names}
        return names.union(self.left, *(group.names for group in self.groups))


class Writer:
    """Appends folders to one log."""

    def __init__(self, path: str) -> None:
        is_new = not os.path.lexists(path)
        self._file = open(  # noqa: SIM115 - close() closes it
            path, "ab", buffering=_BUFFER, opener=files.no_symlink
        )
        if is_new:
            files.sync_folder(os.path.dirname(path))
        else:
            # No worker acted on a line that a kill cut short.
            self._file.truncate(whole_lines(path))
        self._before = TOP

    def write(self, folder: Folder) -> None:
        """Note one folder. It may still be in memory when this returns."""
        kept = folder.parts.shared(self._before)
        self._before = folder.parts
        line: dict[str, Any] = {
            "p": [kept, *folder.parts.since(kept)],
            "i": [folder.volume, folder.device, folder.inode],
        }
        if folder.own:
            line["own"] = folder.own
        if folder.common:
            line["common"] = folder.common
        if folder.others:
            line["others"] = folder.others
        if folder.groups:
            line["groups"] = [_packed(group) for group in folder.groups]
        if folder.left:
            line["left"] = folder.left
        self._file.write(_to_json(line).encode() + b"\n")

    def sync(self) -> None:
        """Write all notes to the disk, so that they survive a power cut."""
        self._file.flush()
        os.fdatasync(self._file.fileno())

    def close(self) -> None:
        """Write the notes that are in memory to the file, and close it."""
        self._file.close()


def whole_lines(path: str) -> int:
    """How many bytes of a log belong to whole lines."""
    with open(path, "rb", opener=files.no_symlink) as file:
        return sum(len(line) for line in file if line.endswith(b"\n"))


class Links:
    """A lock among the workers of a run, for inodes with several names. ``run`` is its folder."""

    def __init__(self, run: str) -> None:
        self._path = os.path.join(run, "links")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other workers from such inodes, because one changes in several steps."""
        flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        lock = os.open(self._path, flags, 0o600)
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
    """The error for a log that is not as a run wrote it."""
    # ``path`` leads through a descriptor; the reader needs the real one.
    folder, name = os.path.realpath(os.path.dirname(path)), os.path.basename(path)
    state = os.path.dirname(os.path.dirname(folder))
    away = os.path.join(state, f"damaged-{os.path.basename(folder)}")
    return RefusedError(
        f"{one_line(os.path.join(folder, name))} is damaged: {why}; it does not show what the"
        " volume was before the run",
        hint="restore the file from a backup; or check the volume of the run, and move the run"
        f" away: mv {operand(folder)} {operand(away)}",
    )


def read(log: str) -> Iterator[Folder]:
    """The folders of a log, in order, up to a line that a kill cut short.

    Raises RefusedError for any other line that no run writes.
    """
    return joined(_lines(log))


def noted(log: str) -> Iterator[Folder]:
    """The same, with the places of the folders alone, and one for each piece."""
    return _lines(log, _place)


def joined(pieces: Iterable[Folder]) -> Iterator[Folder]:
    """Join the pieces for the same folder that follow each other into one note.

    Each piece without ``common`` and ``own`` can be carried by itself, and needs no more room.
    """
    last: Folder | None = None
    for piece in pieces:
        same = last and (last.volume, last.inode, last.parts) == (
            piece.volume,
            piece.inode,
            piece.parts,
        )
        # Only the first piece of a note has an owner, so this is a later note of the same folder.
        if last and same and (last.own or last.common) and not (piece.own or piece.common):
            last.others += piece.others
            last.groups += piece.groups
            last.left += piece.left
            continue
        if last:
            yield last
        last = piece
    if last:
        yield last


def _lines(
    log: str, made: Callable[[dict[str, Any], Parts], Folder] | None = None
) -> Iterator[Folder]:
    parts = TOP
    with open(log, "rb", opener=files.no_symlink) as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                content, end = _from_json(text := line.decode())
                if end != len(text) - 1:
                    raise ValueError("there is more than one value")
                folder = (made or _folder)(content, parts)
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


def _folder(content: dict[str, Any], before: Parts) -> Folder:
    """The folder of one line. Raises one of the errors that _lines catches if no run wrote it."""
    folder = _place(content, before)
    folder.own = _owner(content.get("own"))
    folder.common = _owner(content.get("common"))
    others = [(_owner(owner), _names(names)) for owner, names in content.get("others", ())]
    folder.others = [(owner, names) for owner, names in others if owner]
    folder.groups = [
        *(_former(*fields) for fields in content.get("special", ())),
        *(_unpacked(*fields) for fields in content.get("groups", ())),
    ]
    folder.left = _names(content.get("left", []))
    return folder


def _place(content: dict[str, Any], before: Parts) -> Folder:
    """The folder of one line, without what was in it. Raises what ``_folder`` raises."""
    kept, *more = content["p"]
    volume, device, inode = map(integer, content["i"])
    return Folder(volume, before.branch(integer(kept), _names(more)), device, inode)


def integer(number: Any) -> int:  # noqa: ANN401 - what the JSON says
    """The same number, if it is an int and not a bool. Raises TypeError otherwise."""
    if type(number) is not int:
        raise TypeError(f"{number!r:.40} is not a number")
    return number


def _names(names: Any) -> list[str]:  # noqa: ANN401 - what the JSON says
    """The same list, if each is the name of an entry, or "." for the folder itself.

    Raises ValueError or TypeError. A log may have a million names, so none costs a call.
    """
    text = "/".join(names)
    if type(names) is not list or not {"", ".."}.isdisjoint(names):
        raise ValueError(f"{names!r:.40} are not names of entries")
    if "\0" in text or text.count("/") != max(len(names) - 1, 0):
        raise ValueError(f"{names!r:.40} are not names of entries")
    return names


def _links(number: Any) -> int:  # noqa: ANN401 - what the JSON says
    if not 0 <= integer(number) < 1 << 64:
        raise ValueError(f"{number} is not a link count")
    return int(number)


def _owner(content: list[int] | None) -> Owner | None:
    return None if content is None else _ids(*content)


# A volume has few owners, and each folder names them again.
@lru_cache(maxsize=1024, typed=True)
def _ids(uid: Any, gid: Any) -> Owner:  # noqa: ANN401 - what the JSON says
    for number in (uid, gid):
        if not 0 <= integer(number) < ID_LIMIT:
            raise ValueError(f"{number} is not an id")
    return uid, gid


def _packed(group: Group) -> list[Any]:
    form = group.form
    raw = [
        value.hex() if value is not None else None
        for value in (form.acl, form.default_acl, form.capability)
    ]
    proofs = [proof and [proof.size, proof.digest] for proof in group.proofs]
    numbers = [group.device, group.links, form.mode, *form.owner]
    return [*numbers, *raw, group.names, group.inodes.tolist(), proofs]


def _unpacked(*fields: Any) -> Group:
    *shared, names, inodes, proofs = fields
    count = len(names)
    # The numbers go into an array, which takes True for 1.
    if len(inodes) != count or len(proofs) not in {0, count} or {*map(type, inodes)} != {int}:
        raise ValueError("not one inode for each name")
    numbers = array("Q", inodes)
    return Group(
        *_shared(*shared), _names(names), numbers, [one and _proof(*one) for one in proofs]
    )


def _former(*fields: Any) -> Group:
    """The entry of one line of an older version, as a group. The first versions had no proofs."""
    name, device, inode, mode, links, _changed_ns, uid, gid, *raw = fields
    raw, proof = raw[:3], raw[3:]
    shared = _shared(device, links, mode, uid, gid, *raw)
    numbers = array("Q", [integer(inode)])
    return Group(*shared, _names([name]), numbers, [_proof(*proof)] if proof else [])


# A volume has few forms, too.
@lru_cache(maxsize=4096, typed=True)
def _shared(
    device: Any,  # noqa: ANN401 - what the JSON says
    links: Any,  # noqa: ANN401
    mode: Any,  # noqa: ANN401
    *owner_and_raw: Any,
) -> tuple[Form, int, int]:
    """What the entries of a group share: form, device and link count."""
    uid, gid, *raw = owner_and_raw
    if not 0 <= integer(mode) <= _MODES:
        raise ValueError(f"{mode} is not a mode")
    values = [bytes.fromhex(value) if value is not None else None for value in raw]
    return Form(_ids(uid, gid), mode, *values), integer(device), _links(links)


def _proof(size: Any, digest: Any) -> Proof:  # noqa: ANN401 - what the JSON says
    # Few runs have one, and the import, with hashlib, is a tenth of a start-up.
    from usernsplan.volume.renew import Proof  # noqa: PLC0415

    return Proof(integer(size), str(digest))
