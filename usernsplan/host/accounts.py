"""Accounts and groups of a host: from its files, and on this machine from NSS too; and useradd."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from usernsplan.errors import UsernsplanError
from usernsplan.formats.accounts import Accounts, Group, User, groups, users
from usernsplan.host import files
from usernsplan.layout import GROUP, PASSWD

if TYPE_CHECKING:
    from usernsplan.layout import Layout

# Where shadow's tools are, whatever PATH a provisioning script was given.
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"


def read(layout: Layout) -> Accounts:
    """Everybody whom the host knows. On this machine that includes what NSS enumerates (homed, LDAP where it does)."""
    found_users = list(users(files.read(layout, PASSWD, follow=True) or b""))
    found_groups = list(groups(files.read(layout, GROUP, follow=True) or b""))
    if layout.is_host:
        import grp  # noqa: PLC0415 - only for the running machine
        import pwd  # noqa: PLC0415

        found_users += [User(entry.pw_name, entry.pw_uid, entry.pw_gid) for entry in pwd.getpwall()]
        found_groups += [Group(entry.gr_name, entry.gr_gid) for entry in grp.getgrall()]
    return Accounts(tuple(dict.fromkeys(found_users)), tuple(dict.fromkeys(found_groups)))


def can_add() -> bool:
    """Tell whether useradd is there and may write accounts: it gives its files to root and shadow, in any root."""
    return shutil.which("useradd", path=_SBIN) is not None and os.geteuid() == 0


def add(layout: Layout, command: tuple[str, ...]) -> None:
    """Run a useradd or groupadd of a plan on this root. Raises UsernsplanError with the tool's own words."""
    program = shutil.which(command[0], path=_SBIN) or command[0]
    prefix = () if layout.is_host else ("--prefix", os.path.realpath(layout.root))
    words = (program, *prefix, *command[1:])
    files.make_folder(layout, os.path.dirname(PASSWD))
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)  # noqa: S603
    if done.returncode:
        raise UsernsplanError(
            f"'{' '.join(words)}' failed with status {done.returncode}: {done.stderr.strip()}",
            hint="nothing was allocated; make the account yourself, or say --no-daemon-config",
        )
