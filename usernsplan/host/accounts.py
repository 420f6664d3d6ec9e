"""The accounts and groups of a host: from its files, and on this machine also from NSS.

Also runs useradd.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar, cast

from usernsplan.errors import (
    InvalidValueError,
    LockBusyError,
    RefusedError,
    UsernsplanError,
    of_place,
    reason_of,
)
from usernsplan.escape import in_words, indented, line, shell
from usernsplan.formats import nsswitch
from usernsplan.formats.accounts import (
    Accounts,
    Group,
    User,
    groups,
    is_published,
    members,
    published,
    users,
)
from usernsplan.formats.accounts import accounts as accounts_of
from usernsplan.formats.accounts import homes as homes_in
from usernsplan.formats.userdb import removal
from usernsplan.host import files, userdb
from usernsplan.host.unread import fail, missing
from usernsplan.layout import GROUP, NSSWITCH, PASSWD, USERDB, Layout
from usernsplan.values import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from grp import struct_group
    from pwd import struct_passwd

    from usernsplan.host.unread import Miss
    from usernsplan.mapping import Pass
    from usernsplan.model import Record

T = TypeVar("T")
# The folders of shadow's tools. The PATH of a provisioning script may lack them.
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin")
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
# A directory service answers each id over the network.
_MOST_ASKED = 256
# The services of nsswitch.conf whose accounts are read without NSS.
_READ_HERE = {"files", "systemd"}


def read(layout: Layout, miss: Miss = fail, ours: Iterable[Record] = ()) -> Accounts:
    """The accounts and groups of the host, as ``of_files``, with those of systemd's records.

    ``miss`` gets the error of these records. ``ours`` are records that the ledger has. They are no
    accounts, and so their files need no look.
    """
    records = userdb.NOTHING
    with missing(USERDB, miss):
        records = userdb.read(layout, userdb.named(ours))
    return of_files(
        layout,
        files.read(layout, PASSWD, follow=True) or b"",
        files.read(layout, GROUP, follow=True) or b"",
        files.read(layout, NSSWITCH, follow=True) or b"",
        records,
    )


def of_files(
    layout: Layout, passwd: bytes, group: bytes, switch: bytes, records: userdb.Found
) -> Accounts:
    """The accounts and groups of these files and records, and on this machine those that NSS lists.

    A service of ``switch`` that need not list its accounts is their ``directory`` on this machine;
    below another root its accounts are ``unknown``.
    """
    source = nsswitch.source(switch, "passwd")
    listed_users, listed_groups = b"", b""
    if layout.is_host:
        listed_users = _listed("passwd", switch)
        listed_groups = _listed("group", switch)
    found = accounts_of(
        (*users(passwd), *records.users, *users(listed_users)),
        (*groups(group), *records.groups, *groups(listed_groups)),
        (*published(passwd), *records.published),
    )
    asks = layout.is_host and (source.directory or "systemd" in source.services)
    return replace(
        found,
        unknown="" if layout.is_host else source.directory,
        directory=_Nss() if asks else None,
        members=tuple(dict.fromkeys((*members(group), *members(listed_groups)))),
    )


def _listed(database: str, switch: bytes) -> bytes:
    """What NSS lists on this machine, in the form of passwd(5), besides files and systemd.

    nss-systemd is not asked, but its records are read: to list 10,000 groups it reads their folder
    10,000 times, which takes minutes. For its other accounts (homed) the directory asks it.
    """
    others = [name for name in nsswitch.source(switch, database).services if name not in _READ_HERE]
    getent = _program("getent") if others else None
    if getent is None:
        return b""
    import subprocess  # noqa: PLC0415 - slow, and seldom needed

    with of_place(getent):
        words = (getent, "--service", " ".join(others), database)
        return subprocess.run(  # noqa: S603 - services of root's own file
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
        ).stdout


def _program(name: str) -> str | None:
    """The path of a program that may be run, in the folders of root's programs."""
    paths = (f"{folder}/{name}" for folder in _SBIN)
    return next((one for one in paths if os.access(one, os.X_OK) and os.path.isfile(one)), None)


class _Nss:
    """The Directory of this machine: it asks NSS for each account once."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, object], object] = {}

    def user(self, name: str) -> User | None:
        import pwd  # noqa: PLC0415 - only for the running machine

        return self._once("user", name, lambda: _user(pwd.getpwnam(name)))

    def user_of(self, uid: int) -> User | None:
        import pwd  # noqa: PLC0415 - only for the running machine

        return self._once("uid", uid, lambda: _user(pwd.getpwuid(uid)))

    def group(self, name: str) -> Group | None:
        import grp  # noqa: PLC0415 - only for the running machine

        return self._once("group", name, lambda: self._group(grp.getgrnam(name)))

    def group_of(self, gid: int) -> Group | None:
        import grp  # noqa: PLC0415 - only for the running machine

        return self._once("gid", gid, lambda: self._group(grp.getgrgid(gid)))

    def _group(self, entry: struct_group) -> Group:
        """The group. Raises KeyError for that of an account which only publishes a range."""
        import pwd  # noqa: PLC0415 - only for the running machine

        try:
            owner = pwd.getpwuid(entry.gr_gid)
        except KeyError:
            return Group(entry.gr_name, entry.gr_gid)
        if owner.pw_name == entry.gr_name:
            _user(owner)
        return Group(entry.gr_name, entry.gr_gid)

    def _once(self, what: str, key: object, ask: Callable[[], T]) -> T | None:
        if (what, key) not in self._answers:
            self._answers[what, key] = None
            # No such account, a name with a NUL byte, or a number past every id.
            with suppress(KeyError, ValueError, OverflowError):
                self._answers[what, key] = ask()
        return cast("T | None", self._answers[what, key])


def _user(entry: struct_passwd) -> User:
    """The account. Raises KeyError for one that only publishes a range: it is no account."""
    if is_published(entry.pw_gecos, entry.pw_dir, entry.pw_shell):
        raise KeyError(entry.pw_name)
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid)


def homes(layout: Layout) -> tuple[tuple[int, str], ...]:
    """The uid and home of each account of the host."""
    found = list(homes_in(files.read(layout, PASSWD, follow=True) or b""))
    if layout.is_host:
        import pwd  # noqa: PLC0415 - only for the running machine

        found += [(entry.pw_uid, entry.pw_dir) for entry in pwd.getpwall()]
    return tuple(dict.fromkeys(found))


def home_of(layout: Layout, uid: int) -> str:
    """The home of one account, also of one that nothing lists; "" if it has none."""
    if layout.is_host:
        import pwd  # noqa: PLC0415 - only for the running machine

        with suppress(KeyError):
            return pwd.getpwuid(uid).pw_dir
    return dict(homes_in(files.read(layout, PASSWD, follow=True) or b"")).get(uid, "")


def of_ids(layout: Layout, uids: Iterable[int], gids: Iterable[int]) -> Accounts:
    """The accounts and groups that NSS knows under these ids; empty for another root.

    NSS answers for many more ids than it enumerates (SSSD).
    """
    if not layout.is_host:
        return Accounts()
    nss = _Nss()
    return Accounts(
        tuple(filter(None, map(nss.user_of, uids))), tuple(filter(None, map(nss.group_of, gids)))
    )


def naming(layout: Layout, passes: Iterable[Pass], known: Accounts | None = None) -> Accounts:
    """The accounts and groups that name what passes through: those listed, and single ids by NSS.

    ``known`` are the host's accounts, if the caller has them. Raises UsernsplanError.
    """
    single = [one for one in passes if one.extent.count == 1][:_MOST_ASKED]
    listed = read(layout) if known is None else known
    uids, gids = (
        {one.extent.host for one in single if one.kind == kind} - here
        for kind, here in (
            ("uid", {user.uid for user in listed.users}),
            ("gid", {group.gid for group in listed.groups}),
        )
    )
    more = of_ids(layout, uids, gids)
    return listed.and_these(more.users, more.groups)


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
    return _program("useradd") is not None and os.geteuid() == 0


def add(layout: Layout, command: tuple[str, ...]) -> None:
    """Run the useradd or groupadd command of a plan on this root.

    Under --prefix shadow resolves the symlinks of the other root from this machine's "/". If one of
    its files would then be another file than for a process in that chroot, nothing is run.
    Raises RefusedError for that, LockBusyError, and UsernsplanError with the tool's message.
    """
    files.make_folder(layout, os.path.dirname(PASSWD))
    hint = "nothing was allocated; create the account yourself, or use --no-daemon-config"
    _run(layout, command, hint)


def remove(layout: Layout, record: Record) -> None:
    """Remove an account that published a range, and its group. Raises what ``add`` raises."""
    steps = removal(record)
    hint = "; ".join(shell(*layout.account_command(step)) for step in steps)
    for step in steps:
        raw = files.read(layout, GROUP, follow=True) or b""
        # userdel(8) may have removed the group, too.
        if step[0] != "groupdel" or any(one.name == record.name for one in groups(raw)):
            _run(layout, step, f"remove it later: {hint}")


def _run(layout: Layout, command: tuple[str, ...], hint: str) -> None:
    if not layout.is_host:
        _refuse_others(layout, command[0])
        _refuse_links(layout, command[0])

    import subprocess  # noqa: PLC0415 - slow, and seldom needed

    program = _program(command[0]) or command[0]
    words = (program, *layout.account_command(command)[1:])
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
            hint=hint,
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
