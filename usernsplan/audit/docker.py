"""Rules about Docker: userns-remap in daemon.json, and whether the daemon can use it."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from usernsplan.audit.base import Facts, Seen, rule
from usernsplan.errors import InvalidFileError
from usernsplan.escape import shell
from usernsplan.formats import daemon_json
from usernsplan.formats.subid import PATHS
from usernsplan.holdings import is_seen_as_account
from usernsplan.layout import DAEMON_JSON, GROUP, PASSWD
from usernsplan.model import DEFAULT_NAME, DEFAULT_OWNER
from usernsplan.patterns import pattern
from usernsplan.planner.daemon import RESTART, remap_user

if TYPE_CHECKING:
    from collections.abc import Iterator

_NUMBER = pattern("[0-9]{1,10}")


@rule("USN040", "error")
def daemon_json_unreadable(facts: Facts) -> Iterator[Seen]:
    """Docker's daemon.json cannot be read.

    The daemon does not start from such a file, or reads it differently from how it looks. A
    comment, a trailing comma, a byte order mark or a value of an unknown form stops it. If a
    key appears twice, the last one counts.

        {
          "userns-remap": "dockremap",
        }                               a comma before the brace

    Correct the file. The reported place is the first character that does not fit.
    """
    for found in facts.unread:
        if found.path == DAEMON_JSON:
            yield Seen(facts.place(DAEMON_JSON), found.fact, found.hint)
    try:
        daemon_json.parse(facts.state.daemon_json or b"", facts.place(DAEMON_JSON))
    except InvalidFileError as error:
        yield Seen(
            error.place,
            error.fact,
            "correct it: Docker does not start from it, or reads something else",
        )


def _remapped(facts: Facts) -> tuple[str, str]:
    """The value of userns-remap and its user.

    Both are "" if remapping is off, or if dockerd creates the user itself.
    """
    value = facts.remap
    user = None if value is None else remap_user(facts.state, value)
    if value is None or user is None or (value == "default" and DEFAULT_OWNER not in facts.users):
        return "", ""
    return value, user


@rule("USN041", "error")
def remap_user_missing(facts: Facts) -> Iterator[Seen]:
    """Docker's userns-remap names a user that does not exist.

    dockerd looks the user up when it starts. Without the user it does not start ("can't create
    ID mappings").

        "userns-remap": "dockremap"     passwd has no dockremap

    Create the account ('usernsplan allocate' does it), or name another user. With "default",
    dockerd creates dockremap itself.
    """
    value, user = _remapped(facts)
    if user and facts.is_nobody(user) and not is_seen_as_account(facts.state, user):
        fact = f"{facts.place(PASSWD)} has no {user}: Docker does not start"
        option = f"--uid {user} NAME" if _NUMBER.fullmatch(user) else shell(user)
        yield Seen(
            facts.place(DAEMON_JSON),
            f'"userns-remap" is "{value}", but {fact}',
            f"useradd --system --user-group {option}, or name another user",
        )


@rule("USN042", "error")
def remap_group_missing(facts: Facts) -> Iterator[Seen]:
    """Docker's userns-remap needs a group that does not exist.

    If the value names no group, dockerd looks for a group with the user's name, or with the
    user's number if the value is a number. Without that group it does not start.

        "userns-remap": "dockremap"     useradd without --user-group made no group dockremap

    Run groupadd --system NAME, or name the group: "userns-remap": "USER:GROUP".
    """
    value, user = _remapped(facts)
    if not user or facts.is_nobody(user):
        return
    wanted, colon, group = value.partition(":")
    # If the value names no group, a number means the group with that gid, and a name the group
    # with that name.
    group = group if colon else wanted if _NUMBER.fullmatch(wanted) else user
    accounts = facts.state.accounts
    known = accounts.group_of(int(group)) if _NUMBER.fullmatch(group) else accounts.group(group)
    # The directory service of another root may have the group, too.
    if known is None and not accounts.unknown and not is_seen_as_account(facts.state, group):
        what = "gid" if _NUMBER.fullmatch(group) else "group"
        fact = f"{facts.place(GROUP)} has no {what} {group}: Docker does not start"
        option = f"--gid {group} {shell(user)}" if what == "gid" else shell(group)
        yield Seen(
            facts.place(DAEMON_JSON),
            f'"userns-remap" is "{value}", but {fact}',
            f"groupadd --system {option}",
        )


@rule("USN043", "error")
def remap_range_missing(facts: Facts) -> Iterator[Seen]:
    """Docker's remap user has no range in subuid or in subgid.

    dockerd does not start: "no subuid ranges found for user". It uses the user's name for
    subgid as well, even if userns-remap names a group.

        "userns-remap": "dockremap"     subuid has no line of dockremap

    'usernsplan allocate --strategy per-container' grants a range. If the range was ours,
    'usernsplan check --fix' restores it.
    """
    value, user = _remapped(facts)
    for kind, path in PATHS.items():
        if user and user not in facts.by_owner[kind]:
            fact = f"{facts.place(path)} has no line of {user}: Docker does not start"
            hint = f"usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST {shell(user)}"
            if user in facts.owners:
                hint = f"{facts.state.layout.inline('check --fix')} restores it"
            yield Seen(facts.place(DAEMON_JSON), f'"userns-remap" is "{value}", but {fact}', hint)


@rule("USN044", "error")
def remap_is_off(facts: Facts) -> Iterator[Seen]:
    """Docker's userns-remap is set but has no effect, and ids are allocated for it.

    "root" turns remapping off, with only a warning in the daemon's log. "" turns it off
    without any warning. Containers then run as the host's root, although the file seems to say
    otherwise.

        "userns-remap": ""

    Set it to the allocation's owner ('usernsplan allocate' does it, with --replace-remap). Or
    remove the key and release the allocation.
    """
    value, meant = facts.remap, _for_docker(facts)
    if value is not None and meant and remap_user(facts.state, value) is None:
        message = (
            f'"userns-remap" is "{value}", which turns it off, but {meant} is allocated for Docker'
        )
        yield Seen(
            facts.place(DAEMON_JSON), message, f'set "userns-remap": "{meant}", then run: {RESTART}'
        )


@rule("USN045", "info")
def remap_is_elsewhere(facts: Facts) -> Iterator[Seen]:
    """Ids are allocated for Docker, but its configuration does not use them.

    Docker runs its containers with another map, or as the host's root. The range stays
    reserved and unused.

    The key was removed, Docker's package installed another file, or the allocation was made
    with --no-daemon-config. The daemon may also get --userns-remap on its command line, which
    usernsplan cannot see.

    Run the 'usernsplan allocate' command of the allocation again to set it
    ('usernsplan history' has it). 'usernsplan release default' gives the range up.
    """
    value, meant = facts.remap, _for_docker(facts)
    if (
        "docker" not in facts.state.engines
        or not meant
        or (facts.daemon is None and facts.state.daemon_json)
    ):
        return
    user = remap_user(facts.state, value) if value is not None else None
    if value is None or user not in {None, meant}:
        present = "there is no userns-remap" if value is None else f'userns-remap is "{value}"'
        yield Seen(
            facts.place(DAEMON_JSON),
            f"{meant} is allocated for Docker, but {present}",
            f'set "userns-remap": "{meant}", then run: {RESTART}',
        )


def _for_docker(facts: Facts) -> str:
    """The owner of the allocation for Docker's daemon; "" if there is none."""
    return next((a.owner for a in facts.state.ledger.allocations if a.name == DEFAULT_NAME), "")


@rule("USN046", "warning")
def order_makes_the_map(facts: Facts) -> Iterator[Seen]:
    """Docker's map depends on the order of the lines, and the next useradd sorts them.

    Docker lays the ranges of its remap user end to end, in the order of the file. useradd
    sorts the file by start when it grants a range. Container root is then another host id.
    Nothing reports this: the daemon starts with a new, empty data folder.

        dockremap:2:1
        dockremap:589824:2      the filler
        dockremap:3:65533       useradd moves this line to the second place

    After a useradd, run 'usernsplan check --fix' (or the command that allocated the ids): it
    restores the order. A map whose lines are already sorted does not have this problem: use
    the strategy per-container or single-uid.
    """
    _, user = _remapped(facts)
    for kind, path in PATHS.items():
        lines = facts.grants_of(user, kind) if user else []
        if any(after.start < before.start for before, after in pairwise(lines)):
            message = (
                f"Docker's map depends on the order of the {len(lines)} lines of {lines[0].owner}, "
                "which useradd sorts"
            )
            hint = "use one line"
            if lines[0].owner in facts.owners:
                fix = facts.state.layout.inline("check --fix")
                hint = f"after a useradd, {fix} restores the order"
            yield Seen(facts.place(path, lines[0].number), message, hint)
