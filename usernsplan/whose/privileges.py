"""What the state of a process means, in sentences that hold on the kernel: each rule names where it is written.

"The host" is whoever looks: the user namespace of this process. Securebits are in no file of /proc.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from usernsplan.formats.proc_status import CAPABILITIES
from usernsplan.ids import OVERFLOW_ID
from usernsplan.mapping import KINDS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from usernsplan.formats.proc_status import Status
    from usernsplan.model import Namespace
    from usernsplan.whose.ids import Answer, IdContext

# What Docker and its kin give a container that asks for nothing.
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

# What is said of a process without a user namespace of its own, and how where the host is a user namespace itself.
_OF_THE_HOST = {
    "host-root": "it is root of the user namespace that this was looked at from, which is not the host's first",
    "host-capabilities": "its capabilities count in the user namespace that this was looked at from",
    "setuid": "with setuid it can become every uid that the user namespace has that this was looked at from",
    "root-group": "it is in the group 0 of the user namespace that this was looked at from",
}


_NOROOT = ", unless its securebits, which cannot be seen, say noroot"


class Sentence(NamedTuple):
    """One thing that follows; ``code`` is for programs and stays, ``unusual`` for what people should look at.

    ``capabilities`` are those that it is about.
    """

    code: str
    text: str
    unusual: bool = False
    capabilities: tuple[str, ...] = ()


class Process(NamedTuple):
    """One process: its namespace and those around it, what is known of their ids.

    ``line`` is empty where it has the host's, None where it cannot be seen which it has. ``whose`` has an answer for
    each of its own ids. ``initial`` tells whether the host is really one, and no user namespace itself.
    """

    pid: int
    status: Status
    line: tuple[Namespace, ...] | None
    facts: IdContext
    whose: Mapping[int, Answer]
    initial: bool = True

    @property
    def namespace(self) -> Namespace | None:
        """Its own."""
        return self.line[0] if self.line else None


def sentences(
    status: Status, line: tuple[Namespace, ...] | None, *, initial: bool = True
) -> tuple[Sentence, ...]:
    """What the state of a process means; ``line`` and ``initial`` as Process has them."""
    namespace = line[0] if line else None
    root = _Root(status, namespace)
    found = [
        sentence
        for rule in (_identity, _reach, _regain, _kept, _switches, _groups, _seccomp)
        for sentence in rule(status, namespace, root)
    ]
    if line is None:
        # With maps like the host's, its ids are the host's, whoever has the namespace.
        unsure = _OF_THE_HOST if not initial else {"host-root", "host-capabilities"}
        found = [_unseen(status), *(one for one in found if one.code not in unsure)]
    elif not line and not initial:
        found = [
            one._replace(text=_OF_THE_HOST[one.code]) if one.code in _OF_THE_HOST else one
            for one in found
        ]
    return (*_owners(line or ()), *found)


class _Root:
    """Who is root for a process: the host id of its namespace's uid 0, None where that is not mapped."""

    def __init__(self, status: Status, namespace: Namespace | None) -> None:
        if namespace is None:
            self.uid: int | None = 0
        else:
            self.uid = namespace.mapping.uids.to_host(0) if namespace.mapping else None
        # execve(2) looks at these two.
        self.is_now = self.uid is not None and self.uid in {status.uids.real, status.uids.effective}
        # Where no gid is mapped, the kernel leaves out a file's set-user-ID bit: no file's group is.
        self.by_setuid = self.uid is not None and not (
            namespace and namespace.mapping and not namespace.mapping.gids
        )
        self.is_saved = not self.is_now and self.uid is not None and self.uid == status.uids.saved


def listed(names: Collection[str]) -> str:
    """A set of capabilities in words."""
    if not names:
        return "none"
    if set(names) >= set(CAPABILITIES):
        return f"all {len(names)}"
    if set(names) == DEFAULT:
        return f"the {len(DEFAULT)} that Docker gives by default"
    missing = [name for name in CAPABILITIES if name not in names]
    return f"all but {_named(missing)}" if _nearly_all(names) else _named(names)


def _nearly_all(names: Collection[str]) -> bool:
    """Tell whether a set is that of a root whom somebody took a little from, and not one that was given."""
    return len(set(CAPABILITIES) - set(names)) <= _LITTLE


def _named(names: Iterable[str]) -> str:
    return ", ".join(names)


def _identity(status: Status, namespace: Namespace | None, root: _Root) -> Iterator[Sentence]:
    """user_namespaces(7): who a process is outside of its namespace."""
    uid = status.uids.effective
    if namespace is None:
        if root.is_now:
            text = "it is root of the host: no user namespace lies between"
            yield Sentence("host-root", text)
        return
    if 0 in {uid, status.uids.file_system} and root.uid != 0:
        text = "it is uid 0 of the host, whatever it is called inside: files and sockets of root are its own"
        yield Sentence("host-uid-0", text, unusual=True)
    if namespace.mapping is None:
        text = f"the maps of its namespace are not written: it sees every id as {OVERFLOW_ID}"
        yield Sentence("no-map", text, unusual=True)
        return
    for kind in KINDS:
        if not namespace.mapping[kind]:
            text = f"the {kind}_map of its namespace is not written: it sees every {kind} as {OVERFLOW_ID}"
            yield Sentence(f"no-{kind}-map", text, unusual=True)
    if root.uid == 0:
        text = "root of its namespace is uid 0 of the host: files and sockets of root are its own"
        yield Sentence("identity-root", text, unusual=True)
    elif root.is_now:
        yield Sentence(
            "root-inside",
            f"it is root in its own user namespace; to the host it is uid {uid}, and no root",
        )
    uids = namespace.mapping.uids
    for number in [
        number
        for number in dict.fromkeys(status.uids.all())
        if uids and uids.to_container(number) is None
    ]:
        text = f"the map lacks its uid {number}: it sees itself as {OVERFLOW_ID}, and is {number} all the same"
        yield Sentence("unmapped-uid", text, unusual=True)


def _owners(line: tuple[Namespace, ...]) -> Iterator[Sentence]:
    """user_namespaces(7): who has every capability in a namespace, and from where."""
    owner = line[0].owner if line else None
    if owner is None:
        return
    text = f"host uid {owner} made its namespace, and has every capability in it from the namespace around it"
    outermost = line[-1].owner
    if len(line) == 1:
        text = f"host uid {owner} made its namespace, and has every capability in it from outside"
    elif outermost is not None:
        text += f"; from the host, uid {outermost} has them, who made the outermost"
    yield Sentence("owner", text)


def _unseen(status: Status) -> Sentence:
    """What can be said where its user namespace cannot be looked at, and may be the host's."""
    have = status.capabilities.permitted
    text = "whether it has a user namespace of its own cannot be seen: run as root of the host"
    if have:
        text += f"; if it has none, its capabilities ({listed(have)}) count on the whole host"
    return Sentence("unseen-namespace", text, capabilities=have)


def _reach(status: Status, namespace: Namespace | None, root: _Root) -> Iterator[Sentence]:
    """capabilities(7) and user_namespaces(7): what its capabilities are good for now."""
    have = status.capabilities
    now = (
        ""
        if set(have.effective) == set(have.permitted)
        else f"; in effect now: {listed(have.effective)}"
    )
    if namespace is not None and have.permitted:
        text = (
            f"its capabilities ({listed(have.permitted)}) count for what its own user namespace owns, and for nothing "
            f"of the host's{now}"
        )
        yield Sentence("namespaced", text, capabilities=have.permitted)
    elif have.permitted:
        text = f"its capabilities ({listed(have.permitted)}) count on the whole host{now}"
        yield Sentence("host-capabilities", text, capabilities=have.permitted)
    elif not root.is_now:
        yield Sentence("no-capabilities", "it has no capability now")
    else:
        yield Sentence(
            "powerless-root",
            "it is root without a capability: it has what root's uid owns, no more",
        )
    beyond = tuple(name for name in have.permitted if name not in DEFAULT)
    if beyond and not _nearly_all(have.permitted):
        text = f"beyond what Docker gives by default: {listed(beyond)}"
        yield Sentence("beyond-default", text, unusual=True, capabilities=beyond)


def _regain(status: Status, namespace: Namespace | None, root: _Root) -> Iterator[Sentence]:
    """capabilities(7), "Transformation of capabilities during execve()", and no_new_privs(7): what it can get back."""
    have = status.capabilities
    if status.no_new_privs:
        yield Sentence(
            "no-new-privs",
            "no_new_privs is set: set-user-ID and set-group-ID bits and file capabilities give it and its children "
            "nothing, and it cannot be taken back",
        )
        return
    # Root, and whoever a setuid-root binary makes root, gets the bounding set and what is inheritable.
    gain = tuple(
        name for name in _ordered((*have.bounding, *have.inheritable)) if name not in have.permitted
    )
    if root.is_now and gain:
        text = f"as root, every program that it runs has these capabilities again{_NOROOT}: {listed(gain)}"
        yield Sentence("regain-as-root", text, capabilities=gain)
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
            "its namespace has no root to become"
            if root.uid is None
            else "no gid is mapped: no setuid binary works"
        )
        text = f"{why}; a file's capabilities can give it {listed(allowed)}"
        yield Sentence("regain-by-file", text, capabilities=allowed)
    elif not have.bounding and not root.is_now:
        text = "its bounding set is empty: no setuid binary gives it a capability"
        if namespace is None:
            text += ", though one of root's still makes it uid 0, who owns root's files"
        yield Sentence("nothing-to-regain", text)


def _kept(status: Status, _namespace: Namespace | None, root: _Root) -> Iterator[Sentence]:
    """capabilities(7): the ambient and the inheritable set."""
    have = status.capabilities
    if have.ambient:
        text = (
            f"ambient: {_named(have.ambient)}: every program that it runs keeps these, also with no_new_privs, unless "
            "the program's file is set-user-ID, set-group-ID or has capabilities"
        )
        yield Sentence("ambient", text, unusual=True, capabilities=have.ambient)
    only = tuple(name for name in have.inheritable if name not in have.ambient)
    if only:
        more = (
            "no file gives more of them than it has now"
            if status.no_new_privs
            else "a file that asks for them does"
        )
        text = f"inheritable: {listed(only)}: by themselves they give nothing; {more}"
        # Root has every capability of its next program anyway.
        yield Sentence("inheritable", text, unusual=not root.is_now, capabilities=only)


def _switches(status: Status, namespace: Namespace | None, root: _Root) -> Iterator[Sentence]:
    """credentials(7): who it can become without any capability, and with one."""
    uids = status.uids
    if root.is_saved:
        yield Sentence(
            "saved-root", "its saved uid is root's: it can be root again at any time", unusual=True
        )
    elif len({uids.real, uids.effective, uids.saved}) > 1:
        others = sorted({uids.real, uids.saved} - {uids.effective})
        text = f"it can also become uid {' or '.join(map(str, others))}: its real or saved one"
        yield Sentence("other-uid", text, unusual=True)
    if uids.file_system != uids.effective:
        text = f"it opens files as uid {uids.file_system}, and not as its effective uid {uids.effective}"
        yield Sentence("file-system-uid", text, unusual=True)
    if "setuid" in status.capabilities.effective:
        whom = "of the host" if namespace is None else "that its map has"
        mapping = namespace.mapping if namespace else None
        has_root = mapping is not None and mapping.uids.to_container(0) is not None
        among = ", uid 0 of the host among them" if has_root else ""
        yield Sentence(
            "setuid", f"with setuid it can become every uid {whom}{among}", unusual=has_root
        )


def _groups(status: Status, namespace: Namespace | None, _root: _Root) -> Iterator[Sentence]:
    """user_namespaces(7): file permissions go by the host's groups, whatever a process sees of them."""
    mapping = namespace.mapping if namespace else None
    if namespace is None:
        if 0 in {*status.groups, status.gids.effective} and 0 not in status.uids.all():
            yield Sentence("root-group", "it is in the group 0, root's, of the host", unusual=True)
    elif mapping is not None:
        lost = [
            g
            for g in dict.fromkeys((*status.gids.all(), *status.groups))
            if mapping.gids.to_container(g) is None
        ]
        if lost:
            text = (
                f"it is in host groups that its map lacks ({_few(lost)}): it sees them as {OVERFLOW_ID}, and opens "
                "what they may open"
            )
            yield Sentence("unmapped-group", text, unusual=True)


def _seccomp(status: Status, _namespace: Namespace | None, _root: _Root) -> Iterator[Sentence]:
    """seccomp(2)."""
    if status.seccomp == 0:
        yield Sentence(
            "no-seccomp", "no seccomp filter: every system call of the kernel is open to it"
        )
    elif status.seccomp == 1:
        yield Sentence(
            "strict-seccomp",
            "seccomp is strict: read, write, _exit and sigreturn are all it may call",
        )
    elif status.seccomp is not None:
        number = "" if status.filters is None else f"{status.filters} "
        word = "filters say" if status.filters != 1 else "filter says"
        yield Sentence(
            "seccomp",
            f"{number}seccomp {word} which system calls it may make; which, cannot be seen",
        )


def _ordered(names: Iterable[str]) -> list[str]:
    found = set(names)
    return [name for name in CAPABILITIES if name in found] + sorted(found - set(CAPABILITIES))


def _few(numbers: Sequence[int], shown: int = 8) -> str:
    more = f" and {len(numbers) - shown} more" if len(numbers) > shown else ""
    return ", ".join(map(str, numbers[:shown])) + more
