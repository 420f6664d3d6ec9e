"""What every engine's file has to answer, and what it is told."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from usernsplan.errors import InvalidValueError, RefusedError
from usernsplan.formats import subid
from usernsplan.layout import Layout
from usernsplan.mapping import KINDS
from usernsplan.model import ROOT
from usernsplan.strategies import in_subid

if TYPE_CHECKING:
    from usernsplan.formats.accounts import User
    from usernsplan.mapping import IdMap
    from usernsplan.model import Allocation, HostState, Mount

# The group tty, in every distribution: engines mount a container's /dev/pts with gid=5, and the kernel answers EINVAL
# where that is not mapped.
TTY = 5
# A name of an image, with registry, port, tag and digest; nothing that a shell, systemd or an engine has a use for.
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@+-]*")
# A label of RFC 1123, as names of pods, containers in them and namespaces have to be.
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# What flags and INI files take as it is, without quotes and escapes, which each program has others of.
_PLAIN = re.compile(r"(/[\w@.+~=-]+)+")


_HERE = Layout()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an engine can make a mapping: exactly as it is, something near it, or not; and where not exactly, why."""

    fit: Literal["exactly", "approximately", "no"]
    why: str = ""

    @property
    def can(self) -> bool:
        """Tell whether there is anything to render."""
        return self.fit != "no"


EXACTLY = Verdict("exactly")


def no(why: str) -> Verdict:
    """It cannot, because…."""
    return Verdict("no", why)


def nearly(why: str) -> Verdict:
    """It can make something near it: the difference is…."""
    return Verdict("approximately", why)


@dataclass(frozen=True, slots=True)
class File:
    """A file that an engine reads: its place below the root, and what stands in it.

    ``into``: others write there too, and only this is added to it where it is missing: "lines" of subuid and subgid,
    "options" of a storage.conf that has to exist.
    """

    path: str
    content: str
    into: Literal["", "lines", "options"] = ""


@dataclass(frozen=True, slots=True)
class Rendered:
    """What an engine reads: ``text`` to paste, without a final newline, and ``notes`` on what it needs besides.

    ``files`` are the same, and more, as files in their places.
    """

    text: str
    files: tuple[File, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RenderContext:
    """What a rendering is to say besides the map. ``state`` is given to engines that read the host.

    ``rootless``: for the allocation's owner, not for root. ``bundle`` is the text of the config.json that is to be
    patched, ``place`` its path. ``layout`` is the host that commands in notes are for.
    """

    state: HostState | None = None
    mounts: tuple[Mount, ...] = ()
    image: str | None = None
    rootless: bool = False
    bundle: str | None = None
    place: str = ""
    layout: Layout = _HERE


class Engine(Protocol):
    """One container engine.

    ``reads_host`` tells whether its text depends on the host, too; where it does not, no host is read for it.
    ``takes`` are the words beyond engine and name that it has a use for; "U" is a volume's option by which it
    changes the owners when it starts. ``idmap`` tells whether it can map the ids of
    a mount: "yes"; "asked" where some of its versions ignore the request in silence; "itself" where it always does.
    """

    reads_host: ClassVar[bool]
    takes: ClassVar[frozenset[str]]
    idmap: ClassVar[Literal["no", "yes", "asked", "itself"]]

    def verdict(self, allocation: Allocation) -> Verdict:
        """Tell whether the engine can express this allocation."""

    def render(self, allocation: Allocation, asked: RenderContext) -> Rendered:
        """What it reads; asked for only where it can."""


def subid_files(allocation: Allocation, *owners: str) -> tuple[File, ...]:
    """The lines of subuid and subgid that an engine depends on: those of these owners, or else of the allocation's."""
    if not in_subid(allocation.strategy, allocation.mapping):
        return ()
    return tuple(
        File(path, b"".join(subid.line(owner, ids) for ids in ranges).decode(), "lines")
        for kind, path in subid.PATHS.items()
        for ranges in [allocation.mapping[kind].host_ranges()]
        for owner in owners or (allocation.owner,)
    )


def plain(path: str) -> str:
    """A path for a text that has no quotes, or other ones in each program. Raises RefusedError where it needs them."""
    if not _PLAIN.fullmatch(path):
        raise RefusedError(
            f"{path!r} has characters that this engine's format would take for its own",
            hint="give the folder a name of letters, digits and . _ + - @ = ~, or bind it to one that has",
        )
    return path


def quoted(text: str) -> str:
    """A YAML string that nothing can be mistaken in: JSON's are YAML's too, where every character can be printed."""
    if not text.isprintable():
        raise RefusedError(f"{text!r} has characters that YAML has no place for")
    return json.dumps(text, ensure_ascii=False)


def check_image(image: str) -> None:
    """Raise InvalidValueError for what is no name of an image."""
    if not _IMAGE.fullmatch(image):
        raise InvalidValueError(f"--image {image!r} is no name of an image")


def only_extent(ids: IdMap) -> tuple[int, int] | None:
    """Host start and count of a map that has one extent, from container id 0; None for any other."""
    [(container, host, count), *more] = ids.triples()
    return None if more or container else (host, count)


def login_of(allocation: Allocation, asked: RenderContext) -> User:
    """The account that owns an allocation's lines and can run containers of its own. Raises RefusedError."""
    if asked.state is None:
        raise InvalidValueError("this depends on the host's accounts, and no host was read")
    user = asked.state.accounts.user(allocation.owner)
    if user is None or user.name == ROOT:
        raise RefusedError(
            f"{allocation.owner}, who owns the lines of '{allocation.name}', is nobody who could log in",
            hint="rootless containers want the lines to be an account's: allocate … --owner LOGIN",
        )
    for kind, number in zip(KINDS, (user.uid, user.gid), strict=True):
        if allocation.mapping[kind].to_container(number) is not None:
            raise RefusedError(
                f"{user.name}'s own {kind} {number} is in the map of '{allocation.name}': Podman refuses that",
                hint="give the account a range that it is not in itself, or run the container as root",
            )
    return user
