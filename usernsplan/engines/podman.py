"""Podman: --uidmap and --gidmap, container:host:count. Rootless, the middle number is of an intermediate map.

podman-run(1)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from usernsplan.engines.base import EXACTLY, RenderContext, Rendered, Verdict, login_of, plain
from usernsplan.errors import InvalidValueError, RefusedError
from usernsplan.formats.subid import Grant
from usernsplan.mapping import Extent, IdMap
from usernsplan.model import DEFAULT_OWNER, OWN_PREFIX, ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usernsplan.formats.subid import SubidFile
    from usernsplan.model import Allocation, Mount


class Podman:
    """Flags for podman run, create and build."""

    reads_host: ClassVar[bool] = False
    takes: ClassVar[frozenset[str]] = frozenset({"volume", "U", "rootless"})
    idmap: ClassVar[Literal["yes"]] = "yes"

    def verdict(self, allocation: Allocation) -> Verdict:
        """Any map: root's Podman hands it to the runtime as it is."""
        del allocation
        return EXACTLY

    def render(self, allocation: Allocation, asked: RenderContext) -> Rendered:
        """The flags, on one line, to stand right after ``podman run``."""
        uids, gids = maps(allocation, asked)
        flags = [f"--uidmap {text}" for text in uids] + [f"--gidmap {text}" for text in gids]
        flags += [f"-v {volume(mount)}" for mount in asked.mounts]
        return Rendered(" ".join(flags), (), notes(allocation, asked))


def maps(allocation: Allocation, asked: RenderContext) -> tuple[list[str], list[str]]:
    """The values of --uidmap and of --gidmap: host ids for root, intermediate ids for the owner himself."""
    uids, gids = allocation.mapping.uids, allocation.mapping.gids
    if asked.rootless and asked.state:
        login = login_of(allocation, asked)
        names = (login.name, str(login.uid))
        uids, gids = (
            _intermediate(names, uids, asked.state.subuid),
            _intermediate(names, gids, asked.state.subgid),
        )
    return _texts(uids), _texts(gids)


def _texts(ids: IdMap) -> list[str]:
    return [f"{container}:{host}:{count}" for container, host, count in ids.triples()]


def _intermediate(names: Sequence[str], ids: IdMap, file: SubidFile) -> IdMap:
    """A map to the ids of the namespace in which rootless Podman runs itself.

    There the user is 0, and all lines of his names (login and uid) follow from 1 on, sorted by their start, as
    containers/storage has it. Written so, every version takes it. Raises RefusedError where it cannot be told.
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
                    f"line {line.number} is none that every reader understands: {line.problem}"
                )
            places.append(Extent(line.start, start, line.stop - line.start))
            start += line.stop - line.start
        found = ids.compose(IdMap(places)) if places else ()
        if sum(e.count for e in found) != sum(e.count for e in ids):
            raise InvalidValueError("some of its ids are in none of them")
    except InvalidValueError as error:
        hint = "'usernsplan allocate' puts its own back; others have to be corrected by hand"
        raise RefusedError(
            f"{names[0]}'s lines do not make this map: {error}", hint=hint
        ) from error
    return IdMap(found)


def volume(mount: Mount) -> str:
    """A value of -v and Volume=."""
    options = ["ro"] * mount.read_only + ([] if mount.owners == "plain" else [mount.owners])
    return ":".join(
        [plain(mount.source), plain(mount.destination), *([",".join(options)] if options else [])]
    )


def notes(allocation: Allocation, asked: RenderContext) -> tuple[str, ...]:
    """What these words need."""
    found = []
    if not asked.rootless and allocation.owner not in {
        DEFAULT_OWNER,
        ROOT,
        f"{OWN_PREFIX}{allocation.name}",
    }:
        found.append(
            f"these flags are for root's Podman; --rootless prints those for {allocation.owner}'s own"
        )
    if asked.rootless:
        found.append(
            f"for {allocation.owner}'s own Podman; after a change of its lines: podman system migrate"
        )
        flags = [f"--uidmap {e.container}:@{e.host}:{e.count}" for e in allocation.mapping.uids]
        flags += [f"--gidmap {e.container}:@{e.host}:{e.count}" for e in allocation.mapping.gids]
        found.append(f"Podman 4.7 and later take host ids as well, after an @: {' '.join(flags)}")
    return (*found, *of_idmap(asked))


def of_idmap(asked: RenderContext) -> tuple[str, ...]:
    """What a mount with an idmap needs of the runtime."""
    if not any(mount.owners == "idmap" for mount in asked.mounts):
        return ()
    return ("idmap needs crun, or runc 1.2: older ones leave it out and say nothing",)


ENGINES = {"podman": Podman()}
