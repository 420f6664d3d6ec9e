"""The host as one value: every file that a decision may depend on, read once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.formats import nsswitch, subid
from usernsplan.host import accounts, files, namespaces, programs
from usernsplan.ids import IdSet
from usernsplan.layout import DAEMON_JSON, LOGIN_DEFS, NSSWITCH, SUBGID, SUBUID
from usernsplan.model import HostState

if TYPE_CHECKING:
    from usernsplan.layout import Layout
    from usernsplan.ledger import Ledger


def state(layout: Layout, ledger: Ledger) -> HostState:
    """Read the host below ``layout.root``. Nothing is written, nothing outside the root is read.

    Raises RefusedError for a subuid or subgid that is a symlink, and whatever else reading a file may meet.
    """
    switch = files.read(layout, NSSWITCH, follow=True) or b""
    return HostState(
        layout=layout,
        subuid=subid.parse(files.read(layout, SUBUID)),
        subgid=subid.parse(files.read(layout, SUBGID)),
        daemon_json=files.read(layout, DAEMON_JSON, follow=True),
        daemon_json_is_symlink=files.is_symlink(layout, DAEMON_JSON),
        login_defs=files.read(layout, LOGIN_DEFS, follow=True) or b"",
        subid_source=nsswitch.source(switch, "subid"),
        passwd_source=nsswitch.source(switch, "passwd"),
        accounts=accounts.read(layout),
        ledger=ledger.state(),
        namespaces=namespaces.host_ids() if layout.is_host else IdSet(),
        can_add_accounts=accounts.can_add(),
        engines=programs.engines(layout),
    )
