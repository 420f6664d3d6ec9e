"""Which words may be a container's name, and which the owner of its lines."""

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

# Docker's own grammar (moby, names.RestrictedNamePattern): an engine must be able to use the name.
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_LONGEST = 255


def check_name(name: str) -> None:
    """Raise InvalidValueError for what Docker would not take as a container's name."""
    if name == DEFAULT_NAME:
        raise InvalidValueError(
            f"'{DEFAULT_NAME}' is the name of Docker's own allocation",
            hint="to make that one, give no name at all",
        )
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise InvalidValueError(
            f"'{name}' is not a container name",
            hint="two characters or more: a letter or digit, then letters, digits, '_', '.' and '-'",
        )


def check_owner(owner: str) -> None:
    """Raise InvalidValueError for what no reader, or not every reader, takes for a name in subuid(5)."""
    hint = "no blank, ':' or '#', nothing unprintable, no '-' or '+' in front, and not empty"
    try:
        subid.line(owner, IdRange(0, 1))
    except InvalidValueError as error:
        raise InvalidValueError(str(error), hint=hint) from error
    if not owner.isprintable() or len(owner.encode()) > _LONGEST:
        raise InvalidValueError(f"{owner!r} cannot be the owner of a line in subuid(5)", hint=hint)
    if owner.isdigit():
        raise InvalidValueError(
            f"'{owner}' as an owner would be read as a uid",
            hint="name the account, or choose a name of your own",
        )


def owner_of(name: str) -> str:
    """The owner of an allocation's lines where --owner names none: nobody's account, or Docker's own remap user."""
    return DEFAULT_OWNER if name == DEFAULT_NAME else f"{OWN_PREFIX}{name}"


def refuse_account(state: HostState, owner: str) -> NoReturn:
    """Say that an owner which was not asked for by name is somebody's account."""
    raise RefusedError(
        f"{state.layout.path(PASSWD)}: '{owner}' is an account: whoever is logged in as it could map the range",
        hint=f"say {in_words(f'--owner {shell(owner)}')} if that is meant, or '--owner OTHER'",
        in_file="write it as the owner if that is meant, or another owner",
    )
