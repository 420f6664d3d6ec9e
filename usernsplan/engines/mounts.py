"""Volumes in what is rendered: how the owners of each come right in the container. Pure."""

from __future__ import annotations

import posixpath
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from usernsplan.engines import engine, pool_of
from usernsplan.errors import InvalidValueError, RefusedError
from usernsplan.model import Mount
from usernsplan.strategies import SingleUid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from usernsplan.layout import Layout
    from usernsplan.model import Allocation, LedgerState

_WORDS = re.compile(r"(?P<source>/.*?):(?P<destination>/[^:]*)(?::(?P<options>[^:/]*))?", re.DOTALL)
_OPTIONS = ("ro", "rw", "U", "idmap")
# Engines whose own word for "change the owners when it starts" is Podman's.
_CHOWN = ("podman", "quadlet", "podman-auto")


@dataclass(frozen=True, slots=True)
class Wish:
    """A volume as it was asked for: SRC:DEST, and options."""

    source: str
    destination: str
    options: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, words: str) -> Wish:
        """Read ``/SRC:/DEST[:ro,U,idmap]``. Raises InvalidValueError."""
        spelt = _WORDS.fullmatch(words)
        if not spelt or not words.isprintable():
            raise InvalidValueError(
                f"--volume {words!r}: expected /SRC:/DEST[:OPTIONS], both absolute",
                hint=f"options: {', '.join(_OPTIONS)}",
            )
        options = frozenset(filter(None, (spelt["options"] or "").split(",")))
        strange = options.difference(_OPTIONS)
        if strange or {"ro", "rw"} <= options or {"U", "idmap"} <= options:
            what = f"no option '{min(strange)}'" if strange else "these options contradict each other"
            raise InvalidValueError(f"--volume {words}: {what}", hint=f"options: {', '.join(_OPTIONS)}")
        for path in (spelt["source"], spelt["destination"]):
            if posixpath.normpath(path) != path.rstrip("/") or path.startswith("//"):
                raise InvalidValueError(
                    f"--volume {words}: '{path}' is not a plain path", hint="without '.', '..', '//'"
                )
        return cls(spelt["source"].rstrip("/"), spelt["destination"].rstrip("/"), options)


def decide(  # noqa: PLR0913 - what it depends on, one by one
    name: str,
    allocation: Allocation,
    wishes: Iterable[Wish],
    *,
    ledger: LedgerState,
    layout: Layout,
    why_no_idmap: Callable[[str], str],
) -> tuple[tuple[Mount, ...], tuple[str, ...]]:
    """How the engine of this name is to mount these volumes for an allocation, and what is to be said of it.

    A volume that was fixed for the container is mounted as it is; else its ids are mapped at the mount, where the
    engine can and nothing speaks against it (``why_no_idmap`` of its path is ""); else fix-volume is needed. Raises
    RefusedError where idmap was asked for and cannot be had.
    """
    whose = {volume.path: volume.name for volume in ledger.volumes}
    can = engine(name).idmap
    if can == "itself" and allocation.strategy == SingleUid.name:
        # A pod that runs as an id of the host has no user namespace, and nothing is mapped for it.
        can = "no"
    unchanged = all(e.container == e.host for ids in (allocation.mapping.uids, allocation.mapping.gids) for e in ids)
    mounts, notes = [], []
    for wish in wishes:
        asked, right = "idmap" in wish.options, unchanged or whose.get(wish.source) == allocation.name
        fix = _fix(allocation, wish, whose.get(wish.source), layout)
        why = ""
        if asked and can == "no":
            raise RefusedError(f"--volume {wish.source}: {name} cannot map the ids of a mount", hint=f"instead: {fix}")
        owners: Literal["plain", "idmap", "U"] = "plain"
        if can == "itself":
            notes.append(f"{wish.source}: the runtime maps the ids of a pod's volumes at the mount")
        elif "U" in wish.options and name in _CHOWN:
            owners = "U"
        elif asked or (can == "yes" and "U" not in wish.options and not right):
            why = why_no_idmap(wish.source)
            if why and asked:
                raise RefusedError(
                    f"--volume {wish.source} cannot be mounted with an idmap: {why}", hint=f"instead: {fix}"
                )
            owners = "plain" if why else "idmap"
        if owners == "idmap":
            notes.append(
                f"{wish.source}: what container root makes there is the host root's, setuid files too: let nobody else "
                "get at it (mode 700 on a folder above it)"
            )
        elif owners == "plain" and can != "itself" and not right:
            notes.append(
                f"{wish.source}: {f'no idmap: {why}; ' if why else ''}it has to be given to the container: {fix}"
            )
        mounts.append(Mount(wish.source, wish.destination, "ro" in wish.options, owners))
    return tuple(mounts), tuple(notes)


def _fix(allocation: Allocation, wish: Wish, holder: str | None, layout: Layout) -> str:
    """What gives a volume to the container, whoever has it now."""
    if pool_of(allocation):
        return "say :U, because the range is known only when the container runs"
    former = f" --from {holder}" if holder and holder != allocation.name else ""
    return f"'{layout.command(f'fix-volume {shlex.quote(wish.source)} --container {allocation.name}{former}')}'"
