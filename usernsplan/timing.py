"""Install and remove the timer of ``sync``. The hands of ``sync --install-timer``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.errors import RefusedError
from usernsplan.escape import operand, shown_path
from usernsplan.formats import unit_file
from usernsplan.host import booted, files, units
from usernsplan.ledger import member
from usernsplan.model import Timer
from usernsplan.planner import sync_units

if TYPE_CHECKING:
    from usernsplan.layout import Layout

# What sync imports, beyond what every command does.
_MODULES = ("cli.sync", "syncing", "report.synced", "ledger.postgres", "planner.adopt")
_PACKAGES = ("psycopg", "yaml")


def install(layout: Layout, *, really: bool = True) -> Timer:
    """Let systemd run sync every ten minutes.

    Raises RefusedError where others can change what root would run, where somebody else's unit is in
    the way, and on a host that is in no fleet or has no systemd.
    """
    if member.noted(layout) is None:
        raise RefusedError(
            "this host is in no fleet, so there is nothing to sync",
            hint=f"{layout.inline('ledger join URL')} joins one",
        )
    notes: tuple[str, ...] = ()
    if layout.is_host:
        if not units.has_systemd(layout):
            raise RefusedError(
                "this host has no systemd, so there are no timers",
                hint=f"let cron run {layout.inline('sync')}",
            )
        booted.refuse_unsafe(_MODULES, _PACKAGES)
    elif not files.exists(layout, booted.interpreter()):
        # Programs of another root are not run, and what is installed there is its maker's to say.
        runs = f"with the Python {booted.interpreter()}"
        notes = (f"it runs once usernsplan is installed below {layout.root}, {runs}",)
    wanted = sync_units.units(booted.interpreter())
    _refuse_foreign(layout)
    missing = [
        one
        for one in wanted
        if units.problem(layout, one.name, _target(one.name))
        or units.body(layout, one.name) != one.body
    ]
    for one in missing if really else ():
        units.write(layout, one.name, unit_file.signed(one.head, one.body), _target(one.name))
    if missing and really:
        units.begin(layout, sync_units.TIMER)
    return Timer(installed=True, changed=bool(missing), paths=_paths(layout), notes=notes)


def remove(layout: Layout, *, really: bool = True) -> Timer:
    """Undo ``install``. Raises RefusedError for a unit that somebody changed."""
    _refuse_foreign(layout)
    there = [name for name in _NAMES if units.body(layout, name) is not None]
    for name in there if really else ():
        units.remove(layout, name, sync_units.TARGET)
        units.forget(layout, name)
    return Timer(installed=False, changed=bool(there), paths=_paths(layout))


# The timer goes first, or it would start what is gone.
_NAMES = (sync_units.TIMER, sync_units.SERVICE)


def _target(name: str) -> str:
    return sync_units.TARGET if name == sync_units.TIMER else ""


def _paths(layout: Layout) -> tuple[str, ...]:
    return tuple(layout.path(units.path_of(name)) for name in reversed(_NAMES))


def _refuse_foreign(layout: Layout) -> None:
    for name in _NAMES:
        if units.is_foreign(layout, name):
            path = layout.path(units.path_of(name))
            raise RefusedError(
                f"{shown_path(path)} was changed, or somebody else wrote it",
                hint=f"keep a copy and remove it: mv {operand(path)} {operand(path)}.old",
            )
