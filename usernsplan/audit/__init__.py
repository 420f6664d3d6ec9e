"""The audit: rules that find conflicts of ids on a host. Pure.

A rule has a code (USN001 …), a severity and a story. error: something is wrong now; a container
fails, or an id has two owners. warning: something may go wrong later. info: worth knowing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

# Each of these modules adds its rules to RULES when it is imported.
from usernsplan.audit import (  # noqa: F401
    accounts,
    docker,
    drift,
    fleet,
    hardening,
    host,
    kubelet,
    lxc,
    mounts,
    numbers,
    outer,
    overlaps,
    owners,
    passes,
    programs,
    published,
    quadlets,
    readers,
    running,
    shadow,
    slices,
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
    """The findings of the rules with these codes (None: all), by severity, code and place."""
    wanted = [RULES[code] for code in sorted(RULES) if codes is None or code in codes]
    # The rules are sorted, not the findings: each finding has the severity of its rule.
    wanted.sort(key=lambda rule: SEVERITIES.index(rule.severity))
    return tuple(finding for rule in wanted for finding in rule.findings(facts))


def chosen(select: Iterable[str] = (), ignore: Iterable[str] = ()) -> frozenset[str]:
    """The codes that --select and --ignore leave: prefixes of codes, separated by commas.

    Raises InvalidValueError for a prefix that matches no code.
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
    """The rule of a code, or the story of a code that allocate, release or check --fix reports.

    Raises InvalidValueError for an unknown code.
    """
    found = RULES.get(code.upper()) or ADVICE.get(code.upper())
    if found is None:
        raise _no_such_code("explain", code, {*RULES, *ADVICE})
    return found


def _no_such_code(option: str, word: str, known: Iterable[str]) -> InvalidValueError:
    # Codes differ in one digit, so the suggestion may be wrong: list all of them too.
    hint = f"{did_you_mean(word, known)} the codes are {', '.join(sorted(known))}"
    return InvalidValueError(f"unknown code '{word}'", hint=hint.strip(), option=option)
