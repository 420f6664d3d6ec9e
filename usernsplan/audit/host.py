"""Rules about the host: ranges left for useradd, whether the files are read, and lock files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.audit.base import Facts, Seen, rule
from usernsplan.claims import computed
from usernsplan.errors import InvalidFileError
from usernsplan.escape import operand
from usernsplan.formats import login_defs
from usernsplan.formats.subid import PATHS
from usernsplan.layout import LOGIN_DEFS, NSSWITCH
from usernsplan.planner import advice

if TYPE_CHECKING:
    from collections.abc import Iterator

_FEW = 10


@rule("USN060", "warning")
def useradd_runs_short(facts: Facts) -> Iterator[Seen]:
    """Ranges for useradd will soon run out.

    For each new user, useradd looks for SUB_UID_COUNT consecutive ids between SUB_UID_MIN and
    SUB_UID_MAX, and for gids in the same way. Fewer than ten such ranges are left. When none
    is left, useradd fails (USN061).

        SUB_UID_MAX 765536      five accounts already have their ranges below it

    Raise SUB_UID_MAX and SUB_GID_MAX in login.defs, or remove lines that nobody needs any
    more.
    """
    for path, key, left in _left(facts):
        if 0 < left < _FEW:
            yield Seen(
                facts.place(path),
                f"useradd has only {left} more ranges between {key}_MIN and {key}_MAX",
                f"raise {key}_MAX in {facts.place(LOGIN_DEFS)}",
            )


@rule("USN061", "error")
def useradd_is_out(facts: Facts) -> Iterator[Seen]:
    """No range is left for useradd.

    Every useradd of a person fails with status 16, "Can't get unique subordinate UID range",
    and creates no account at all.

    All ranges are in use, or one line takes everything, for example 3:4294967292 for a
    container that shares the host's ids.

        bob:100000:600000001

    Raise SUB_UID_MAX and SUB_GID_MAX in login.defs, or remove such a line. useradd -F and
    SUB_UID_COUNT 0 create accounts without ranges.
    """
    for path, key, left in _left(facts):
        if left == 0:
            message = (
                f"useradd finds no range between {key}_MIN and {key}_MAX: "
                "it cannot create accounts any more"
            )
            yield Seen(facts.place(path), message, f"raise {key}_MAX in {facts.place(LOGIN_DEFS)}")


def _left(facts: Facts) -> Iterator[tuple[str, str, int]]:
    """How many ranges useradd still finds for each existing file: path, key, count.

    A MIN above its MAX is left out: USN063 reports it. So is a kind of which useradd computes a
    range for every uid that it can take.
    """
    enough = {one.kind for one in computed.read(facts.state.login_defs) if one.is_enough}
    if found := facts.useradd:
        keys, counts = ("SUB_UID", "SUB_GID"), (found.uids, found.gids)
        files = zip(PATHS.items(), keys, found.areas, counts, strict=True)
        for (kind, path), key, area, left in files:
            if area and left is not None and kind not in enough:
                yield path, key, left


@rule("USN062", "error")
def files_bypassed(facts: Facts) -> Iterator[Seen]:
    """nsswitch.conf takes subordinate ids from a service: the files are not read.

    With a service other than 'files' whose library is installed, newuidmap and Podman ask that
    service and read neither subuid nor subgid. usermod writes nothing and still exits with
    status 0. Docker reads the files anyway, so the host's engines disagree.

        subid: sss              and libsubid_sss.so is installed

    Grant ranges in that service, or set 'subid: files'. Engines that need no line can have
    allocations that only the ledger has ('usernsplan allocate NAME --no-lines').
    """
    if not facts.state.subid_source.reads_files:
        services = " ".join(facts.state.subid_source.services)
        yield Seen(
            facts.place(NSSWITCH, facts.state.subid_source.number),
            f"'subid: {services}', and {facts.place(facts.state.subid_source.plugin)} is installed: "
            "newuidmap and Podman do not read subuid and subgid",
            "grant ranges in that service, or set 'subid: files'",
        )


@rule("USN093", "warning")
def service_missing(facts: Facts) -> Iterator[Seen]:
    """nsswitch.conf takes subordinate ids from a service that is not installed.

    shadow and Podman load the service as a library, libsubid_SERVICE.so. Without it they read
    subuid and subgid. Once a package installs the library, they no longer do (USN062), and
    containers that depend on the lines lose their ids.

        subid: sss              libsubid_sss.so is in no folder of libraries

    Set 'subid: files', or grant the ranges in that service.
    """
    if facts.state.subid_source.lacks_plugin:
        place = facts.place(NSSWITCH, facts.state.subid_source.number)
        yield Seen(place, *advice.without_plugin(facts.state.subid_source))


@rule("USN063", "error")
def login_defs_wrong(facts: Facts) -> Iterator[Seen]:
    """login.defs has wrong settings for subordinate ids.

    shadow cannot read one of the numbers, or a MIN is above its MAX. useradd then fails, or
    uses numbers that nobody expects.

        SUB_UID_MIN 100000
        SUB_UID_MAX 65536

    Correct the keys, or remove them: the defaults are 100000 and 600100000.
    """
    try:
        defs = login_defs.parse(facts.state.login_defs, facts.place(LOGIN_DEFS))
    except InvalidFileError as error:
        yield Seen(error.place, error.fact, "correct the line: useradd cannot read it either")
        return
    for area in defs.areas:
        if area.first > area.last:
            message = (
                f"{area.key}_MIN {area.first} is above {area.key}_MAX {area.last}: "
                "useradd finds no range"
            )
            yield Seen(facts.place(LOGIN_DEFS), message, "correct one of the two")


@rule("USN064", "warning")
def lock_is_stale(facts: Facts) -> Iterator[Seen]:
    """A process that no longer exists left a lock file.

    useradd, usermod and usernsplan write their pid into a lock file next to the file that they
    change. If that process is gone, the next of these programs takes the lock over. Until
    then, scripts that look for the lock file wait.

        /etc/subuid.lock        holds 4711, and no process has that pid

    'usernsplan check --fix' removes it. With --root, usernsplan cannot look at the processes
    of that root, so it reports every lock there.
    """
    for lock in facts.locks:
        if lock.pid is None or lock.alive:
            continue
        hint = f"{facts.state.layout.inline('check --fix')} removes it"
        message = f"process {lock.pid}, which is gone, left this lock"
        if lock.alive is None:
            message = f"a lock of process {lock.pid}, which cannot be checked in another root"
            hint = "remove it if no useradd or usernsplan runs there, or let the next one take it"
        yield Seen(facts.place(lock.path), message, hint)


@rule("USN065", "error")
def lock_blocks(facts: Facts) -> Iterator[Seen]:
    """A lock file holds no pid: useradd and usermod never get the lock.

    shadow takes a lock over only if it reads the pid of a process that is gone. It cannot read
    a pid from an empty file, or if a newline follows the pid. Every useradd, usermod and
    usernsplan fails until the file is removed.

    The disk was full when the lock was made, a backup was restored, or a script wrote the file
    with echo.

        echo $$ >/etc/subuid.lock

    Make sure that no useradd or usermod is running, then remove the file.
    """
    for lock in facts.locks:
        if lock.pid is None:
            yield Seen(
                facts.place(lock.path),
                "the lock holds no pid: useradd and usermod never get it",
                f"rm {operand(facts.place(lock.path))}",
            )
