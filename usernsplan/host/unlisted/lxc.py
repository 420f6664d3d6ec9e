"""What LXC and Proxmox VE map: the configs of their containers, root's and those of accounts.

An account may write anything into its own config, but newuidmap(1) gives it only what its lines
grant. So what a decision needs is in the files of root; those of accounts say more exactly who uses
a line, and only commands that show it look into homes.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from usernsplan import escape
from usernsplan.errors import RefusedError, UsernsplanError
from usernsplan.formats.accounts import homes as homes_in
from usernsplan.host import accounts, files
from usernsplan.host.unread import fail, missing
from usernsplan.layout import LXC_PATH, PASSWD, PROXMOX, PROXMOX_NODES
from usernsplan.mapping import MAX_EXTENTS
from usernsplan.model import LXC, PROXMOX_VE, ROOT, Unlisted
from usernsplan.patterns import pattern

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from usernsplan.formats.accounts import Accounts
    from usernsplan.formats.lxc import Line, MapLine, Refused
    from usernsplan.host.unread import Miss
    from usernsplan.layout import Layout

# A config has a few dozen lines.
_LARGEST = 1 << 20
# Real configs include each other three deep. LXC itself follows a loop until it has no descriptors.
_DEEPEST = 20
# So many files and lines are read for the containers of root, for those of one account, and for
# one container.
_MOST, _MOST_OF_ACCOUNT, _MOST_OF_ONE = 1_000_000, 20_000, 10_000
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PROXMOX_FILE = pattern(r"([0-9]+)\.conf")


def of_root(layout: Layout, miss: Miss = fail) -> tuple[Unlisted, ...]:
    """What the containers of root map, and what new ones will. Raises UsernsplanError."""
    configs = _Configs(layout, _MOST, miss)
    with missing(LXC_PATH, miss):
        configs.look(ROOT, "/etc/lxc", LXC_PATH)
    return tuple(configs.found)


def of_proxmox(layout: Layout, miss: Miss = fail) -> tuple[Unlisted, ...]:
    """What the containers of Proxmox VE map: those of this host, and those of other nodes.

    The latter may move to this host. Raises UsernsplanError.
    """
    configs = _Configs(layout, _MOST, miss)
    with missing(PROXMOX_NODES, miss):
        for folder, of_node in _nodes(layout, configs).items():
            with configs.noted(folder):
                _look_at_node(configs, folder, of_node)
    return tuple(configs.found)


def _look_at_node(configs: _Configs, folder: str, of_node: str) -> None:
    for name in configs.names(folder) or ():
        if named := _PROXMOX_FILE.fullmatch(name):
            what = f"container {named[1]}{of_node}"
            made = Unlisted(PROXMOX_VE, what, "uid", 0, 0, named[1], grantee=ROOT)
            path = f"{folder}/{name}"
            with configs.noted(path):
                configs.add(path, _lines(configs.read(path) or b"", of_proxmox=True), made)


def _nodes(layout: Layout, configs: _Configs) -> dict[str, str]:
    """The folder of each node, and words for a node other than this host, whose folder has two names."""
    here = files.real(layout, PROXMOX, follow=True)
    nodes: list[str] = []
    with configs.noted(PROXMOX_NODES):
        nodes += configs.names(PROXMOX_NODES) or ()
    others = {f"{PROXMOX_NODES}/{node}/lxc": f" of node {node}" for node in nodes}
    return {PROXMOX: ""} | {
        folder: words
        for folder, words in others.items()
        if files.real(layout, folder, follow=True) != here
    }


def of_accounts(
    layout: Layout, known: Accounts, granted: Collection[str], miss: Miss = fail, *, local: bool
) -> tuple[Unlisted, ...]:
    """What the containers of accounts map. ``miss`` gets each home that could not be looked at.

    ``granted`` are owners of lines, and ``local`` adds every account of passwd. The others, which
    only a directory service has, can start no container, and a look at a home may mount it. No
    home on a file system of the network is looked at: if its server is gone, that takes for ever.
    """
    homes: list[tuple[str, str]] = []
    # The reader of the accounts reports a passwd that cannot be read.
    with suppress(UsernsplanError):
        homes += homes_of(layout, known, granted, local=local)
    if not homes:
        return ()
    # Imported here because most commands look at no home.
    from usernsplan.host import mounts  # noqa: PLC0415

    away = mounts.of_network()
    found: list[Unlisted] = []
    for name, home in homes:
        errors: list[UsernsplanError] = []
        found += _of_home(layout, name, home, errors, away)
        if errors:
            miss(home, _first(errors))
    return tuple(found)


def _of_home(
    layout: Layout,
    name: str,
    home: str,
    errors: list[UsernsplanError],
    away: Mapping[str, str],
) -> list[Unlisted]:
    def miss(path: str, error: UsernsplanError) -> None:
        del path
        errors.append(error)

    configs = _Configs(layout, _MOST_OF_ACCOUNT, miss, away)
    with missing(home, miss):
        if configs.may_be_in(home):
            configs.look(name, f"{home}/.config/lxc", f"{home}/.local/share/lxc")
    return configs.found


def _first(errors: list[UsernsplanError]) -> UsernsplanError:
    """The first error of an account, which may have as many as it likes."""
    if not errors[1:]:
        return errors[0]
    return UsernsplanError(f"{errors[0]} (and {len(errors) - 1} more)", hint=errors[0].hint)


def homes_of(
    layout: Layout, known: Accounts, granted: Collection[str], *, local: bool
) -> Iterator[tuple[str, str]]:
    """The name and the home of each account to look at. Root's containers are in LXC_PATH."""
    if not local and not granted:
        return
    raw = files.read(layout, PASSWD, follow=True) or b""
    wanted = {uid for uid, _ in homes_in(raw)} if local else set[int]()
    names = {user.uid: user.name for user in reversed(known.users)}
    wanted |= {uid for uid, name in names.items() if name in granted or str(uid) in granted}
    for uid, home in accounts.homes(layout):
        if uid and uid in wanted and home.startswith("/"):
            yield names.get(uid, str(uid)), home.rstrip("/")


class _Configs:
    """Reads configs below a root, each include once, and at most ``most`` files and lines.

    What they map is added to ``found``, and what cannot be read goes to ``miss``. Nothing below the
    mount points ``away`` (and their kinds) is opened.
    """

    def __init__(
        self, layout: Layout, most: int, miss: Miss, away: Mapping[str, str] = files.NOWHERE
    ) -> None:
        self._layout, self._miss, self._away = layout, miss, away
        self._left = self._most = self._left_of_one = most
        self._included: dict[str, tuple[tuple[str, tuple[Line, ...]], ...]] = {}
        self._odd: list[tuple[str, Refused]] = []
        self.found: list[Unlisted] = []

    @contextmanager
    def noted(self, path: str) -> Iterator[None]:
        """Give an error in the body to ``miss``, but not the one that ends it all."""
        try:
            yield
        except UsernsplanError as error:
            if self._left < 0:
                raise
            self._miss(path, error)

    def may_be_in(self, home: str) -> bool:
        """Tell at little cost, as there may be ten thousand homes, whether LXC may have files here."""
        return not {".local", ".config"}.isdisjoint(self.names(home) or ())

    def look(self, account: str, settings: str, folder: str) -> None:
        """Add what an account's containers map. ``settings`` and ``folder`` are where LXC looks first."""
        said, path = b"", f"{settings}/lxc.conf"
        with self.noted(path):
            said = self.read(path) or b""

        path = _absolute(_setting(said, "lxc.default_config") or f"{settings}/default.conf")
        with self.noted(path):
            if raw := self.read(path):
                made = Unlisted(LXC, "new containers", "uid", 0, 0, grantee=account)
                self.add(path, _lines(raw), made)

        there = _absolute(_setting(said, "lxc.lxcpath") or folder)
        with self.noted(there), self._opened(there) as here:
            if here is None:
                return
            for name in sorted(os.listdir(here)):
                path = f"{there}/{name}/config"
                with self.noted(path):
                    if raw := self._beside(here, name, path):
                        made = Unlisted(
                            LXC, f"container {name}", "uid", 0, 0, name, grantee=account
                        )
                        self.add(path, _lines(raw), made)

    def add(self, path: str, lines: tuple[Line, ...], made: Unlisted) -> None:
        """Add the ids that a config maps, with its includes; ``made`` is what they have in common."""
        found: list[tuple[str, MapLine]] = []
        self._left_of_one = _MOST_OF_ONE
        self._odd.clear()
        self._follow(found, path, lines, 0)
        for place, line in found:
            start, stop = line.host, line.host + line.size
            self.found.append(
                made._replace(
                    kind=line.kind,
                    start=start,
                    stop=stop,
                    path=place,
                    number=line.number,
                    inside=line.container,
                )
            )
        for place, odd in self._odd:
            self.found.append(made._replace(path=place, number=odd.number, odd=odd.text))

    def names(self, folder: str) -> list[str] | None:
        """The names in a folder, in order; None if there is no such folder."""
        with self._opened(folder) as here:
            return None if here is None else sorted(os.listdir(here))

    def read(self, path: str) -> bytes | None:
        """The bytes of a file; symlinks are followed below the root. None if there is none."""
        self._count(path)
        with files.explained(self._layout, path):
            try:
                with files.pinned(self._layout, path, follow=True, away=self._away) as place:
                    return files.regular(place, self._shown(path), _LARGEST)
            except (FileNotFoundError, NotADirectoryError):
                return None

    @contextmanager
    def _opened(self, folder: str) -> Iterator[int | None]:
        with files.explained(self._layout, folder):
            try:
                here = files.opened_folder(self._layout, folder, away=self._away)
            except (FileNotFoundError, NotADirectoryError):
                yield None
                return
            try:
                yield here
            finally:
                os.close(here)

    def _beside(self, folder: int, name: str, path: str) -> bytes | None:
        """The bytes of NAME/config. There may be thousands, so a symlink alone is resolved in full."""
        if self._away:
            return self.read(path)
        with files.explained(self._layout, path):
            try:
                below = os.open(name, _FOLDER, dir_fd=folder)
                try:
                    raw = files.regular(files.Place(below, "config"), self._shown(path), _LARGEST)
                finally:
                    os.close(below)
            except FileNotFoundError:
                return None
            except OSError as error:
                if error.errno in {errno.ENOTDIR, errno.ELOOP}:
                    return self.read(path)
                raise
        self._count(path)
        return raw

    def _follow(
        self, found: list[tuple[str, MapLine]], path: str, lines: tuple[Line, ...], depth: int
    ) -> None:
        """Collect the extents of a config in the order in which LXC reads them."""
        from usernsplan.formats import lxc  # noqa: PLC0415 - see _lines

        for line in lines:
            match line:
                case lxc.Cleared():
                    found.clear()
                case lxc.Refused():
                    self._count(path)
                    self._odd.append((path, line))
                case lxc.MapLine():
                    self._count(path)
                    found.append((path, line))
                    if len(found) > 2 * MAX_EXTENTS:
                        raise RefusedError(
                            f"{self._shown(path)}:{line.number}: the map has more than "
                            f"{2 * MAX_EXTENTS} lines; the kernel refuses it",
                            hint="remove some of its lxc.idmap lines",
                        )
                case lxc.Include():
                    place = f"{self._shown(path)}:{line.number}"
                    if depth == _DEEPEST:
                        raise RefusedError(
                            f"{place}: lxc.include is nested {_DEEPEST} deep",
                            hint="remove an include: one of these files probably includes itself",
                        )
                    for name, inner in self._include(_absolute(line.path)):
                        self._count(path)
                        self._follow(found, name, inner, depth + 1)

    def _include(self, path: str) -> tuple[tuple[str, tuple[Line, ...]], ...]:
        """The files that an include stands for, and their lines; LXC takes *.conf of a folder."""
        if path not in self._included:
            names = self.names(path)
            several = (
                [path] if names is None else [f"{path}/{name}" for name in names if _is_conf(name)]
            )
            # If a file is missing, LXC does not start the container: there are no ids in it.
            self._included[path] = tuple(
                (name, _lines(raw)) for name in several if (raw := self.read(name))
            )
        return self._included[path]

    def _count(self, path: str) -> None:
        self._left -= 1
        self._left_of_one -= 1
        if self._left >= 0 > self._left_of_one:
            raise RefusedError(
                f"{self._shown(path)}: one container has more than {_MOST_OF_ONE} files and lines",
                hint="remove includes that it does not need",
            )
        if self._left < 0:
            raise RefusedError(
                f"{self._shown(path)}: LXC's configs here have more than {self._most} files and lines",
                hint="remove containers or includes that nobody needs",
            )

    def _shown(self, path: str) -> str:
        return escape.line(self._layout.path(path))


def _lines(raw: bytes, *, of_proxmox: bool = False) -> tuple[Line, ...]:
    """The lines of a config that are about its map."""
    # Imported here because few hosts have LXC, and every decision asks whether this one has it.
    from usernsplan.formats import lxc  # noqa: PLC0415

    return lxc.proxmox(raw) if of_proxmox else lxc.config(raw)


def _setting(raw: bytes, key: str) -> str | None:
    """The value of a key in lxc.conf(5); None if it is not set."""
    if not raw:
        return None
    from usernsplan.formats import lxc  # noqa: PLC0415 - see _lines

    return lxc.setting(raw, key)


def _is_conf(name: str) -> bool:
    return name.endswith(".conf") and name != ".conf"


def _absolute(path: str) -> str:
    """A path as a service of LXC takes it, which runs in "/"."""
    return f"/{path.strip('/')}"
