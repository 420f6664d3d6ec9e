"""Whether a host is in a fleet: its own note of it, and the place in its config.yaml.

Both must agree. A host that has joined and cannot tell where the ledger of the fleet is decides
nothing: it would give out ids that other hosts have.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from usernsplan.errors import InvalidFileError, LedgerError, NotPermittedError
from usernsplan.host import files
from usernsplan.layout import CONFIG_FILE, FLEET
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from usernsplan.layout import Layout


class Member(NamedTuple):
    """A host of a fleet: the place of the ledger, the name of the host there, and its number."""

    url: str
    host: str
    number: int


def read(layout: Layout) -> Member | None:
    """The fleet of the host below a root; None if it is in none.

    Raises LedgerError if the host has joined and config.yaml does not say where, or the reverse.
    """
    try:
        note = noted(layout)
    except NotPermittedError:
        # Then the ledger in the same folder cannot be read either, and says so.
        return None
    url = place(layout)
    if note is None and not url:
        return None
    if note is None:
        raise LedgerError(
            f"{layout.path(CONFIG_FILE)} has the key 'ledger', and this host has not joined that fleet",
            hint=f"{layout.inline('ledger join')} joins it; or remove the key",
        )
    if not url:
        raise LedgerError(
            f"this host is in a fleet, and {layout.path(CONFIG_FILE)} has no key 'ledger'",
            hint="write it there again, such as 'ledger: postgresql://ledger.example/usernsplan'; "
            f"{layout.command('ledger leave --forget')} makes it a host of its own",
        )
    return Member(url, *note)


def noted(layout: Layout) -> tuple[str, int] | None:
    """The name of the host in its fleet, and its number there; None if it has not joined."""
    raw = files.read(layout, FLEET)
    return None if raw is None else _parsed(raw, layout.path(FLEET))


def place(layout: Layout) -> str:
    """The place of the fleet's ledger in config.yaml; "" if it names none."""
    try:
        raw = files.read(layout, CONFIG_FILE, follow=True)
    except NotPermittedError:
        # Who cannot read it decides nothing on this host.
        return ""
    # A host without a fleet does not load YAML for this.
    if raw is None or b"ledger" not in raw:
        return ""
    from usernsplan.host import config  # noqa: PLC0415 - only in a fleet

    found = config.load(layout, None)
    return found.ledger if found else ""


def has_its_state(layout: Layout) -> LedgerError:
    """The error for a ledger that would be rebuilt although the fleet's ledger has what it had."""
    return LedgerError(
        "this host is in a fleet, whose ledger has the state of this host too",
        hint=f"{layout.inline('sync')} brings it back",
    )


def remove(layout: Layout) -> None:
    """Remove the note: the host is in no fleet."""
    files.remove(layout, FLEET)


def write(layout: Layout, host: str, number: int) -> None:
    """Note that the host has joined."""
    import json  # noqa: PLC0415 - only in a fleet

    raw = json.dumps({"host": host, "number": number}).encode()
    files.make_folder(layout, os.path.dirname(FLEET), 0o700)
    files.write(layout, {FLEET: raw + b"\n"}, mode=0o600)


def agreed(layout: Layout) -> None:
    """Note that the host and the fleet's ledger agree now."""
    descriptor = files.opened(layout, FLEET)
    if descriptor is not None:
        try:
            os.utime(descriptor)
        finally:
            os.close(descriptor)


def seconds_since(layout: Layout) -> float:
    """How long ago they agreed, in seconds."""
    import time  # noqa: PLC0415 - only in a fleet

    return max(time.time() - files.look(layout, FLEET).st_mtime, 0.0)


def _parsed(raw: bytes, shown: str) -> tuple[str, int]:
    import json  # noqa: PLC0415 - only in a fleet

    try:
        found = json.loads(raw)
        host, number = found["host"], found["number"]
        if not (isinstance(host, str) and isinstance(number, int)):
            raise TypeError
    except (ValueError, TypeError, LookupError) as error:
        raise InvalidFileError(
            shown, "this is not what 'ledger join' writes", hint="usernsplan ledger join"
        ) from error
    return host, number
