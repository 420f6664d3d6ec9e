"""An allocation as one engine reads it. One engine is one file, and one row of ENGINES."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from usernsplan.errors import InvalidValueError, RefusedError, did_you_mean
from usernsplan.escape import shell
from usernsplan.model import ROOT
from usernsplan.values import NamedTuple

if TYPE_CHECKING:
    from usernsplan.engines.base import Engine, RenderContext, Rendered, Verdict
    from usernsplan.harden.effective import Effective
    from usernsplan.model import Allocation


class Pool(NamedTuple):
    """A range from which an engine itself gives each container its ids, usually 65536.

    ``owner`` owns the lines, and the allocation has the same name; with ``account`` the owner must
    be an account. By default the range has room for ``containers``; the ``option`` of ``allocate``
    sets another number, and ``help`` describes that option. ``each`` is the option for another
    number of ids of each container; "" if the engine knows only 65536.
    """

    owner: str
    containers: int
    option: str
    help: str
    account: bool = False
    each: str = ""


class EngineInfo(NamedTuple):
    """What is known of an engine without importing it.

    A host has the engine if one of ``programs`` is installed. ``extra_owners`` is another owner
    that needs the lines of every allocation, ``pool`` a range that the engine gives out itself.
    With ``takes_roots`` the engine takes ids for other containers from all lines of root. With
    ``owner_is_account`` it runs a daemon for each allocation, whose owner has to be an account.
    With ``flags`` its text is words of a command line, or a script. ``needs`` are the options
    without which it prints nothing.
    """

    module: str
    programs: tuple[str, ...] = ()
    extra_owners: str | None = None
    pool: Pool | None = None
    takes_roots: bool = False
    owner_is_account: bool = False
    flags: bool = False
    needs: str = ""


# The engines of `render` and `allocate --engine`. A file is imported only when it is needed.
ENGINES = {
    "uid_map": EngineInfo("kernel"),
    "gid_map": EngineInfo("kernel"),
    "docker": EngineInfo("docker", ("dockerd",)),
    "docker-instance": EngineInfo("docker_instance", owner_is_account=True),
    "compose": EngineInfo("compose"),
    "podman": EngineInfo("podman", ("podman",), flags=True),
    "quadlet": EngineInfo("quadlet"),
    # The user in containers/storage whose lines --userns=auto takes. No account is needed.
    "podman-auto": EngineInfo(
        "podman_auto",
        pool=Pool("containers", 100, "--auto-containers", "the size of the pool, in containers"),
        flags=True,
    ),
    "oci": EngineInfo("oci", ("crun", "runc")),
    "containerd": EngineInfo("containerd", ("containerd",), flags=True),
    # LXC calls newuidmap as root, and newuidmap wants a line even then.
    "lxc": EngineInfo("lxc", ("lxc-start",), extra_owners=ROOT),
    "proxmox": EngineInfo("proxmox", ("pct",), extra_owners=ROOT, needs="--vmid VMID"),
    "incus": EngineInfo("incus", ("incusd",), extra_owners=ROOT, takes_roots=True),
    "lxd": EngineInfo("incus", ("lxd",), extra_owners=ROOT, takes_roots=True),
    "nspawn": EngineInfo("nspawn", ("systemd-nspawn",), flags=True),
    # The kubelet asks getsubids for the user of this name. By default it runs at most 110 pods.
    "kubernetes": EngineInfo(
        "kubernetes",
        ("kubelet",),
        pool=Pool(
            "kubelet",
            110,
            "--pods",
            "the size of the pool, in pods",
            account=True,
            each="--ids-per-pod",
        ),
    ),
    "openshift": EngineInfo("openshift"),
    "systemd": EngineInfo("systemd"),
    # A script. sh succeeds with an empty one, so an error must not leave it empty.
    "rootless": EngineInfo("rootless", flags=True),
}


def known(name: str) -> EngineInfo:
    """What is known of the engine of this name. Raises InvalidValueError for an unknown one."""
    if name not in ENGINES:
        hint = did_you_mean(name, ENGINES, f"one of: {', '.join(ENGINES)}")
        raise InvalidValueError(f"no engine '{name}'", hint=hint)
    return ENGINES[name]


def engine(name: str) -> Engine:
    """The engine of this name. Raises InvalidValueError for an unknown one."""
    return cast("Engine", import_module(f"usernsplan.engines.{known(name).module}").ENGINES[name])


def pool_named(name: str) -> str | None:
    """The engine whose pool has this name; None for any other name."""
    return next(
        (engine for engine, it in ENGINES.items() if it.pool and it.pool.owner == name), None
    )


def engine_of_pool(allocation: Allocation) -> str | None:
    """The engine whose pool an allocation is; None for the allocation of a container."""
    return pool_named(allocation.name) if allocation.name == allocation.owner else None


def verdict(name: str, allocation: Allocation) -> Verdict:
    """Whether the engine of this name can express an allocation."""
    from usernsplan.engines.base import no  # noqa: PLC0415 - the list alone loads faster

    theirs = engine_of_pool(allocation)
    if theirs not in {None, name}:
        return no(f"it is the pool of {theirs}, not the range of one container")
    return engine(name).verdict(allocation)


def render(name: str, allocation: Allocation, context: RenderContext | None = None) -> Rendered:
    """What the engine reads for an allocation, and notes on what else it needs.

    Raises RefusedError, which names engines that can, if this one cannot make the mapping: a wrong
    configuration is never printed. Raises InvalidValueError for an option that it has no use for.
    """
    from usernsplan.engines.base import RenderContext, check_image  # noqa: PLC0415 - see verdict

    context = context or RenderContext()
    its = verdict(name, allocation)
    if not its.can:
        others = [other for other in ENGINES if verdict(other, allocation).can]
        again = ""
        if not (allocation.in_files or allocation.within):
            release = context.layout.inline(f"release {shell(allocation.name)}")
            again = f"; to give it lines, run {release} and allocate it without --no-lines"
        raise RefusedError(
            f"{name} cannot express the allocation '{allocation.name}': {its.why}",
            hint=f"{', '.join(others)} can{again}",
        )

    chosen = engine(name)
    said = {
        "volume": context.mounts,
        "image": context.image,
        "rootless": context.rootless,
        "bundle": context.bundle,
        "vmid": context.vmid is not None,
    }
    if context.image is not None:
        check_image(context.image)

    for word, value in said.items():
        if value and word not in chosen.takes:
            raise InvalidValueError(f"--{word} is not an option for {name}")
    rendered = chosen.render(allocation, context)
    if context.policy is None:
        return rendered
    from usernsplan.engines.hardened import notes  # noqa: PLC0415 - many hosts have no policy
    from usernsplan.values import replace  # noqa: PLC0415

    enforced = parts(name, context.policy, allocation, context)
    found = [*rendered.notes, *notes(name, enforced)]
    if chosen.elsewhere and "label" in enforced and enforced["label"].can:
        found.append("label: it counts only on nodes on which SELinux enforces")
    return replace(rendered, notes=tuple(found))


def parts(
    name: str, policy: Effective, allocation: Allocation, context: RenderContext
) -> dict[str, Verdict]:
    """How the engine of this name enforces each part of a policy, where its containers run."""
    from usernsplan.engines.base import no  # noqa: PLC0415 - see verdict

    chosen = engine(name)
    found = chosen.hardening(policy, allocation, context).verdicts
    if "label" in found and context.selinux != "enforcing" and not chosen.elsewhere:
        return {**found, "label": no(f"SELinux is {context.selinux} on this host")}
    return found
