"""Allocation -> what one container engine reads. One engine is one file, and one row of ENGINES."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, cast

from usernsplan.errors import InvalidValueError, RefusedError, did_you_mean
from usernsplan.model import ROOT

if TYPE_CHECKING:
    from usernsplan.engines.base import Engine, RenderContext, Rendered, Verdict
    from usernsplan.model import Allocation


class Pool(NamedTuple):
    """A range of its own out of which an engine gives each container 65536 ids.

    ``owner`` has its lines, and the allocation has the same name; ``account``: the owner has to be an
    account. ``containers`` is how many it is made for by default; ``option`` of ``allocate`` says
    another number, and ``help`` is that option's.
    """

    owner: str
    containers: int
    option: str
    help: str
    account: bool = False


class EngineInfo(NamedTuple):
    """What is known of an engine without importing it.

    ``programs``: where one of them is installed, the host has the engine. ``extra_owners`` is a
    further owner that it wants every allocation's lines to be granted to, ``pool`` a range that it
    gives out itself. ``takes_roots``: it gives its own containers ids out of all of root's lines.
    ``owner_is_account``: it runs a daemon for each allocation, whose owner has to be an account.
    ``flags``: its text is words of a command line, or a script.
    """

    module: str
    programs: tuple[str, ...] = ()
    extra_owners: str | None = None
    pool: Pool | None = None
    takes_roots: bool = False
    owner_is_account: bool = False
    flags: bool = False


# What `render` and `allocate --engine` are asked for; a file is imported only when it is needed.
ENGINES = {
    "uid_map": EngineInfo("kernel"),
    "gid_map": EngineInfo("kernel"),
    "docker": EngineInfo("docker", ("dockerd",)),
    "docker-instance": EngineInfo("docker_instance", owner_is_account=True),
    "compose": EngineInfo("compose"),
    "podman": EngineInfo("podman", ("podman",), flags=True),
    "quadlet": EngineInfo("quadlet"),
    # containers/storage, user of --userns=auto; it needs no account.
    "podman-auto": EngineInfo(
        "podman_auto",
        pool=Pool("containers", 100, "--auto-containers", "a pool for so many containers"),
        flags=True,
    ),
    "oci": EngineInfo("oci", ("crun", "runc")),
    "containerd": EngineInfo("containerd", ("containerd",), flags=True),
    # newuidmap asks for a line even when root calls it, and LXC calls it for root.
    "lxc": EngineInfo("lxc", ("lxc-start",), extra_owners=ROOT),
    "incus": EngineInfo("incus", ("incusd",), extra_owners=ROOT, takes_roots=True),
    "lxd": EngineInfo("incus", ("lxd",), extra_owners=ROOT, takes_roots=True),
    "nspawn": EngineInfo("nspawn", ("systemd-nspawn",), flags=True),
    # The kubelet asks getsubids for its user of this name; 110 pods is what it runs at most if nothing is said.
    "kubernetes": EngineInfo(
        "kubernetes",
        ("kubelet",),
        pool=Pool("kubelet", 110, "--pods", "a kubelet's line for so many", account=True),
    ),
    "openshift": EngineInfo("openshift"),
    "systemd": EngineInfo("systemd"),
    # A script: to an empty one, sh says that all is well.
    "rootless": EngineInfo("rootless", flags=True),
}


def known(name: str) -> EngineInfo:
    """What is known of the engine of this name. Raises InvalidValueError for one that we do not know."""
    if name not in ENGINES:
        hint = did_you_mean(name, ENGINES, f"one of: {', '.join(ENGINES)}")
        raise InvalidValueError(f"no engine '{name}'", hint=hint)
    return ENGINES[name]


def engine(name: str) -> Engine:
    """The engine of this name. Raises InvalidValueError for one that we do not know."""
    return cast("Engine", import_module(f"usernsplan.engines.{known(name).module}").ENGINES[name])


def pool_named(name: str) -> str | None:
    """The engine whose pool is kept under this name."""
    return next(
        (engine for engine, it in ENGINES.items() if it.pool and it.pool.owner == name), None
    )


def engine_of_pool(allocation: Allocation) -> str | None:
    """The engine whose pool an allocation is; None where it is a container's."""
    return pool_named(allocation.name) if allocation.name == allocation.owner else None


def verdict(name: str, allocation: Allocation) -> Verdict:
    """Whether the engine of this name can express an allocation."""
    from usernsplan.engines.base import no  # noqa: PLC0415 - whoever asks for the list alone starts faster

    theirs = engine_of_pool(allocation)
    if theirs not in {None, name}:
        return no(f"it is a pool that {theirs} gives out itself, not one container's range")
    return engine(name).verdict(allocation)


def render(name: str, allocation: Allocation, asked: RenderContext | None = None) -> Rendered:
    """What the engine reads, and what it needs besides.

    Raises RefusedError where the engine cannot make this mapping, naming one that can: a wrong configuration is never
    printed.
    """
    from usernsplan.engines.base import RenderContext, check_image  # noqa: PLC0415 - see verdict

    asked = asked or RenderContext()
    found = verdict(name, allocation)
    if not found.can:
        others = [other for other in ENGINES if verdict(other, allocation).can]
        raise RefusedError(
            f"{name} cannot express the allocation '{allocation.name}': {found.why}",
            hint=f"{', '.join(others)} can",
        )
    chosen = engine(name)
    said = {
        "volume": asked.mounts,
        "image": asked.image,
        "rootless": asked.rootless,
        "bundle": asked.bundle,
    }
    if asked.image is not None:
        check_image(asked.image)
    for word, value in said.items():
        if value and word not in chosen.takes:
            raise InvalidValueError(f"--{word}: {name} has no use for it")
    return chosen.render(allocation, asked)
