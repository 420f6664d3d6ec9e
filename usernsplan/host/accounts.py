"""The accounts and groups of a host: from its files, and on this machine also from NSS.

Also runs useradd.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from usernsplan.errors import (
    InvalidValueError,
    LockBusyError,
    RefusedError,
    UsernsplanError,
    of_place,
    reason_of,
)
from usernsplan.escape import in_words, indented, line, shell
from usernsplan.formats.accounts import Accounts, Group, User, groups, users
from usernsplan.formats.accounts import homes as homes_in
from usernsplan.host import files
from usernsplan.layout import GROUP, PASSWD, Layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# The folders of shadow's tools. The PATH of a provisioning script may lack them.
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
# The files that useradd reads or writes below a prefix. Beside each database it writes a backup
# ("-"), a new file ("+") and a lock.
_DATABASES = (
    "/etc/passwd",
    "/etc/shadow",
    "/etc/group",
    "/etc/gshadow",
    "/etc/subuid",
    "/etc/subgid",
)
_USERADD_FILES = (*_DATABASES, "/etc/login.defs", "/etc/default/useradd")
_BESIDE = ("-", "+", ".lock")


def read(layout: Layout) -> Accounts:
    """The accounts and groups of the host.

    On this machine they include those that NSS enumerates (homed; LDAP if it is set up to).
    """
    return of_files(
        layout,
        files.read(layout, PASSWD, follow=True) or b"",
        files.read(layout, GROUP, follow=True) or b"",
    )


def of_files(layout: Layout, passwd: bytes, group: bytes) -> Accounts:
    """The accounts and groups in these two files, and on this machine also those that NSS lists."""
    found_users, found_groups = list(users(passwd)), list(groups(group))
    if layout.is_host:
        import grp  # noqa: PLC0415 - only for the running machine
        import pwd  # noqa: PLC0415

        found_users += [User(entry.pw_name, entry.pw_uid, entry.pw_gid) for entry in pwd.getpwall()]
        found_groups += [Group(entry.gr_name, entry.gr_gid) for entry in grp.getgrall()]
    return Accounts(tuple(dict.fromkeys(found_users)), tuple(dict.fromkeys(found_groups)))


def homes(layout: Layout) -> tuple[tuple[int, str], ...]:
    """The uid and home of each account of the host."""
    found = list(homes_in(files.read(layout, PASSWD, follow=True) or b""))
    if layout.is_host:
        import pwd  # noqa: PLC0415 - only for the running machine

        found += [(entry.pw_uid, entry.pw_dir) for entry in pwd.getpwall()]
    return tuple(dict.fromkeys(found))


def of_ids(layout: Layout, uids: Iterable[int], gids: Iterable[int]) -> Accounts:
    """The accounts and groups that NSS knows under these ids; empty for another root.

    NSS answers for many more ids than it enumerates (SSSD).
    """
    found_users, found_groups = [], []
    if layout.is_host:
        import grp  # noqa: PLC0415 - only for the running machine
        import pwd  # noqa: PLC0415

        for uid in uids:
            with suppress(KeyError):
                user = pwd.getpwuid(uid)
                found_users.append(User(user.pw_name, user.pw_uid, user.pw_gid))
        for gid in gids:
            with suppress(KeyError):
                group = grp.getgrgid(gid)
                found_groups.append(Group(group.gr_name, group.gr_gid))
    return Accounts(tuple(found_users), tuple(found_groups))


def known_elsewhere(owners: Iterable[str]) -> frozenset[str]:
    """The names and uids among ``owners`` that NSS on this machine knows; it is asked for each."""
    import pwd  # noqa: PLC0415 - only for the running machine

    found = set()
    for owner in owners:
        with suppress(KeyError, ValueError, OverflowError):
            if owner.isascii() and owner.isdigit():
                pwd.getpwuid(int(owner))
            else:
                pwd.getpwnam(owner)
            found.add(owner)
    return frozenset(found)


def of_image(path: str | None) -> Accounts:
    """The users of an image's passwd file, and the groups of the file 'group' beside it.

    If the folder is called etc, symlinks are resolved as a chroot of the tree around it would
    resolve them. In other folders a symlink is refused, because its root is unknown.
    Raises InvalidValueError if the file is missing or cannot be read, and RefusedError.
    """
    if path is None:
        return Accounts()
    shown, beside = f"--passwd {line(path)}", os.path.join(os.path.dirname(path), "group")
    found = _of_image(path, shown)
    if found is None:
        raise InvalidValueError(f"{shown}: no such file or directory")
    found_beside = _of_image(beside, line(beside)) or b""
    try:
        return Accounts(tuple(users(found)), tuple(groups(found_beside)))
    except ValueError as error:
        raise InvalidValueError(f"{shown}: {error}") from error


def _of_image(path: str, shown: str) -> bytes | None:
    folder, name = os.path.split(os.path.abspath(path))
    above, _, last = folder.rpartition("/")
    try:
        if last == "etc":
            top = Layout(above or "/", os.path.realpath(above or "/"))
            return files.whole(files.real(top, f"/etc/{name}", follow=True), shown)
        return files.whole(path, shown)
    except FileNotFoundError:
        return None
    except RefusedError as error:
        raise InvalidValueError(str(error), hint=error.hint) from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            hint = "name the target of the symlink, or DIR/etc/passwd of a root file system"
            raise RefusedError(f"{shown} is a symlink", hint=hint) from error
        raise InvalidValueError(f"{shown}: {reason_of(error)}") from error


def can_add() -> bool:
    """Tell whether useradd is installed and this process may run it.

    useradd gives its files to root and shadow, below any prefix, so only root can run it.
    """
    return shutil.which("useradd", path=_SBIN) is not None and os.geteuid() == 0


def add(layout: Layout, command: tuple[str, ...]) -> None:
    """Run the useradd or groupadd command of a plan on this root.

    Under --prefix shadow resolves the symlinks of the other root from this machine's "/". If one of
    its files would then be another file than for a process in that chroot, nothing is run.
    Raises RefusedError for that, LockBusyError, and UsernsplanError with the tool's message.
    """
    if not layout.is_host:
        _refuse_others(layout, command[0])
        _refuse_links(layout, command[0])

    program = shutil.which(command[0], path=_SBIN) or command[0]
    words = (program, *layout.account_command(command)[1:])
    files.make_folder(layout, os.path.dirname(PASSWD))
    with of_place(program):
        done = subprocess.run(  # noqa: S603 - words of our own plan
            words,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
            umask=0o022,
            check=False,
        )
    if done.returncode and "cannot lock" in done.stderr:
        raise LockBusyError(done.stderr.strip().splitlines()[-1])
    if done.returncode:
        raise UsernsplanError(
            f"{in_words(shell(*words))} failed with status {done.returncode}: "
            f"{indented(done.stderr)}",
            hint="nothing was allocated; create the account yourself, or use --no-daemon-config",
        )


def _refuse_links(layout: Layout, program: str) -> None:
    """Raise RefusedError if a symlink could lead what useradd writes out of the root."""
    for name in _leading_out(layout):
        raise RefusedError(
            f"{layout.path(name)} is a symlink or lies behind one: {program} could write "
            "outside the root",
            hint="replace the symlink with a regular file, add the account in a chroot, "
            "or use --no-daemon-config",
        )


def _refuse_others(layout: Layout, program: str) -> None:
    """Raise RefusedError if others could replace, after our check, what shadow opens by path."""
    for name in ("/", os.path.dirname(PASSWD)):
        with suppress(FileNotFoundError):
            seen = files.look(layout, name, follow=True)
            mode = stat.S_IMODE(seen.st_mode)
            theirs = mode & stat.S_IWOTH or (
                mode & stat.S_IWGRP and seen.st_gid not in {0, os.getegid()}
            )
            if theirs or seen.st_uid not in {0, os.geteuid()}:
                raise RefusedError(
                    f"{layout.path(name)} belongs to uid {seen.st_uid} with mode {mode:o}: "
                    f"others could make {program} write outside the root",
                    hint="add the account in a chroot, or use --no-daemon-config",
                )


def _leading_out(layout: Layout) -> Iterator[str]:
    """The files of useradd that a symlink could lead out of the root."""
    for name in _USERADD_FILES:
        if os.path.realpath(layout.real + name) != files.real(layout, name, follow=True):
            yield name
    for name in _DATABASES:
        yield from (name + suffix for suffix in _BESIDE if files.is_symlink(layout, name + suffix))
