"""What can clash on a host: rules over everything that is known of it. Pure.

A rule has a code (USN001 …), a severity and a story. error: something is wrong now, a container fails or an id belongs
to two. warning: something waits to go wrong. info: worth knowing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

# Each of these notes its rules in RULES.
from usernsplan.audit import (  # noqa: F401
    accounts,
    docker,
    drift,
    host,
    numbers,
    overlaps,
    owners,
    readers,
    running,
    volumes,
)
from usernsplan.audit.base import RULES, Facts, Rule
from usernsplan.audit.repairs import Repair, repair_of
from usernsplan.errors import InvalidValueError, did_you_mean
from usernsplan.planner.stories import ADVICE, Story

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from usernsplan.model import Finding, Severity

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")

__all__ = [
    "ADVICE",
    "RULES",
    "SEVERITIES",
    "Facts",
    "Repair",
    "Rule",
    "check",
    "chosen",
    "repair_of",
    "story",
]


def check(facts: Facts, codes: Collection[str] | None = None) -> tuple[Finding, ...]:
    """What the rules (of these codes; of all) find: errors first, then by code, then as it stands in the files."""
    wanted = [RULES[code] for code in sorted(RULES) if codes is None or code in codes]
    found = [finding for rule in wanted for finding in rule.findings(facts)]
    return tuple(sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)))


def chosen(select: Iterable[str] = (), ignore: Iterable[str] = ()) -> frozenset[str]:
    """The codes that --select and --ignore leave; both are codes or beginnings of codes, several with commas.

    Raises InvalidValueError for one that no code begins with.
    """
    wanted = _codes("select", select) or frozenset(RULES)
    return wanted - _codes("ignore", ignore)


def _codes(option: str, words: Iterable[str]) -> frozenset[str]:
    found: set[str] = set()
    for word in (piece.strip() for text in words for piece in text.split(",")):
        codes = {code for code in RULES if word and code.startswith(word.upper())}
        if not codes:
            raise _no_such_code(option, word, RULES)
        found |= codes
    return frozenset(found)


def story(code: str) -> Rule | Story:
    """The rule of a code, or what there is to tell of a finding that allocate or release gives.

    Raises InvalidValueError for a code that nothing has.
    """
    known: dict[str, Rule | Story] = {**RULES, **ADVICE}
    if code.upper() not in known:
        raise _no_such_code("explain", code, known)
    return known[code.upper()]


def _no_such_code(option: str, word: str, known: Iterable[str]) -> InvalidValueError:
    # All codes are spelled alike: the one that is most alike may not be what was meant.
    hint = f"{did_you_mean(word, known)} there are {', '.join(sorted(known))}"
    return InvalidValueError(f"there is no code '{word}'", hint=hint.strip(), option=option)
