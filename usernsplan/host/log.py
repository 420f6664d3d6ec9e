"""The system log: one line for each change, where administrators look for changes of accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.escape import line as escaped

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.layout import Layout


def changed(layout: Layout, lines: Iterable[str]) -> None:
    """Log each line to AUTHPRIV, as useradd does. Changes of another root are not logged here.

    Each line is escaped: a line end in it would begin another record, in any program's name.
    """
    if not layout.is_host:
        return
    import syslog  # noqa: PLC0415 - only when something changes

    syslog.openlog("usernsplan", syslog.LOG_PID, syslog.LOG_AUTHPRIV)
    for line in lines:
        syslog.syslog(syslog.LOG_INFO, escaped(line))
    syslog.closelog()
