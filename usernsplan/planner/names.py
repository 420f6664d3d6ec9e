"""The rules for the name of a container and for the owner of its lines."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, NoReturn

from usernsplan.errors import InvalidValueError, RefusedError
from usernsplan.escape import in_words, shell
from usernsplan.formats import subid
from usernsplan.formats.userdb import USER
from usernsplan.ids import IdRange
from usernsplan.layout import PASSWD, USERDB
from usernsplan.model import DEFAULT_NAME, DEFAULT_OWNER, OWN_PREFIX
from usernsplan.patterns import pattern

if TYPE_CHECKING:
    from collections.abc import Container

    from usernsplan.model import Allocation, HostState

# The grammar of Docker (moby, names.RestrictedNamePattern), since the engines use the name.
_NAME = pattern(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_LONGEST = 255


def check_name(name: str) -> None:
    """Raise InvalidValueError for a name that Docker would refuse."""
    if name == DEFAULT_NAME:
        raise InvalidValueError(
            f"'{DEFAULT_NAME}' is the name of Docker's own allocation",
            hint="give no name to allocate that one",
        )
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise InvalidValueError(
            f"'{name}' is not a container name",
            hint="use two characters or more: a letter or digit, then letters, digits, '_', '.', '-'",
        )


def check_owner(owner: str) -> None:
    """Raise InvalidValueError for an owner that not every reader of subuid(5) accepts."""
    hint = "use printable characters without blanks, ':' and '#'; the first is not '-' or '+'"
    try:
        subid.line(owner, IdRange(0, 1))
    except InvalidValueError as error:
        raise InvalidValueError(str(error), hint=hint) from error
    if not owner.isprintable() or len(owner.encode()) > _LONGEST:
        raise InvalidValueError(f"{owner!r} cannot be the owner of a line in subuid(5)", hint=hint)
    if owner.isdigit():
        raise InvalidValueError(
            f"the owner '{owner}' would be read as a uid",
            hint="use the name of the account, or another name",
        )


def owner_of(name: str) -> str:
    """The default owner of an allocation's lines: no account, or Docker's own remap user."""
    return DEFAULT_OWNER if name == DEFAULT_NAME else f"{OWN_PREFIX}{name}"


def has_default_owner(allocation: Allocation) -> bool:
    """Tell whether usernsplan chose the owner. A renamed allocation has that of its first name."""
    owner = allocation.owner
    return owner == owner_of(allocation.name) or owner.startswith(OWN_PREFIX)


def former_owners(state: HostState) -> dict[str, str]:
    """By name, the owner of the last range that was released under it, if no allocation has it now.

    A renamed allocation has another owner than its name says, and gets its range back.
    """
    last: dict[str, tuple[int, str]] = {}
    for q in state.ledger.quarantined:
        if q.was and (q.name not in last or q.event > last[q.name][0]):
            last[q.name] = (q.event, q.was.owner)
    taken = {a.owner for a in state.ledger.allocations} if last else set()
    return {
        name: owner
        for name, (_, owner) in last.items()
        if owner.startswith(OWN_PREFIX) and owner not in taken
    }


def other_owner(name: str, taken: Container[str]) -> str:
    """An owner for a name whose default owner has another allocation."""
    return next(
        owner for number in count(2) if (owner := f"{owner_of(name)}-{number}") not in taken
    )


def place_of_account(state: HostState, name: str) -> str:
    """The file that has a listed account: a record of systemd, or passwd."""
    file = f"{name}{USER}"
    return f"{USERDB}/{file}" if file in state.userdb.others else PASSWD


def refuse_account(state: HostState, owner: str, path: str) -> NoReturn:
    """Raise RefusedError because a default owner, which the user did not name, is an account.

    ``path`` is the file that has the account, or names the service that has it.
    """
    raise RefusedError(
        f"{state.layout.path(path)}: '{owner}' is an account, and its processes could map the range",
        hint=f"use {in_words(f'--owner {shell(owner)}')} if you want that, or '--owner OTHER'",
        in_file="name it as the owner if you want that, or name another owner",
    )
