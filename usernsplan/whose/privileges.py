"""What the state of a process means, in sentences. Each rule names the man page that it follows.

"The host" is the user namespace of usernsplan itself. /proc has no file with the securebits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.harden.names import CAPABILITIES
from usernsplan.ids import OVERFLOW_ID
from usernsplan.mapping import KINDS
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from usernsplan.formats.proc_status import Status
    from usernsplan.model import Namespace
    from usernsplan.whose.ids import Answer, IdContext

# The capabilities that Docker, Podman and containerd give a container by default.
DEFAULT = frozenset(
    {
        *(
            "chown",
            "dac_override",
            "fowner",
            "fsetid",
            "kill",
            "setgid",
            "setuid",
            "setpcap",
            "net_bind_service",
        ),
        *("net_raw", "sys_chroot", "mknod", "audit_write", "setfcap"),
    }
)

_LITTLE = 8

# If usernsplan itself runs in a user namespace, these sentences about "the host" are about it.
_OURS = "the user namespace in which usernsplan runs"
_OF_THE_HOST = {
    "host-root": f"it is root of {_OURS}, which is not the host's initial one",
    "host-capabilities": f"its capabilities count in {_OURS}",
    "setuid": f"with setuid it can become every uid of {_OURS}",
    "root-group": f"it is in group 0 of {_OURS}",
}


_NOROOT = ", unless its securebits, which cannot be seen, include noroot"


class Sentence(NamedTuple):
    """One conclusion. ``code`` is for programs and never changes.

    ``unusual`` marks what people should look at. ``capabilities`` are those that it is about.
    """

    code: str
    text: str
    unusual: bool = False
    capabilities: tuple[str, ...] = ()


class Process(NamedTuple):
    """One process: its namespace and those around it, and what is known about their ids.

    ``line`` is empty if the process has the host's namespace, and None if that cannot be seen.
    ``whose`` has an answer for each of its ids. ``initial`` is False if the host is itself a user
    namespace.
    """

    pid: int
    status: Status
    line: tuple[Namespace, ...] | None
    facts: IdContext
    whose: Mapping[int, Answer]
    initial: bool = True

    @property
    def namespace(self) -> Namespace | None:
        """The namespace of the process."""
        return self.line[0] if self.line else None


def sentences(
    status: Status, line: tuple[Namespace, ...] | None, *, initial: bool = True
) -> tuple[Sentence, ...]:
    """What the state of a process means. ``line`` and ``initial`` are those of Process."""
    namespace = line[0] if line else None
    root = _Root(status, namespace)
    found = [
        sentence
        for rule in (_identity, _reach, _regain, _kept, _switches, _groups, _seccomp)
        for sentence in rule(status, namespace, root)
    ]
    if line is None:
        # If its maps are like the host's, its ids are the host's in any namespace.
        unsure = _OF_THE_HOST if not initial else {"host-root", "host-capabilities"}
        found = [_unseen(status), *(one for one in found if one.code not in unsure)]
    elif not line and not initial:
        found = [
            one._replace(text=_OF_THE_HOST[one.code]) if one.code in _OF_THE_HOST else one
            for one in found
        ]
    return (*_owners(line or ()), *found)


class _Root:
    """Root for a process: the host id of its namespace's uid 0, None if that is not mapped."""

    def __init__(self, status: Status, namespace: Namespace | None) -> None:
        if namespace is None:
            self.uid: int | None = 0
        else:
            self.uid = namespace.mapping.uids.to_host(0) if namespace.mapping else None
        # execve(2) checks these two.
        self.is_now = self.uid is not None and self.uid in {status.uids.real, status.uids.effective}
        # The kernel ignores a file's set-user-ID bit if the file's group is not mapped. If no gid
        # is mapped, that is every file.
        self.by_setuid = self.uid is not None and not (
            namespace and namespace.mapping and not namespace.mapping.gids
        )
        self.is_saved = not self.is_now and self.uid is not None and self.uid == status.uids.saved


def listed(names: Collection[str]) -> str:
    """A set of capabilities as text."""
    if not names:
        return "none"
    if set(names) >= set(CAPABILITIES):
        return f"all {len(names)}"
    if set(names) == DEFAULT:
        return f"the {len(DEFAULT)} that Docker gives by default"
    missing = [name for name in CAPABILITIES if name not in names]
    return f"all but {', '.join(missing)}" if _nearly_all(names) else ", ".join(names)


def _nearly_all(names: Collection[str]) -> bool:
    """Tell whether this is root's full set without a few, and not a set that was granted."""
    return len(set(CAPABILITIES) - set(names)) <= _LITTLE


def _identity(status: Status, namespace: Namespace | None, root: _Root) -> Iterator[Sentence]:
    """user_namespaces(7): the identity of a process outside its namespace."""
    uid = status.uids.effective
    if namespace is None:
        if root.is_now:
            yield Sentence(
                "host-root", "it is root of the host: it has no user namespace of its own"
            )
        return
    if 0 in {uid, status.uids.file_system} and root.uid != 0:
        yield Sentence(
            "host-uid-0",
            "it is uid 0 of the host, under any container id: it owns root's files and sockets",
            unusual=True,
        )
    if namespace.mapping is None:
        yield Sentence(
            "no-map",
            f"its namespace has no maps yet: it sees every id as {OVERFLOW_ID}",
            unusual=True,
        )
        return
    for kind in KINDS:
        if not namespace.mapping[kind]:
            yield Sentence(
                f"no-{kind}-map",
                f"its namespace has no {kind}_map yet: it sees every {kind} as {OVERFLOW_ID}",
                unusual=True,
            )
    if root.uid == 0:
        yield Sentence(
            "identity-root",
            "root of its namespace is uid 0 of the host: it owns root's files and sockets",
            unusual=True,
        )
    elif root.is_now:
        yield Sentence(
            "root-inside",
            f"it is root in its own user namespace; on the host it is uid {uid}, not root",
        )
    uids = namespace.mapping.uids
    own = dict.fromkeys(status.uids.all()) if uids else ()
    for number in (number for number in own if uids.to_container(number) is None):
        yield Sentence(
            "unmapped-uid",
            f"the map lacks its uid {number}: it is {number}, but sees {OVERFLOW_ID}",
            unusual=True,
        )


def _owners(line: tuple[Namespace, ...]) -> Iterator[Sentence]:
    """user_namespaces(7): which host uid has every capability in a namespace, and from where."""
    owner = line[0].owner if line else None
    if owner is None:
        return
    text = f"host uid {owner} made its namespace, and has every capability in it from "
    text += "outside" if len(line) == 1 else "the namespace around it"
    outermost = line[-1].owner
    if len(line) > 1 and outermost is not None:
        text += f"; host uid {outermost} made the outermost one, and has them from the host"
    yield Sentence("owner", text)


def _unseen(status: Status) -> Sentence:
    """The sentence for a user namespace that cannot be seen and may be the host's."""
    have = status.capabilities.permitted
    text = "cannot see whether it has a user namespace of its own; run as root of the host"
    if have:
        text += f"; if it has none, its capabilities ({listed(have)}) count on the whole host"
    return Sentence("unseen-namespace", text, capabilities=have)


def _reach(status: Status, namespace: Namespace | None, root: _Root) -> Iterator[Sentence]:
    """capabilities(7) and user_namespaces(7): where its capabilities count now."""
    have = status.capabilities
    now = (
        ""
        if set(have.effective) == set(have.permitted)
        else f"; in effect now: {listed(have.effective)}"
    )
    if namespace is not None and have.permitted:
        text = (
            f"its capabilities ({listed(have.permitted)}) count for what its own user namespace "
            f"owns, but not on the host{now}"
        )
        yield Sentence("namespaced", text, capabilities=have.permitted)
    elif have.permitted:
        yield Sentence(
            "host-capabilities",
            f"its capabilities ({listed(have.permitted)}) count on the whole host{now}",
            capabilities=have.permitted,
        )
    elif not root.is_now:
        yield Sentence("no-capabilities", "it has no capabilities now")
    else:
        yield Sentence(
            "powerless-root",
            "it is root without capabilities: it owns root's files, and has no other power",
        )
    beyond = tuple(name for name in have.permitted if name not in DEFAULT)
    if beyond and not _nearly_all(have.permitted):
        yield Sentence(
            "beyond-default",
            f"beyond what Docker gives by default: {listed(beyond)}",
            unusual=True,
            capabilities=beyond,
        )


def _regain(status: Status, namespace: Namespace | None, root: _Root) -> Iterator[Sentence]:
    """What it can regain.

    capabilities(7), "Transformation of capabilities during execve()", and prctl(2).
    """
    have = status.capabilities
    if status.no_new_privs:
        yield Sentence(
            "no-new-privs",
            "no_new_privs is set and cannot be unset: set-user-ID and set-group-ID bits and file "
            "capabilities give nothing to it and its children",
        )
        return
    # Root, and a process that a setuid-root binary makes root, gets the bounding set and the
    # inheritable set.
    gain = tuple(
        name for name in _ordered((*have.bounding, *have.inheritable)) if name not in have.permitted
    )
    if root.is_now and gain:
        yield Sentence(
            "regain-as-root",
            f"as root, its programs have these capabilities again{_NOROOT}: {listed(gain)}",
            capabilities=gain,
        )
    elif gain and root.by_setuid:
        where = f"of its namespace's root (host uid {root.uid})" if namespace else "of root"
        of = " and ".join(word for word in ("bounding", "inheritable") if getattr(have, word))
        text = (
            f"its {of} set is not empty and no_new_privs is not set: through a setuid binary "
            f"{where} it can regain these capabilities{_NOROOT}: {listed(gain)}"
        )
        yield Sentence("regain-by-setuid", text, unusual=True, capabilities=gain)
    elif not root.by_setuid and (allowed := tuple(name for name in gain if name in have.bounding)):
        why = (
            "its namespace has no root that it could become"
            if root.uid is None
            else "no gid is mapped, so no setuid binary works"
        )
        yield Sentence(
            "regain-by-file",
            f"{why}; a file's capabilities can give it {listed(allowed)}",
            capabilities=allowed,
        )
    elif not have.bounding and not root.is_now:
        text = "its bounding set is empty: no setuid binary gives it a capability"
        if namespace is None:
            text += ", but a binary of root still makes it uid 0, the owner of root's files"
        yield Sentence("nothing-to-regain", text)


def _kept(status: Status, _namespace: Namespace | None, root: _Root) -> Iterator[Sentence]:
    """capabilities(7): the ambient and the inheritable set."""
    have = status.capabilities
    if have.ambient:
        text = (
            f"ambient: {', '.join(have.ambient)}: every program that it runs keeps these, even "
            "with no_new_privs, unless the program's file is set-user-ID or set-group-ID or has "
            "capabilities"
        )
        yield Sentence("ambient", text, unusual=True, capabilities=have.ambient)
    only = tuple(name for name in have.inheritable if name not in have.ambient)
    if only:
        more = (
            "a file gives no more of them than it has now"
            if status.no_new_privs
            else "a file with these capabilities does"
        )
        # A program that root runs gets them anyway.
        yield Sentence(
            "inheritable",
            f"inheritable: {listed(only)}: on their own they give nothing; {more}",
            unusual=not root.is_now,
            capabilities=only,
        )


def _switches(status: Status, namespace: Namespace | None, root: _Root) -> Iterator[Sentence]:
    """credentials(7): the uids that it can become without a capability, and with setuid."""
    uids = status.uids
    if root.is_saved:
        yield Sentence(
            "saved-root",
            "its saved uid is root's: it can become root again at any time",
            unusual=True,
        )
    elif len({uids.real, uids.effective, uids.saved}) > 1:
        others = sorted({uids.real, uids.saved} - {uids.effective})
        yield Sentence(
            "other-uid",
            f"it can also become uid {' or '.join(map(str, others))}, its real or saved uid",
            unusual=True,
        )
    if uids.file_system != uids.effective:
        yield Sentence(
            "file-system-uid",
            f"it opens files as uid {uids.file_system}, not its effective uid {uids.effective}",
            unusual=True,
        )
    if "setuid" in status.capabilities.effective:
        where = "of the host" if namespace is None else "in its map"
        mapping = namespace.mapping if namespace else None
        has_root = mapping is not None and mapping.uids.to_container(0) is not None
        root_too = ", including uid 0 of the host" if has_root else ""
        yield Sentence(
            "setuid", f"with setuid it can become every uid {where}{root_too}", unusual=has_root
        )


def _groups(status: Status, namespace: Namespace | None, _root: _Root) -> Iterator[Sentence]:
    """user_namespaces(7): file permissions use the host groups, not those that a process sees."""
    mapping = namespace.mapping if namespace else None
    if namespace is None:
        if 0 in {*status.groups, status.gids.effective} and 0 not in status.uids.all():
            yield Sentence("root-group", "it is in group 0 of the host, root's group", unusual=True)
    elif mapping is not None:
        lost = [
            g
            for g in dict.fromkeys((*status.gids.all(), *status.groups))
            if mapping.gids.to_container(g) is None
        ]
        if lost:
            text = (
                f"it is in host groups that its map lacks ({_few(lost)}): it sees them as "
                f"{OVERFLOW_ID}, but can open what they can open"
            )
            yield Sentence("unmapped-group", text, unusual=True)


def _seccomp(status: Status, _namespace: Namespace | None, _root: _Root) -> Iterator[Sentence]:
    """seccomp(2)."""
    if status.seccomp == 0:
        yield Sentence("no-seccomp", "it has no seccomp filter: it can call every system call")
    elif status.seccomp == 1:
        yield Sentence(
            "strict-seccomp", "seccomp is strict: it can call only read, write, _exit and sigreturn"
        )
    elif status.seccomp is not None:
        number = "" if status.filters is None else f"{status.filters} "
        filters = "filter limits" if status.filters == 1 else "filters limit"
        yield Sentence(
            "seccomp", f"{number}seccomp {filters} its system calls; which ones cannot be seen"
        )


def _ordered(names: Iterable[str]) -> list[str]:
    found = set(names)
    return [name for name in CAPABILITIES if name in found] + sorted(found - set(CAPABILITIES))


def _few(numbers: Sequence[int], shown: int = 8) -> str:
    more = f" and {len(numbers) - shown} more" if len(numbers) > shown else ""
    return ", ".join(map(str, numbers[:shown])) + more
