"""What every engine's file has to answer, and what it is given."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from usernsplan.errors import InvalidValueError, RefusedError
from usernsplan.escape import shell
from usernsplan.formats import passes, subid
from usernsplan.holdings import granted, has_lines
from usernsplan.ids import IdSet
from usernsplan.layout import Layout
from usernsplan.mapping import KINDS
from usernsplan.model import DEFAULT_NAME, DEFAULT_OWNER, OWN_PREFIX, POOL_OWNERS, ROOT
from usernsplan.patterns import pattern
from usernsplan.strategies import options_of
from usernsplan.values import NamedTuple, dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usernsplan.formats.accounts import User
    from usernsplan.harden.effective import Effective
    from usernsplan.mapping import IdMap
    from usernsplan.model import Allocation, HostState, Mount, Selinux

# The group tty, in every distribution: engines mount a container's /dev/pts with gid=5, and the
# kernel returns EINVAL if that gid is not mapped.
TTY = 5
# A name of an image, with registry, port, tag and digest; nothing that means something to a shell,
# systemd or an engine.
_IMAGE = pattern(r"[A-Za-z0-9][A-Za-z0-9._/:@+-]*")
# A label of RFC 1123: names of pods, of containers in them and of namespaces have to be one.
LABEL = pattern(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# What flags and INI files take as it is. Quotes and escapes differ from program to program.
_PLAIN = pattern(r"(/[\w@.+~=-]+)+")


_HERE = Layout()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an engine can make a mapping exactly, only something near it, or not at all.

    ``why`` gives the reason if the answer is not "exactly".
    """

    fit: Literal["exactly", "approximately", "no"]
    why: str = ""

    @property
    def can(self) -> bool:
        """Whether there is anything to render."""
        return self.fit != "no"


EXACTLY = Verdict("exactly")


def no(why: str) -> Verdict:
    """The engine cannot make the mapping, for this reason."""
    return Verdict("no", why)


def nearly(why: str) -> Verdict:
    """The engine makes something near the mapping, which differs in this."""
    return Verdict("approximately", why)


@dataclass(frozen=True, slots=True)
class File:
    """A file that an engine reads: its path below the root, and its content.

    ``into`` is not "" if others write to the file, too. Then only what is missing is added:
    "lines" to subuid and subgid, "options" to a storage.conf that has to exist.
    """

    path: str
    content: str
    into: Literal["", "lines", "options"] = ""


@dataclass(frozen=True, slots=True)
class Rendered:
    """What an engine reads: ``text`` to paste, without a final newline.

    ``files`` are the files that the engine reads, and ``notes`` say what else it needs.
    """

    text: str
    files: tuple[File, ...] = ()
    notes: tuple[str, ...] = ()


# What a policy may say something about, in the order in which it is shown.
PARTS = ("capabilities", "no_new_privs", "system calls", "families", "architectures", "label")


@dataclass(frozen=True, slots=True)
class Hardening:
    """How an engine enforces a policy: a verdict for each part of it that is asked for.

    ``words`` are what the engine adds to its text, in its own form, and ``files`` the files that
    these words name. ``notes`` say what else is needed.
    """

    verdicts: dict[str, Verdict]
    words: tuple[str, ...] = ()
    files: tuple[File, ...] = ()
    notes: tuple[str, ...] = ()


class Support(NamedTuple):
    """What an engine makes of an allocation: its map, and each part of its policy that is asked for.

    ``parts`` is None without a policy, and where the engine cannot make the map.
    """

    engine: str
    verdict: Verdict
    parts: dict[str, Verdict] | None = None


@dataclass(frozen=True, slots=True)
class RenderContext:
    """What a rendering needs in addition to the map.

    ``state`` is given to engines that read the host. ``rootless`` means: for the allocation's
    owner, not for root. ``bundle`` is the text of a config.json that is patched, ``place`` its
    path. ``vmid`` is Proxmox's number of the container. ``version`` is what the engine's program
    says of itself; "" if nobody asked it. Commands in notes are for the host of ``layout``.
    ``policy`` is what the container may do; None: what its engine gives it. ``own_filter`` is the
    engine's own profile of system calls, and ``own_filter_place`` where it was read; None if it is
    unknown. ``machine`` and ``kernel`` are the architecture and the release, as uname(2) has them.
    ``selinux`` is what the host does with labels; that of another root is taken to enforce them.
    ``unheard`` are the calls that the policy denies and the host's libseccomp does not know.
    """

    state: HostState | None = None
    mounts: tuple[Mount, ...] = ()
    image: str | None = None
    rootless: bool = False
    bundle: str | None = None
    place: str = ""
    layout: Layout = _HERE
    vmid: int | None = None
    version: str = ""
    policy: Effective | None = None
    own_filter: bytes | None = None
    own_filter_place: str = ""
    machine: str = "x86_64"
    kernel: str = "5.10"
    selinux: Selinux = "enforcing"
    unheard: frozenset[str] = frozenset()


class Engine(ABC):
    """One container engine.

    ``reads_host`` says whether the text depends on the host; if not, no host is read. ``asks`` is
    the program whose version decides what the engine can do; "" for none. ``takes`` are the options
    of render that the engine has a use for; "U" is the option of a volume by which the engine
    changes the owners at the start. ``idmap`` says whether it can map the ids of a mount: "yes";
    "asked", only on request, because some versions silently ignore it; "itself", it always does so.
    ``own_filters`` are the files that have its own profile of system calls; the first that exists
    counts, unless one of the files ``filter_configs`` names another: see ``names_filter``. A * in
    the last name of a path is for all such files, sorted. ``login_filter_configs`` are read after
    these where an account runs the engine, with its {home} and {uid}. ``elsewhere``: what is
    rendered goes to other hosts, of which this one knows nothing.
    """

    reads_host: ClassVar[bool] = False
    asks: ClassVar[str] = ""
    takes: ClassVar[frozenset[str]] = frozenset()
    idmap: ClassVar[Literal["no", "yes", "asked", "itself"]] = "no"
    own_filters: ClassVar[tuple[str, ...]] = ()
    filter_configs: ClassVar[tuple[str, ...]] = ()
    login_filter_configs: ClassVar[tuple[str, ...]] = ()
    elsewhere: ClassVar[bool] = False

    @abstractmethod
    def verdict(self, allocation: Allocation) -> Verdict:
        """Whether the engine can express this allocation."""

    @abstractmethod
    def render(self, allocation: Allocation, context: RenderContext) -> Rendered:
        """What the engine reads. It is called only if the verdict is not "no"."""

    def names_filter(self, contents: Sequence[bytes]) -> str:
        """The profile of system calls that its configuration names instead of its own; "" for none."""
        del contents
        return ""

    def hardening(
        self, policy: Effective, allocation: Allocation, context: RenderContext
    ) -> Hardening:
        """How the engine enforces a policy. ``render`` puts its words where the engine reads them."""
        from usernsplan.engines.hardened import nothing  # noqa: PLC0415 - many hosts have no policy

        del allocation, context
        return nothing(policy, "it sets nothing but ids")


def ungranted(allocation: Allocation) -> str:
    """Why no line of subuid grants an allocation, for a verdict; "" if lines do.

    Those of a slice are somebody's larger ones.
    """
    if has_lines(allocation) or allocation.within:
        return ""
    if not allocation.in_files:
        return "this allocation has no lines: only the ledger has it"
    return "this map is not written there"


def subid_files(allocation: Allocation, *owners: str) -> tuple[File, ...]:
    """The lines of subuid and subgid that an engine depends on.

    They are those of ``owners``; without any, those of the allocation's owner.
    """
    if not has_lines(allocation):
        return ()
    return tuple(
        File(path, b"".join(subid.line(owner, ids) for ids in ranges).decode(), "lines")
        for kind, path in subid.PATHS.items()
        for owner in owners or (allocation.owner,)
        for ranges in [granted(allocation, kind, owner)]
    )


def allocate_again(allocation: Allocation, layout: Layout, *more: str) -> str:
    """The command that made an allocation, with more options: running it adds what they ask for."""
    words = ["allocate", "--strategy", allocation.strategy]
    options = options_of(allocation.strategy, allocation.mapping, allocation.reserved_range)
    for option, value in options.items():
        words += [f"--{option}"] if value is True else [f"--{option}", f"{value}"]
    for text in passes.written(allocation.passes):
        words += ["--pass", text]

    if allocation.within:
        words += ["--within", shell(allocation.within)]
    elif allocation.owner not in {DEFAULT_OWNER, f"{OWN_PREFIX}{allocation.name}"}:
        words += ["--owner", shell(allocation.owner)]
    if not (allocation.in_files or allocation.within):
        words.append("--no-lines")
    if allocation.name != DEFAULT_NAME:
        words.append(shell(allocation.name))
    return layout.command(" ".join([*words, *more]))


def plain(path: str) -> str:
    """A path that can be written without quotes. Raises RefusedError for one that needs them."""
    if not _PLAIN.fullmatch(path):
        raise RefusedError(
            f"{path!r} has characters that mean something else in this engine's format",
            hint="use a path of letters, digits and . _ + - @ = ~; a bind mount can give it one",
        )
    return path


def quoted(text: str) -> str:
    """A YAML string in quotes. A JSON string is one too, if every character can be printed."""
    if not text.isprintable():
        raise RefusedError(f"{text!r} has characters that YAML cannot carry")
    return json.dumps(text, ensure_ascii=False)


def check_image(image: str) -> None:
    """Raise InvalidValueError for what cannot be the name of an image."""
    if not _IMAGE.fullmatch(image):
        raise InvalidValueError(f"--image {image!r} is not the name of an image")


def only_extent(ids: IdMap) -> tuple[int, int] | None:
    """Host start and count of a map with one extent from container id 0; None for any other map."""
    [(container, host, count), *more] = ids.triples()
    return None if more or container else (host, count)


def is_login(owner: str) -> bool:
    """Tell whether an owner may be a login: neither root nor one that stands for ids."""
    return owner not in {ROOT, DEFAULT_OWNER, *POOL_OWNERS} and not owner.startswith(OWN_PREFIX)


def login_of(allocation: Allocation, context: RenderContext) -> User:
    """The account that owns an allocation's lines and can run its own containers.

    Raises RefusedError if no such account exists, or if its own id is in the map.
    """
    if context.state is None:
        raise InvalidValueError("this depends on the accounts of the host, but no host was read")
    if why := ungranted(allocation):
        raise RefusedError(f"newuidmap grants '{allocation.name}' to nobody: {why}")
    user = context.state.accounts.user(allocation.owner)
    if user is None and (doubt := context.state.accounts.doubt(allocation.owner)):
        raise RefusedError(doubt, hint="run 'usernsplan render' on that host")
    if user is None or user.name == ROOT:
        option = "--within" if allocation.within else "--owner"
        raise RefusedError(
            f"the lines of '{allocation.name}' belong to {allocation.owner}, who cannot log in",
            hint="rootless containers need lines of an account: "
            + context.layout.command(f"allocate NAME {option} LOGIN"),
        )
    for kind, number in zip(KINDS, (user.uid, user.gid), strict=True):
        shown = IdSet(p.extent.host_range for p in allocation.passes if p.kind == kind)
        # A slice has no lines: the login's own id passes as 0 of its own namespace.
        is_own = bool(allocation.within) and number in shown
        if not is_own and allocation.mapping[kind].to_container(number) is not None:
            raise RefusedError(
                f"Podman refuses the map of '{allocation.name}': "
                f"{user.name}'s own {kind} {number} is in it",
                hint="allocate a range that does not contain it, or run the container as root",
            )
    return user
