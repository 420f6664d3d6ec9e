"""A rendering for a host: the allocation out of its ledger, what the engine asks of the host, and its files in place.

What an engine reads is decided in engines; here the host is read, the kernel asked, and written what was decided.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from usernsplan import engines
from usernsplan.engines.base import Asked
from usernsplan.engines.mounts import Ground, Wish, decide
from usernsplan.errors import HostChangedError, InvalidFileError, InvalidValueError, RefusedError
from usernsplan.formats import storage_conf, subid
from usernsplan.host import files, idmap, locks, read
from usernsplan.ids import IdRange
from usernsplan.layout import SUBGID, SUBUID
from usernsplan.ledger import allocation_of, open_ledger
from usernsplan.model import ROOT, Allocation, Change
from usernsplan.planner.taken import POOL_START
from usernsplan.strategies import PerContainer, Shared, SingleUid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usernsplan.engines.base import File, Rendered, Verdict
    from usernsplan.layout import Layout
    from usernsplan.model import LedgerState, RenderRequest

_CONFIG = "/config.json"


def rendering(request: RenderRequest, root: str = "/") -> Rendered:
    """What an engine reads for an allocation of the host below ``root``; nothing is written.

    Raises InvalidValueError, UnknownNameError, and RefusedError where the engine cannot make the mapping.
    """
    layout = files.layout_at(root)
    ledger = open_ledger(layout)
    known = ledger.state()
    chosen, allocation = engines.engine(request.engine), allocation_of(known, request.name)
    ground = Ground(
        ledger=known,
        layout=layout,
        why_no_idmap=partial(_why_no_idmap, layout),
        name_of=partial(_name_of, layout),
        owner_of=partial(_owner_of, layout),
        rootless=request.rootless,
    )
    wishes = [Wish.parse(words) for words in request.volumes]
    mounts, notes = decide(request.engine, allocation, wishes, ground)
    asked = Asked(
        state=read.state(layout, ledger) if chosen.reads_host or request.rootless else None,
        mounts=mounts,
        image=request.image,
        rootless=request.rootless,
        bundle=None if request.bundle is None else _config(files.layout_at(request.bundle)),
        place=f"{request.bundle}{_CONFIG}",
    )
    found = engines.render(request.engine, allocation, asked)
    return replace(found, notes=(*found.notes, *notes))


def table(ledger: LedgerState, name: str = "") -> list[tuple[str, list[tuple[str, Verdict]]]]:
    """For each allocation that is asked about (none: one of each strategy, as it is by default), what engines can."""
    if name:
        asked = [allocation_of(ledger, name)]
    else:
        usual = (Shared(), SingleUid(), PerContainer())
        asked = [
            Allocation(it.name, "usernsplan-example", it.name, it.mapping(base), held)
            for it in usual
            for base in (it.pool.start if it.pool else POOL_START,)
            for held in (IdRange(base, it.need.count) if it.need else None,)
        ]
    return [(a.name, [(engine, engines.verdict(engine, a)) for engine in engines.ENGINES]) for a in asked]


def patched(bundle: str, rendered: Rendered) -> tuple[Change, ...]:
    """The change that a bundle needs; none where its config.json says all this already."""
    before, after = _config(files.layout_at(bundle)).encode(), rendered.text.encode()
    return (Change(_CONFIG, before, after),) if before != after else ()


def placed(out: str, rendered: Rendered, *, yes: bool) -> tuple[Change, ...]:
    """The changes that bring files to their places below ``out``.

    Raises RefusedError where a file says something else, unless ``yes``; lines of subuid and subgid are added.
    """
    layout = files.layout_at(out)
    if not rendered.files:
        raise InvalidValueError("--out: this has no place of its own", hint="without --out it is printed")
    changes = []
    for file in rendered.files:
        before = files.read(layout, file.path)
        after = _after(file, before)
        if before is None and file.into == "options":
            raise RefusedError(
                f"{layout.path(file.path)} does not exist, and Podman wants it whole: nothing was written",
                hint="copy the distribution's, of /usr/share/containers, or make it with driver, runroot and graphroot",
            )
        if before not in {None, after} and not (file.into or yes or _loses_nothing(before or b"", after)):
            raise RefusedError(
                f"{layout.path(file.path)} is there already and says something else; nothing was written",
                hint="say --yes to replace it, or compare: without --out it is printed",
            )
        if before != after:
            changes.append(Change(file.path, before, after))
    return tuple(changes)


def write(root: str, changes: Sequence[Change]) -> None:
    """Write what was decided, under shadow's locks where lines of others stand in a file.

    Raises HostChangedError where a file is no longer what it was.
    """
    layout = files.layout_at(root)
    with ExitStack() as stack:
        if any(change.before is not None and change.path in {SUBUID, SUBGID} for change in changes):
            stack.enter_context(locks.subid_locks(layout))
        for change in changes:
            if files.read(layout, change.path) != change.before:
                raise HostChangedError(f"{layout.path(change.path)} was changed by somebody else meanwhile")
        files.write(layout, {change.path: change.after for change in changes})


def _after(file: File, before: bytes | None) -> bytes:
    content = file.content.encode()
    if not file.into or before is None:
        return content
    if file.into == "options":
        options = (line.partition(" = ")[::2] for line in file.content.splitlines())
        return storage_conf.with_options(before, dict(options))
    return _with_lines(file, before, content.splitlines(keepends=True))


def _with_lines(file: File, before: bytes, wanted: list[bytes]) -> bytes:
    """The file with an owner's lines in their order, which is what makes Docker's map; of root's, any order will do.

    Raises RefusedError where the owner has others: readers would join them.
    """
    owner = wanted[0].partition(b":")[0].decode()
    have = [subid.ended(line.raw) for line in subid.parse(before).by_owner().get(owner, [])]
    if owner == ROOT:
        return subid.with_lines(before, (line for line in wanted if line not in have))
    if set(have) - set(wanted):
        raise RefusedError(
            f"{file.path}: {owner} has other lines than those of this allocation; nothing was written",
            hint="take them out: readers would join them",
        )
    return before if have == wanted else subid.with_lines(subid.without_lines(before, have), wanted)


def _loses_nothing(before: bytes, after: bytes) -> bool:
    """Tell whether a JSON object says all that it said before, and more."""
    try:
        old, new = json.loads(before), json.loads(after)
    except ValueError:
        return False
    return isinstance(old, dict) and isinstance(new, dict) and new == {**new, **old}


def _config(layout: Layout) -> str:
    raw = files.read(layout, _CONFIG)
    if raw is None:
        raise InvalidValueError(
            f"{layout.path(_CONFIG)} does not exist", hint="--bundle names the folder of an OCI bundle"
        )
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidFileError(layout.path(_CONFIG), "not UTF-8") from error


def _name_of(layout: Layout, path: str) -> str:
    """The name of a folder below the root as fix-volume notes it: real, and without the root where it was typed too."""
    top = layout.real.rstrip("/")
    inside = path[len(top) :] if top and f"{path}/".startswith(f"{top}/") else path
    return files.real(layout, inside or "/", follow=True)[len(top) :] or "/"


def _owner_of(layout: Layout, path: str) -> int | None:
    """The host uid of a folder; None where it is not there yet. Raises InvalidValueError for what is no folder."""
    try:
        found = os.stat(layout.real.rstrip("/") + _name_of(layout, path))
    except OSError:
        return None
    if not stat.S_ISDIR(found.st_mode):
        hint = "a volume is a folder; mount a single file in the engine's own words"
        raise InvalidValueError(f"--volume {path}: it is not a folder", hint=hint)
    return found.st_uid


def _why_no_idmap(layout: Layout, path: str) -> str:
    if not layout.is_host:
        return "this machine's kernel is not asked about another root"
    return idmap.why_not(path)
