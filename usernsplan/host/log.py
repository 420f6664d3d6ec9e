"""The system log: one line for each change, where administrators look for changes of accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.layout import Layout


def changed(layout: Layout, lines: Iterable[str]) -> None:
    """Log to AUTHPRIV, as useradd does; a change in another root is not this machine's and is not logged here."""
    if not layout.is_host:
        return
    import syslog  # noqa: PLC0415 - only when something changes

    syslog.openlog("usernsplan", syslog.LOG_PID, syslog.LOG_AUTHPRIV)
    for line in lines:
        syslog.syslog(syslog.LOG_INFO, line.encode("utf-8", "backslashreplace").decode())
    syslog.closelog()
