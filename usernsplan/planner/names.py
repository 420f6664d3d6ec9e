"""The rules for the name of a container and for the owner of its lines."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

from usernsplan.errors import InvalidValueError, RefusedError
from usernsplan.escape import in_words, shell
from usernsplan.formats import subid
from usernsplan.ids import IdRange
from usernsplan.layout import PASSWD
from usernsplan.model import DEFAULT_NAME, DEFAULT_OWNER, OWN_PREFIX

if TYPE_CHECKING:
    from usernsplan.model import HostState

# The grammar of Docker (moby, names.RestrictedNamePattern), since the engines use the name.
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
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


def refuse_account(state: HostState, owner: str) -> NoReturn:
    """Raise RefusedError because a default owner, which the user did not name, is an account."""
    raise RefusedError(
        f"{state.layout.path(PASSWD)}: '{owner}' is an account, and its processes could map the range",
        hint=f"use {in_words(f'--owner {shell(owner)}')} if you want that, or '--owner OTHER'",
        in_file="name it as the owner if you want that, or name another owner",
    )
