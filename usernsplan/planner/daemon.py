"""Docker's daemon.json: whether, and with what consequences, it can be pointed at an allocation."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from usernsplan.engines.base import TTY
from usernsplan.engines.docker import can_lay
from usernsplan.errors import InvalidFileError, InvalidValueError, RefusedError
from usernsplan.escape import shell
from usernsplan.formats import daemon_json
from usernsplan.formats.subid import Grant
from usernsplan.layout import DAEMON_JSON
from usernsplan.model import DEFAULT_OWNER, Change, Finding
from usernsplan.planner.stories import advise

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.formats.daemon_json import DaemonConfig
    from usernsplan.model import Allocation, DockerData, HostState

RESTART = "systemctl restart docker  # the remap changes only when the daemon starts anew; a reload does not do it"
_LONGEST_LOGIN = 32
_WITHOUT_A_GAP = "allocate without container-id, and name a shared one as daemon from the start"


@dataclass(frozen=True, slots=True)
class Pointed:
    """What pointing Docker at an allocation takes: accounts to make first, the file's change, what to tell."""

    changes: tuple[Change, ...] = ()
    commands: tuple[tuple[str, ...], ...] = ()
    findings: tuple[Finding, ...] = ()
    next_steps: tuple[str, ...] = ()
    unfinished: bool = False
    consequences: tuple[Finding, ...] = ()


def point_at(state: HostState, allocation: Allocation, *, replace_remap: bool) -> Pointed:
    """Set userns-remap to the allocation's owner.

    Raises RefusedError where Docker cannot make the mapping, or where the file names another user and
    ``replace_remap`` is not said: the daemon would hide the images and containers of the old one.
    """
    if not (found := can_lay(allocation)).can:
        other = (
            "choose another owner" if allocation.owner in {"root", "default"} else _WITHOUT_A_GAP
        )
        raise RefusedError(
            f"Docker cannot make the map of '{allocation.name}': {found.why}",
            hint=f"Podman and OCI runtimes can: 'usernsplan render podman'; for Docker, {other}",
        )
    place = state.layout.path(DAEMON_JSON)
    try:
        config = daemon_json.parse(state.daemon_json or b"", place)
    except InvalidFileError as error:
        error.hint = "correct the file, or leave it alone with --no-daemon-config"
        error.in_file = "correct the file, or leave it alone with 'daemon: false'"
        raise
    commands = _account_commands(state, allocation.owner)
    current = config.get(daemon_json.REMAP)
    is_ours = current is not None and remap_user(state, current) == allocation.owner
    moved = not is_ours or _old_data_root(state, config) != data_root(config, allocation)
    consequences = _consequences(state, config, allocation) if moved else ()
    if commands and not state.can_add_accounts:
        what = f"{state.layout.path(DAEMON_JSON)} is left alone, and Docker is not remapped yet"
        return replace(_left_to_do(state, commands, what), consequences=consequences)
    if is_ours:
        hidden = (_hidden(state, config, allocation),) if moved else ()
        return Pointed(commands=commands, findings=hidden, consequences=consequences)
    refuse_symlink(state)
    if current is not None and not replace_remap:
        raise RefusedError(
            f'{place}: "userns-remap" is "{current}", and Docker would hide what it has in '
            f"{_old_data_root(state, config)} and start anew in {data_root(config, allocation)}",
            hint="say --replace-remap to change it, or --no-daemon-config to leave it alone",
            in_file="write 'daemon: NAME' to change it, or 'daemon: false' to leave it alone",
        )
    return Pointed(
        changes=(
            Change(
                DAEMON_JSON, state.daemon_json, daemon_json.with_remap(config, allocation.owner)
            ),
        ),
        commands=commands,
        findings=(*_without_tty(allocation), _hidden(state, config, allocation)),
        next_steps=(RESTART,),
        consequences=consequences,
    )


def with_accounts(state: HostState, owners: Iterable[str]) -> Pointed:
    """What makes these owners accounts with a group of the same name, as dockerd and the kubelet insist on."""
    commands = tuple(command for owner in owners for command in _account_commands(state, owner))
    if commands and not state.can_add_accounts:
        who = ", ".join(dict.fromkeys(command[-1] for command in commands))
        return _left_to_do(state, commands, f"the engines that ask for {who} do not start yet")
    return Pointed(commands=commands)


def not_here(state: HostState) -> tuple[Finding, ...]:
    """Say that daemon.json was left alone because there is no Docker, and how to have it written all the same."""
    found = ", ".join(sorted(state.engines))
    message = (
        f"Docker is not installed here ({found}): {state.layout.path(DAEMON_JSON)} is left alone"
    )
    return (advise("USN122", message, "say --engine docker to have it written all the same"),)


def refuse_symlink(state: HostState) -> None:
    """Raise RefusedError where daemon.json is a symlink: it is to change, and a file can only be replaced itself."""
    if state.daemon_json_is_symlink:
        raise RefusedError(
            f"{state.layout.path(DAEMON_JSON)} is a symlink",
            hint="put a regular file in its place, or set userns-remap where the symlink leads",
        )


def remap_user(state: HostState, value: str) -> str | None:
    """Whom a value of userns-remap means: user, uid, user:group, uid:gid or "default"; None where remap is off.

    moby: "" is off, and so, with a mere warning, is root.
    """
    user = value.partition(":")[0]
    if re.fullmatch("[0-9]{1,10}", user):
        account = state.accounts.user_of(int(user))
        user = account.name if account else user
    if value == "default":
        return DEFAULT_OWNER
    return None if user in {"", "root"} else user


def remapped_to(state: HostState) -> str | None:
    """Whom the host's daemon.json remaps to; None where remap is off, and where no daemon starts from the file."""
    try:
        value = daemon_json.parse(state.daemon_json or b"", DAEMON_JSON).get(daemon_json.REMAP)
    except InvalidFileError:
        return None
    return remap_user(state, value) if value is not None else None


def data_root(config: DaemonConfig, allocation: Allocation) -> str:
    """Where the daemon keeps everything once it is remapped: <data-root>/<uid>.<gid> of container root."""
    base = config.get(daemon_json.DATA_ROOT) or daemon_json.DEFAULT_DATA_ROOT
    return f"{base}/{allocation.mapping.uids.to_host(0)}.{allocation.mapping.gids.to_host(0)}"


def _old_data_root(state: HostState, config: DaemonConfig) -> str:
    base = config.get(daemon_json.DATA_ROOT) or daemon_json.DEFAULT_DATA_ROOT
    user = remap_user(state, config.get(daemon_json.REMAP) or "")
    if user is None:
        return base
    # Docker takes the owner's lines in file order: the first holds container root.
    firsts = [
        next((x.start for x in file.lines if isinstance(x, Grant) and x.owner == user), None)
        for file in (state.subuid, state.subgid)
    ]
    return (
        f"{base}/{firsts[0]}.{firsts[1]}" if None not in firsts else f"{base}/<uid>.<gid> of {user}"
    )


def _account_commands(state: HostState, owner: str) -> tuple[tuple[str, ...], ...]:
    """What makes the remap user, and the group of the same name that dockerd insists on, where they are missing."""
    user, group = state.accounts.user(owner), state.accounts.group(owner)
    if user and group:
        return ()
    if len(owner) > _LONGEST_LOGIN:
        raise InvalidValueError(
            f"Docker's remap user {owner} has {len(owner)} characters, and useradd takes up to {_LONGEST_LOGIN}",
            hint="give it a shorter owner",
        )
    if user:
        return (("groupadd", "--system", owner),)
    own_group = ("--gid", owner) if group else ("--user-group",)
    nowhere = ("--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin")
    return (("useradd", "--system", *own_group, *nowhere, owner),)


def _left_to_do(state: HostState, commands: tuple[tuple[str, ...], ...], what: str) -> Pointed:
    left = tuple(shell(*state.layout.account_command(command)) for command in commands)
    who = ", ".join(dict.fromkeys(command[-1] for command in commands))
    message = f"{who}, or a group of that name, does not exist, and {commands[0][0]} cannot be run here: {what}"
    return Pointed(
        findings=(advise("USN107", message, "run the command below, then this one again"),),
        next_steps=left,
        unfinished=True,
    )


def _without_tty(allocation: Allocation) -> tuple[Finding, ...]:
    """Docker mounts a container's /dev/pts with gid=5 (tty), and the kernel answers EINVAL where that is not mapped."""
    if allocation.mapping.gids.to_host(TTY) is not None:
        return ()
    message = f"Docker mounts /dev/pts for container gid {TTY}, which '{allocation.name}' does not map: nothing starts"
    hint = (
        "'docker run --tmpfs /dev/pts …' starts; Podman and OCI runtimes need nothing of the kind"
    )
    return (advise("USN116", message, hint),)


def _hidden(state: HostState, config: DaemonConfig, allocation: Allocation) -> Finding:
    old, new = _old_data_root(state, config), data_root(config, allocation)
    has = "".join(f"; in {one.path}: {one.what}" for one in _elsewhere(state, config, allocation))
    return advise(
        "USN106",
        f"Docker keeps its images and containers in {new} from its next start; what is in {old} is hidden, not moved"
        + has,
        "push or save what you need before the restart; taking userns-remap out brings the old ones back",
    )


def _elsewhere(
    state: HostState, config: DaemonConfig, allocation: Allocation
) -> tuple[DockerData, ...]:
    """What Docker has that it does not see once it is remapped to the allocation.

    From which folder it runs now cannot be told for certain (its command line counts too), so each one counts.
    """
    return tuple(one for one in state.docker if one.path != data_root(config, allocation))


def _consequences(
    state: HostState, config: DaemonConfig, allocation: Allocation
) -> tuple[Finding, ...]:
    return (_hidden(state, config, allocation),) if _elsewhere(state, config, allocation) else ()
