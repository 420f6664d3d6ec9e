"""Point Docker's daemon.json at an allocation: whether that is possible, and its consequences."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from usernsplan.engines.base import TTY
from usernsplan.engines.docker import can_lay
from usernsplan.errors import InvalidFileError, InvalidValueError, RefusedError
from usernsplan.escape import shell
from usernsplan.formats import daemon_json
from usernsplan.formats.subid import Grant
from usernsplan.holdings import is_seen_as_account
from usernsplan.layout import DAEMON_JSON, DOCKER_DATA
from usernsplan.model import DEFAULT_OWNER, Change, Finding
from usernsplan.planner.stories import advise
from usernsplan.values import dataclass, replace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from usernsplan.formats.daemon_json import DaemonConfig
    from usernsplan.model import Allocation, DockerData, HostState

RESTART = "systemctl restart docker  # the remap changes only with a restart, not with a reload"
_LONGEST_LOGIN = 32
# moby reads the lines of the owner as one map without a gap.
_WITHOUT_A_GAP = "allocate it without --container-id, and a shared one with --daemon"


@dataclass(frozen=True, slots=True)
class Pointed:
    """What points Docker at an allocation.

    ``commands`` create accounts and come first. ``unfinished``: the user has to run ``next_steps``
    before the file can change. ``consequences`` are what the user has to agree to first.
    """

    changes: tuple[Change, ...] = ()
    commands: tuple[tuple[str, ...], ...] = ()
    findings: tuple[Finding, ...] = ()
    next_steps: tuple[str, ...] = ()
    unfinished: bool = False
    consequences: tuple[Finding, ...] = ()


def point_at(state: HostState, allocation: Allocation, *, replace_remap: bool) -> Pointed:
    """Set userns-remap to the allocation's owner.

    Raises RefusedError if Docker cannot make the mapping. Also raises it if the file names another
    user, unless ``replace_remap`` is set: the daemon would hide the images and containers of that
    user.
    """
    if not (found := can_lay(allocation)).can:
        is_name = allocation.owner in {"root", "default"}
        other = "choose another owner" if is_name else _WITHOUT_A_GAP
        if allocation.passes and not is_name:
            other = "pass ids only to container ids within its size"
        raise RefusedError(
            f"Docker cannot make the map of '{allocation.name}': {found.why}",
            hint="Podman and OCI runtimes can: "
            f"{state.layout.inline('render podman ' + shell(allocation.name))}; "
            f"for Docker, {other}",
        )

    place = state.layout.path(DAEMON_JSON)
    try:
        config = daemon_json.parse(state.daemon_json or b"", place)
    except InvalidFileError as error:
        error.hint = "correct the file, or leave it as it is with --no-daemon-config"
        error.in_file = "correct the file, or leave it as it is with 'daemon: false'"
        raise

    commands = _account_commands(state, allocation.owner)
    current = config.get(daemon_json.REMAP)
    is_ours = current is not None and remap_user(state, current) == allocation.owner
    moved = not is_ours or _old_data_root(state, config) != data_root(config, allocation)
    warning = _hidden(state, config, allocation)
    consequences = (warning,) if moved and _elsewhere(state, config, allocation) else ()
    if commands and not state.can_add_accounts:
        what = f"{place} stays as it is, and Docker is not remapped yet"
        return replace(_left_to_do(state, commands, what), consequences=consequences)
    if is_ours:
        findings = (warning,) if moved else ()
        return Pointed(commands=commands, findings=findings, consequences=consequences)

    refuse_symlink(state)
    if current is not None and not replace_remap:
        raise RefusedError(
            f'{place}: "userns-remap" is "{current}"; with another one Docker hides what it has in '
            f"{_old_data_root(state, config)} and starts empty in {data_root(config, allocation)}",
            hint="use --replace-remap to change it, or --no-daemon-config to keep it",
            in_file="write 'daemon: NAME' to change it, or 'daemon: false' to keep it",
        )
    after = daemon_json.with_remap(config, allocation.owner)
    return Pointed(
        changes=(Change(DAEMON_JSON, state.daemon_json, after),),
        commands=commands,
        findings=(*_without_tty(allocation), warning),
        next_steps=(RESTART,),
        consequences=consequences,
    )


def with_accounts(state: HostState, owners: Iterable[str]) -> Pointed:
    """What makes these owners accounts with a group of the same name.

    dockerd and the kubelet refuse an owner without them.
    """
    commands = tuple(command for owner in owners for command in _account_commands(state, owner))
    if commands and not state.can_add_accounts:
        who = ", ".join(dict.fromkeys(command[-1] for command in commands))
        return _left_to_do(state, commands, f"engines that need {who} do not start yet")
    return Pointed(commands=commands)


def not_here(state: HostState) -> tuple[Finding, ...]:
    """The finding that daemon.json stays as it is because Docker is not installed."""
    found = ", ".join(sorted(state.engines))
    place = state.layout.path(DAEMON_JSON)
    message = f"Docker is not installed here, but {found}: {place} stays as it is"
    return (advise("USN122", message, "use --engine docker to write it anyway"),)


def refuse_symlink(state: HostState) -> None:
    """Raise RefusedError if daemon.json is a symlink: replacing it would remove the link."""
    if state.daemon_json_is_symlink:
        raise RefusedError(
            f"{state.layout.path(DAEMON_JSON)} is a symlink",
            hint="replace it with a regular file, or set userns-remap in the file it leads to",
        )


def remap_user(state: HostState, value: str) -> str | None:
    """The user that a value of userns-remap means; None if it turns remapping off.

    The value is user, uid, user:group, uid:gid or "default". moby takes "" as off, and also root,
    with only a warning.
    """
    user = value.partition(":")[0]
    if re.fullmatch("[0-9]{1,10}", user):
        account = state.accounts.user_of(int(user))
        user = account.name if account else user
    if value == "default":
        return DEFAULT_OWNER
    return None if user in {"", "root"} else user


def remapped_to(state: HostState) -> str | None:
    """The user to whom the host's daemon.json remaps; None if it does not, or is invalid."""
    try:
        value = daemon_json.parse(state.daemon_json or b"", DAEMON_JSON).get(daemon_json.REMAP)
    except InvalidFileError:
        return None
    return remap_user(state, value) if value is not None else None


def data_root(config: DaemonConfig, allocation: Allocation) -> str:
    """The folder of a remapped daemon: <data-root>/<uid>.<gid> of container root."""
    base = config.get(daemon_json.DATA_ROOT) or DOCKER_DATA
    return f"{base}/{allocation.mapping.uids.to_host(0)}.{allocation.mapping.gids.to_host(0)}"


def _old_data_root(state: HostState, config: DaemonConfig) -> str:
    base = config.get(daemon_json.DATA_ROOT) or DOCKER_DATA
    user = remap_user(state, config.get(daemon_json.REMAP) or "")
    if user is None:
        return base
    # Docker takes the owner's lines in file order, so the first one has container root.
    account = state.accounts.user(user)
    names = account.owner_names if account else (user,)
    firsts = [
        next((x.start for x in file.lines if isinstance(x, Grant) and x.owner in names), None)
        for file in (state.subuid, state.subgid)
    ]
    return (
        f"{base}/{firsts[0]}.{firsts[1]}" if None not in firsts else f"{base}/<uid>.<gid> of {user}"
    )


def _account_commands(state: HostState, owner: str) -> tuple[tuple[str, ...], ...]:
    """The commands that create the remap user and its group, if one is missing.

    dockerd needs a group of the same name. Raises InvalidValueError for a name that is too long.
    """
    user, group = state.accounts.user(owner), state.accounts.group(owner)
    if (user and group) or is_seen_as_account(state, owner):
        return ()
    if len(owner) > _LONGEST_LOGIN:
        raise InvalidValueError(
            f"Docker's remap user {owner} has {len(owner)} characters; useradd takes at most "
            f"{_LONGEST_LOGIN}",
            hint="choose a shorter owner",
        )
    if user:
        return (("groupadd", "--system", owner),)
    own_group = ("--gid", owner) if group else ("--user-group",)
    nowhere = ("--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin")
    return (("useradd", "--system", *own_group, *nowhere, owner),)


def _left_to_do(state: HostState, commands: tuple[tuple[str, ...], ...], what: str) -> Pointed:
    left = tuple(shell(*state.layout.account_command(command)) for command in commands)
    who = ", ".join(dict.fromkeys(command[-1] for command in commands))
    absent = "is in no file here" if state.accounts.unknown else "does not exist"
    message = (
        f"{who}, or a group of that name, {absent}, and {commands[0][0]} cannot run here: {what}"
    )
    return Pointed(
        findings=(advise("USN107", message, "run the command below, then this one again"),),
        next_steps=left,
        unfinished=True,
    )


def _without_tty(allocation: Allocation) -> tuple[Finding, ...]:
    """A finding if the map lacks gid 5, tty.

    Docker mounts a container's /dev/pts with gid=5, and the kernel returns EINVAL for a gid that is
    not mapped.
    """
    if allocation.mapping.gids.to_host(TTY) is not None:
        return ()
    message = (
        f"Docker mounts /dev/pts for container gid {TTY}, which '{allocation.name}' does not map: "
        "no container starts"
    )
    hint = "use 'docker run --tmpfs /dev/pts …'; Podman and OCI runtimes do not need that"
    return (advise("USN116", message, hint),)


def _hidden(state: HostState, config: DaemonConfig, allocation: Allocation) -> Finding:
    old, new = _old_data_root(state, config), data_root(config, allocation)
    has = "".join(f"; in {one.path}: {one.what}" for one in _elsewhere(state, config, allocation))
    return advise(
        "USN106",
        f"Docker keeps its images and containers in {new} from its next start; what is in {old} is "
        f"hidden, not moved{has}",
        "push or save what you need before the restart; without userns-remap Docker shows it again",
    )


def _elsewhere(
    state: HostState, config: DaemonConfig, allocation: Allocation
) -> tuple[DockerData, ...]:
    """What Docker has and no longer sees once it is remapped to the allocation.

    Nothing shows for certain which folder it uses now (its command line counts, too), so every
    other folder counts.
    """
    return tuple(one for one in state.docker if one.path != data_root(config, allocation))
