"""Podman: --uidmap and --gidmap, container:host:count.

In rootless Podman the middle number is an id of the namespace in which Podman itself runs.

podman-run(1)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines.base import (
    EXACTLY,
    Engine,
    RenderContext,
    Rendered,
    Verdict,
    login_of,
    plain,
)
from usernsplan.errors import InvalidValueError, RefusedError
from usernsplan.formats.subid import Grant
from usernsplan.mapping import Extent, IdMap
from usernsplan.model import DEFAULT_OWNER, OWN_PREFIX, ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usernsplan.formats.subid import SubidFile
    from usernsplan.model import Allocation, Mount


class Podman(Engine):
    """Flags for podman run, create and build."""

    takes = frozenset({"volume", "U", "rootless"})
    idmap = "yes"

    def verdict(self, allocation: Allocation) -> Verdict:
        """Any map: root's Podman passes it to the runtime unchanged."""
        del allocation
        return EXACTLY

    def render(self, allocation: Allocation, context: RenderContext) -> Rendered:
        """The flags on one line, to follow ``podman run``."""
        uids, gids = maps(allocation, context)
        flags = [f"--uidmap {text}" for text in uids] + [f"--gidmap {text}" for text in gids]
        flags += [f"-v {volume(mount)}" for mount in context.mounts]
        return Rendered(" ".join(flags), (), notes(allocation, context))


def maps(allocation: Allocation, context: RenderContext) -> tuple[list[str], list[str]]:
    """The values of --uidmap and --gidmap: host ids for root, intermediate ids for an account."""
    uids, gids = allocation.mapping.uids, allocation.mapping.gids
    if context.rootless and context.state:
        login = login_of(allocation, context)
        names = (login.name, str(login.uid))
        uids, gids = (
            _intermediate(names, uids, context.state.subuid),
            _intermediate(names, gids, context.state.subgid),
        )
    return _texts(uids), _texts(gids)


def _texts(ids: IdMap) -> list[str]:
    return [f"{container}:{host}:{count}" for container, host, count in ids.triples()]


def _intermediate(names: Sequence[str], ids: IdMap, file: SubidFile) -> IdMap:
    """A map to the ids of the namespace in which rootless Podman runs.

    There the user is 0. All lines of the user's names (login and uid) follow from 1 on, sorted by
    their start, as in containers/storage. Every version of Podman takes such a map. Raises
    RefusedError if the lines do not determine it.
    """
    lines = [
        line
        for name in names
        for line in file.by_owner().get(name, [])
        if isinstance(line, Grant) or line.problem
    ]
    start, places = 1, []
    try:
        for line in sorted(lines, key=lambda line: line.start if isinstance(line, Grant) else 0):
            if not isinstance(line, Grant):
                raise InvalidValueError(
                    f"readers do not agree on line {line.number}: {line.problem}"
                )
            places.append(Extent(line.start, start, line.stop - line.start))
            start += line.stop - line.start
        found = ids.compose(IdMap(places)) if places else ()
        if sum(e.count for e in found) != sum(e.count for e in ids):
            raise InvalidValueError("some of its ids are in none of the lines")
    except InvalidValueError as error:
        raise RefusedError(
            f"the lines of {names[0]} do not make this map: {error}",
            hint="'usernsplan check' shows what is wrong with the lines",
        ) from error
    return IdMap(found)


def volume(mount: Mount) -> str:
    """The value of -v and of Volume=. Raises RefusedError for a path that needs quotes."""
    options = ["ro"] * mount.read_only + ([] if mount.owners == "plain" else [mount.owners])
    return ":".join(
        [plain(mount.source), plain(mount.destination), *([",".join(options)] if options else [])]
    )


def notes(allocation: Allocation, context: RenderContext) -> tuple[str, ...]:
    """What these flags need."""
    found = []
    if not context.rootless and allocation.owner not in {
        DEFAULT_OWNER,
        ROOT,
        f"{OWN_PREFIX}{allocation.name}",
    }:
        found.append(
            "these flags are for Podman as root; --rootless prints those for the Podman of "
            f"{allocation.owner}"
        )
    if context.rootless:
        found.append(
            f"these flags are for the Podman of {allocation.owner}; after its lines change, run: "
            "podman system migrate"
        )
        flags = [f"--uidmap {e.container}:@{e.host}:{e.count}" for e in allocation.mapping.uids]
        flags += [f"--gidmap {e.container}:@{e.host}:{e.count}" for e in allocation.mapping.gids]
        found.append(f"Podman 4.7 and later also take host ids, after an @: {' '.join(flags)}")
    return (*found, *of_idmap(context))


def of_idmap(context: RenderContext) -> tuple[str, ...]:
    """What an idmapped mount needs from the runtime."""
    if not any(mount.owners == "idmap" for mount in context.mounts):
        return ()
    return ("idmap needs crun, or runc 1.2 or newer; an older runc silently ignores it",)


ENGINES = {"podman": Podman()}
