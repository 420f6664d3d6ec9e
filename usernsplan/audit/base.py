"""What the audit looks at (Facts), how a rule is written down (``rule``), and the list of all rules (RULES). Pure.

A rule is one function: Facts in, what it sees out. Its docstring is its story: the first line is the title, the rest
is what ``check --explain`` prints.
"""

from __future__ import annotations

import inspect
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from usernsplan.errors import InvalidFileError
from usernsplan.formats import daemon_json
from usernsplan.formats.subid import Grant, ended
from usernsplan.holdings import holdings
from usernsplan.ids import IdRange, IdSet
from usernsplan.layout import DAEMON_JSON, LEDGER, SUBGID, SUBUID
from usernsplan.model import ROOT, Finding
from usernsplan.planner.grants import Grants
from usernsplan.planner.meant import is_meant_by_root
from usernsplan.planner.repair import make_repair
from usernsplan.strategies import Shared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from usernsplan.formats.accounts import Accounts, User
    from usernsplan.formats.daemon_json import DaemonConfig
    from usernsplan.formats.subid import Line
    from usernsplan.model import Allocation, HostState, Intent, Namespace, Plan, Severity

FILES = (SUBUID, SUBGID)
# UID_MIN of login.defs(5) as everybody has it, and the one number above it that is nobody's login.
_FIRST_PERSON, _NOBODY = 1000, 65534


class Unread(NamedTuple):
    """A file that could not be read as it should: its name in the layout, why not, and the remedy."""

    path: str
    fact: str
    hint: str


class Lock(NamedTuple):
    """A lock file that lies there: ``pid`` None where it holds none, ``alive`` None where nobody looked."""

    path: str
    pid: int | None
    alive: bool | None


class Attributes(NamedTuple):
    """What lstat(2) says of subuid or subgid."""

    path: str
    kind: str
    mode: int
    uid: int
    gid: int


class FilesCarrying(NamedTuple):
    """What files carry of a released range: how many names of files, and one of them ("" for none)."""

    name: str
    reserved_range: IdRange
    entries: int
    example: str


class Misfits(NamedTuple):
    """The files of a recorded volume whose owner has no place in its container's map: how many, and the first.

    ``ids`` are the commonest of these owners, in words.
    """

    path: str
    name: str
    entries: int
    ids: tuple[str, ...]
    examples: tuple[str, ...]


class Span(NamedTuple):
    """Ids from ``start`` up to ``stop`` that a line gives to ``owner``, as some reader reads it.

    The owner is the account's name where the line has its uid. ``allocation`` is the name of ours whose line it is;
    ``intended`` where that one is to overlap with the host's own ids, as the shared strategy does. ``number`` is 0 for
    what only the ledger holds.
    """

    start: int
    stop: int
    path: str
    number: int
    owner: str
    allocation: str = ""
    intended: bool = False

    @property
    def ids(self) -> str:
        """The ids as FIRST-LAST, or the one; past what an id can be, too."""
        return f"{self.start}-{self.stop - 1}" if self.stop - self.start > 1 else f"{self.start}"

    @property
    def for_usermod(self) -> str:
        """The ids as usermod takes them: FIRST-LAST, also where they are one."""
        return f"{self.start}-{self.stop - 1}"


@dataclass(frozen=True, eq=False)
class Facts:
    """Everything that a rule may depend on. Without slots: what several rules need is worked out once, and kept.

    ``namespaces`` run on this machine; ``image`` are the accounts of --passwd; ``scanned`` is what --scan found of the
    released ranges, None where nothing was scanned; ``intent`` is that of a run that did not finish;
    ``elsewhere`` are owners whom a directory service knows, though it does not list them; ``misfits`` is what
    --volumes found.
    """

    state: HostState
    namespaces: tuple[Namespace, ...] = ()
    locks: tuple[Lock, ...] = ()
    unread: tuple[Unread, ...] = ()
    attributes: tuple[Attributes, ...] = ()
    image: Accounts | None = None
    scanned: tuple[FilesCarrying, ...] | None = None
    intent: Intent | None = None
    elsewhere: frozenset[str] = frozenset()
    misfits: tuple[Misfits, ...] = ()

    def place(self, path: str, number: int = 0) -> str:
        """path:line as it is typed for this root."""
        return self.state.layout.path(path) + (f":{number}" if number else "")

    def lines(self, path: str) -> tuple[Line, ...]:
        """The lines of one of the two files."""
        return (self.state.subuid if path == SUBUID else self.state.subgid).lines

    @cached_property
    def users(self) -> dict[str, User]:
        """Accounts by name, the first of each as getpwnam(3) finds it."""
        return {user.name: user for user in reversed(self.state.accounts.users)}

    @cached_property
    def names(self) -> dict[int, str]:
        """The account's name by its uid."""
        return {user.uid: user.name for user in reversed(self.state.accounts.users)}

    @cached_property
    def owners(self) -> dict[str, Allocation]:
        """The allocation of each owner who has one; root, who may have many and others' too, is left out."""
        return {a.owner: a for a in self.state.ledger.allocations if a.owner != ROOT}

    @cached_property
    def grants(self) -> Grants:
        """What our allocations are to have in both files, and what they have."""
        return Grants(self.state)

    @cached_property
    def repair(self) -> Plan:
        """What ``check --fix`` would put back."""
        return make_repair(self.state)

    @cached_property
    def spans(self) -> dict[str, tuple[Span, ...]]:
        """By file, everything that its lines give to somebody, lowest first; empty ranges are left out."""
        ours = {
            (one.path, raw): a
            for a in self.state.ledger.allocations
            for one in holdings(a)
            for raw in one.wanted
        }
        return {path: tuple(sorted(self._spans(path, ours))) for path in FILES}

    def _spans(self, path: str, ours: dict[tuple[str, bytes], Allocation]) -> Iterator[Span]:
        for line in self.lines(path):
            given = ((line.start, line.stop),) if isinstance(line, Grant) else line.spans
            owner = self.owner_of(line)
            a = ours.get((path, ended(line.raw)))
            for start, stop in given:
                if start >= stop:
                    continue
                if a is None:
                    yield Span(start, stop, path, line.number, owner)
                else:
                    filler = a.reserved_range is not None and start == a.reserved_range.start
                    yield Span(
                        start,
                        stop,
                        path,
                        line.number,
                        a.owner,
                        a.name,
                        a.strategy == Shared.name and not filler,
                    )

    def owner_of(self, line: Line) -> str:
        """Whom a line is for: the account of that name or uid, or what the line says."""
        owner = line.owner if isinstance(line, Grant) else (line.owners or ("",))[-1]
        # With a zero in front it is nobody's number: readers compare the text.
        if owner.isascii() and owner.isdigit() and str(int(owner[:10])) == owner:
            return self.names.get(int(owner), owner)
        return owner

    @cached_property
    def by_owner(self) -> dict[str, dict[str, list[Span]]]:
        """By file and owner, what his lines give, in file order."""
        found: dict[str, dict[str, list[Span]]] = {path: {} for path in FILES}
        for path in FILES:
            for span in sorted(self.spans[path], key=lambda span: span.number):
                found[path].setdefault(span.owner, []).append(span)
        return found

    @cached_property
    def held(self) -> tuple[Span, ...]:
        """What each allocation keeps others from, as the ledger has it, lowest first; uids and gids alike."""
        allocations = self.state.ledger.allocations
        return tuple(
            sorted(
                Span(a.reserved_range.start, a.reserved_range.stop, LEDGER, 0, a.owner, a.name)
                for a in allocations
                if a.reserved_range
            )
        )

    @cached_property
    def taken(self) -> dict[str, Index]:
        """By file, what belongs to somebody, to be searched: lines, and what the ledger holds besides.

        What is intended to lie over the host's own ids is left out.
        """
        return {
            path: Index([*(s for s in self.spans[path] if not s.intended), *self.held])
            for path in FILES
        }

    @cached_property
    def given(self) -> dict[str, tuple[Span, ...]]:
        """By file, what its lines give, and what the ledger holds for an allocation besides: a block, a lost line.

        What root means by lines about the host's own ids is left out.
        """
        found: dict[str, tuple[Span, ...]] = {}
        for path in FILES:
            ours = IdSet.clipped(
                (span.start, span.stop) for span in self.spans[path] if span.allocation
            )
            kept = (
                one._replace(start=part.start, stop=part.stop)
                for one in self.held
                for whole in [IdRange(one.start, one.stop - one.start)]
                for part in IdSet(ours.within(whole)).gaps(whole)
            )
            found[path] = (*(span for span in self.spans[path] if not is_meant(span)), *kept)
        return found

    def person(self, owner: str) -> User | None:
        """The ordinary account of an owner: somebody, or a service, that can log in; None for any other."""
        user = self.users.get(owner)
        return user if user and user.uid >= _FIRST_PERSON and user.uid != _NOBODY else None

    def is_nobody(self, owner: str) -> bool:
        """Tell whether no account has this name or number, as far as can be seen from here."""
        return owner not in self.users and owner not in self.elsewhere

    @cached_property
    def daemon(self) -> DaemonConfig | None:
        """Docker's configuration; None where there is none, or none that can be read."""
        try:
            raw = self.state.daemon_json
            return None if raw is None else daemon_json.parse(raw, self.place(DAEMON_JSON))
        except InvalidFileError:
            return None


def is_meant(span: Span) -> bool:
    """Tell whether a line is root's about the host's own ids."""
    return not span.allocation and is_meant_by_root(span.owner, span.start, span.stop - span.start)


class Index:
    """Spans, to be searched for those that overlap with some ids without looking at all of them."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self._spans = sorted(spans)
        self._starts = [span.start for span in self._spans]
        # The furthest end so far: looking back from a place can stop where even this one lies before it.
        self._reach: list[int] = []
        for span in self._spans:
            self._reach.append(max(span.stop, self._reach[-1] if self._reach else 0))

    def over(self, start: int, stop: int) -> Iterator[Span]:
        """The spans that have an id of [start, stop), the last to begin first."""
        at = bisect_left(self._starts, stop) - 1
        while at >= 0 and self._reach[at] > start:
            if self._spans[at].stop > start:
                yield self._spans[at]
            at -= 1


class Seen(NamedTuple):
    """What a rule sees: where, what, and the remedy; with a table where readers differ."""

    place: str
    message: str
    hint: str = ""
    table: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the audit: its story is what it is about, how it comes about, an example, and the remedy."""

    code: str
    severity: Severity
    title: str
    story: str
    findings: Callable[[Facts], Iterator[Finding]]


# By code. Filled by the modules of this package as they are imported.
RULES: dict[str, Rule] = {}


def rule(
    code: str, severity: Severity
) -> Callable[[Callable[[Facts], Iterator[Seen]]], Callable[[Facts], Iterator[Seen]]]:
    """Note a function as the rule of this code."""

    def noted(look: Callable[[Facts], Iterator[Seen]]) -> Callable[[Facts], Iterator[Seen]]:
        def findings(facts: Facts) -> Iterator[Finding]:
            for seen in look(facts):
                yield Finding(code, severity, seen.message, seen.hint, seen.place, seen.table)

        title, _, story = inspect.cleandoc(look.__doc__ or "").partition("\n\n")
        RULES[code] = Rule(code, severity, title.removesuffix("."), story, findings)
        return look

    return noted


def listed(words: Sequence[str], most: int = 3) -> str:
    """Some of the words, and how many more there are."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more
