"""The command harden."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Optional

from usernsplan.cli.options import DryRun, Json, Root
from usernsplan.cli.run import run
from usernsplan.cli.words import Argument, Option
from usernsplan.errors import InvalidValueError
from usernsplan.harden.policy import policy_of, translated
from usernsplan.planner.harden import make_harden

Names = Optional[list[str]]


def harden(
    name: Annotated[str, Argument(metavar="NAME", help="Name that 'usernsplan list' shows.")],
    words: Annotated[
        Names,
        Argument(
            metavar="[seccomp:allow:CALL|seccomp:deny:CALL...]",
            help="The same as --allow-syscall and --deny-syscall.",
        ),
    ] = None,
    profile: Annotated[
        Optional[str],
        Option(metavar="default|seed|strict", help="What the policy begins with."),
    ] = None,
    cap_add: Annotated[
        Names, Option(metavar="CAP,…", help="Let it keep these capabilities (repeatable).")
    ] = None,
    cap_drop: Annotated[
        Names, Option(metavar="CAP,…", help="Take these of the profile away (repeatable).")
    ] = None,
    allow_syscall: Annotated[
        Names,
        Option(
            metavar="NAME,…",
            help="Let these system calls through, even if the engine's own profile refuses them.",
        ),
    ] = None,
    deny_syscall: Annotated[
        Names, Option(metavar="NAME,…", help="Refuse these; 'all': all but --allow-syscall.")
    ] = None,
    allow_family: Annotated[
        Names, Option(metavar="FAMILY,…", help="Let sockets of these families through.")
    ] = None,
    deny_family: Annotated[
        Names, Option(metavar="FAMILY,…", help="Refuse sockets of these, by name or number.")
    ] = None,
    allow_new_privileges: Annotated[
        bool,
        Option("--allow-new-privileges", help="Let setuid programs raise a process's privileges."),
    ] = False,
    selinux_type: Annotated[
        str, Option(metavar="TYPE", help="Label its processes with this type.", show_default=False)
    ] = "",
    selinux_level: Annotated[
        str, Option(metavar="LEVEL", help="Such as s0:c1,c2.", show_default=False)
    ] = "",
    arch: Annotated[
        str,
        Option(
            metavar="native|all",
            help="native: refuse system calls of other architectures. Default: as in the profile.",
            show_default=False,
        ),
    ] = "",
    none: Annotated[bool, Option("--none", help="Take the policy away.")] = False,
    root: Root = "/",
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Say what a container may do, besides its map.

    The policy is kept with the allocation. 'usernsplan render' then also prints what the engine
    needs to enforce it. Without one, an engine gives the container what it gives any.

    A policy never weakens an engine's own profile of system calls, unless --allow-syscall names one.
    The words seccomp:allow:CALL and seccomp:deny:CALL say the same as those options.

    \b
    Examples:
      usernsplan harden web --profile seed
      usernsplan harden web --profile seed --cap-add net_bind_service
      usernsplan harden web seccomp:deny:getcwd --profile seed
      usernsplan harden web --none
    """
    more = translated(" ".join(words or ()))
    said = {
        "cap_add": cap_add,
        "cap_drop": cap_drop,
        "allow_syscalls": [*(allow_syscall or ()), *more.get("allow_syscalls", ())],
        "deny_syscalls": [*(deny_syscall or ()), *more.get("deny_syscalls", ())],
        "allow_families": allow_family,
        "deny_families": deny_family,
        "new_privileges": allow_new_privileges,
        "arch": arch,
        "selinux_type": selinux_type,
        "selinux_level": selinux_level,
    }
    given = {key: value for key, value in said.items() if value}
    if none == (profile is not None) or (none and given):
        raise InvalidValueError(
            "either --profile, or --none alone",
            hint="use: usernsplan harden NAME --profile seed",
        )
    policy = policy_of({"profile": profile, **given}) if profile else None
    run(partial(make_harden, name=name, policy=policy), root, preview=dry_run, as_json=json)
