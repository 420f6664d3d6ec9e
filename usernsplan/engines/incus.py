"""Incus and LXD: security.idmap.* and raw.idmap, as YAML for ``incus init IMAGE NAME < FILE``.

https://linuxcontainers.org/incus/docs/main/userns-idmap/ Checked with LXD 5.0.2 and Incus 6.0.4:
an isolated instance has exactly base and size, from container id 0. raw.idmap adds extents to them;
where container ids of the base are in one, the base is split around it, and its ids there stay
unused. newuidmap needs root's lines for what results, at each start.

Neither has a key for capabilities and no_new_privs. raw.lxc hands LXC's own lines on to it, and what
they set holds for the instance and for ``incus exec``; checked with the same versions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines import hardened, lxc
from usernsplan.engines.base import (
    EXACTLY,
    Engine,
    Hardening,
    RenderContext,
    Rendered,
    Verdict,
    no,
    quoted,
    ungranted,
)
from usernsplan.engines.lxc import maps_root, roots_files, roots_lines
from usernsplan.ids import ID_LIMIT, IdSet
from usernsplan.mapping import KINDS, Extent, Pass, joined
from usernsplan.model import ROOT
from usernsplan.strategies import SLOT
from usernsplan.values import NamedTuple, dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from usernsplan.harden.effective import Effective
    from usernsplan.mapping import IdMap, Kind
    from usernsplan.model import Allocation, Mount

_SHIFT = (
    "idmap needs a daemon that detects idmapped mounts: LXD 5.0 does not on newer kernels, and "
    "then the instance does not start"
)
# Of the sizes of the base that come into question, so many are tried: the largest ones.
_SIZES = 16


class _Config(NamedTuple):
    """What makes a map: base and size, and the extents that raw.idmap adds, by kind."""

    base: int
    size: int
    raw: dict[Kind, tuple[Extent, ...]]

    def lines(self) -> list[str]:
        """The lines of raw.idmap: the host first, and ranges with both ends included."""
        found = []
        for extent in sorted({extent for extents in self.raw.values() for extent in extents}):
            kinds = [kind for kind in KINDS if extent in self.raw[kind]]
            words = kinds if len(kinds) == 1 else ["both"]
            found += [f"{word} {extent.host_range} {extent.container_range}" for word in words]
        return found


@dataclass(frozen=True, slots=True)
class Incus(Engine):
    """The part of an instance's configuration that sets its ids."""

    takes = frozenset({"volume"})
    # LXD 5.0 detects no idmapped mounts on newer kernels, and then the instance does not start.
    idmap = "asked"
    program: str
    daemon: str

    def verdict(self, allocation: Allocation) -> Verdict:
        """Any map that base, size and raw.idmap make."""
        if allocation.within not in {"", ROOT}:
            return no(
                f"{self.daemon} takes ids from root's lines, and this is a slice of those of "
                f"{allocation.within}"
            )
        if any(allocation.mapping[kind].to_host(0) is None for kind in KINDS):
            return no("its range starts at container id 0, which is not mapped for uids and gids")
        if _config(allocation) is None:
            return no(
                "base and size are the same for uids and gids, and raw.idmap makes no such map"
            )
        if not maps_root(allocation) and (why := ungranted(allocation)):
            return no(f"newuidmap grants only what is in subuid, but {why}")
        return EXACTLY

    def render(self, allocation: Allocation, context: RenderContext) -> Rendered:
        """The keys, all values as strings, as in the API.

        Without security.idmap.isolated, base and size would be ignored.
        """
        found = _config(allocation)
        lines = ["config:", '  security.idmap.isolated: "true"']
        if found:
            lines += [
                f'  security.idmap.base: "{found.base}"',
                f'  security.idmap.size: "{found.size}"',
            ]
        if found and (raw := found.lines()):
            lines += ["  raw.idmap: |-", *(f"    {line}" for line in raw)]
        its = Hardening({})
        if context.policy:
            its = self.hardening(context.policy, allocation, context)
        lines += its.words
        if context.mounts:
            lines.append("devices:")
        for number, mount in enumerate(context.mounts, 1):
            lines += _device(number, mount)

        return Rendered(
            "\n".join(lines),
            roots_files(allocation),
            (
                f"use it with: {self.program} init IMAGE NAME < FILE",
                *[_SHIFT] * any(mount.owners == "idmap" for mount in context.mounts),
                *roots_lines(allocation, context),
                # A slice is of that line.
                *[
                    (
                        f"root needs one more line, of {SLOT} ids or more: from it {self.daemon} "
                        "takes ids for other instances, and without it none starts"
                    )
                ]
                * (not allocation.within),
                *its.notes,
            ),
        )

    def hardening(
        self, policy: Effective, allocation: Allocation, context: RenderContext
    ) -> Hardening:
        """Keys for system calls, over what the daemon refuses itself, and raw.lxc for the rest."""
        from usernsplan.harden import seccomp  # noqa: PLC0415 - many hosts have no policy

        # The daemon writes the filter, so LXC is asked for all but that.
        rest = policy._replace(
            deny=frozenset(), deny_all=False, allow=frozenset(), families=IdSet(), native=False
        )
        # exec does not heed init's user.
        user = (
            "add lxc.init.uid and lxc.init.gid to raw.lxc for its first process, and --user and "
            f"--group to each {self.program} exec"
        )
        of_lxc = lxc.hardening(rest, allocation, context, unknown="", user=user)
        keys, _ = seccomp.incus(policy)
        keys["raw.lxc"] = "\n".join(of_lxc.words)

        # There is no list that is empty and allows nothing.
        none_is_left = policy.deny_all and not policy.allow
        others = hardened.lost(
            policy,
            lambda part: seccomp.incus(part)[1],
            cannot={"architectures", *["system calls"] * none_is_left},
            names=hardened.unheard(context),
        )
        if "label" in of_lxc.verdicts:
            others["label"] = of_lxc.verdicts["label"]
        restricted = (
            "a project with restricted=true takes raw.lxc only with "
            "restricted.containers.lowlevel=allow"
        )
        instead = f"{', '.join(keys)}: these replace the same keys of the instance's profiles"
        return Hardening(
            hardened.verdicts(policy, others),
            tuple(line for key, value in keys.items() for line in _key(key, value)),
            notes=(instead, restricted, *of_lxc.notes),
        )


def _key(key: str, value: str) -> list[str]:
    """A key of a config in YAML, as a block if its value has several lines."""
    if "\n" not in value:
        return [f"  {key}: {quoted(value)}"]
    return [f"  {key}: |-", *(f"    {line}" for line in value.splitlines())]


def _config(allocation: Allocation) -> _Config | None:
    """The configuration that makes the map with the fewest lines of raw.idmap; None if none does."""
    mapping, held = allocation.mapping, allocation.reserved_range
    bases = [held.start] if held else []
    for kind in KINDS:
        longest = max(mapping[kind], key=lambda extent: extent.count)
        bases += [extent.host - extent.container for extent in (min(mapping[kind]), longest)]

    # The base maps all container ids below its size.
    end = min(_mapped(mapping[kind]) for kind in KINDS)
    ends = {e.container + e.count for kind in KINDS for e in mapping[kind]}
    starts = {e.container for kind in KINDS for e in mapping[kind]}
    sizes = sorted(size for size in starts | ends if 0 < size <= end)

    tried = [
        _Config(base, size, {kind: tuple(_beside(mapping[kind], base, size)) for kind in KINDS})
        for base in dict.fromkeys(bases)
        for size in dict.fromkeys([*sizes[:1], *sizes[-_SIZES:]])
        if 0 <= base <= ID_LIMIT - size
    ]
    right = [
        one
        for one in tried
        if all(_laid(one.base, one.size, one.raw[kind]) == _joined(mapping[kind]) for kind in KINDS)
    ]
    # min keeps the first of equals: the base of the allocation's own range.
    return min(right, key=lambda one: len(one.lines()), default=None)


def _mapped(ids: IdMap) -> int:
    """The first container id that a map lacks."""
    end = 0
    for extent in sorted(ids):
        if extent.container != end:
            break
        end += extent.count
    return end


def _beside(ids: IdMap, base: int, size: int) -> Iterator[Extent]:
    """The extents of a map that are not those of the base."""
    for extent in sorted(ids):
        if extent.host - extent.container != base:
            yield extent
        elif extent.container + extent.count > size:
            cut = max(size - extent.container, 0)
            yield Extent(extent.container + cut, extent.host + cut, extent.count - cut)


def _laid(base: int, size: int, raw: Sequence[Extent]) -> tuple[Extent, ...] | None:
    """The map that the daemon makes of base, size and extents of one kind; None if it refuses.

    It refuses host ids that are there already. One container id at the very end of the base it
    takes for one past the end; newuidmap then refuses the map. Checked with both.
    """
    whole = Extent(0, base, size)
    pieces = [whole]
    for extent in raw:
        if whole.host_range.overlaps(extent.host_range) and any(
            piece.host_range.overlaps(extent.host_range) for piece in pieces
        ):
            return None
        # They come in order, so only the last piece has container ids of this one.
        last = pieces.pop() if pieces else None
        if last and (extent.container, extent.count) == (last.container + last.count - 1, 1):
            return None
        pieces += _around(last, extent) if last else ()
    return _joined([*pieces, *raw])


def _around(whole: Extent, other: Extent) -> Iterator[Extent]:
    """What is left of an extent without the container ids of another one."""
    before = min(other.container, whole.container + whole.count) - whole.container
    after = max(other.container + other.count, whole.container) - whole.container
    if before > 0:
        yield Extent(whole.container, whole.host, min(before, whole.count))
    if after < whole.count:
        yield Extent(whole.container + after, whole.host + after, whole.count - after)


def _joined(extents: Iterable[Extent]) -> tuple[Extent, ...]:
    return tuple(one.extent for one in joined(Pass("uid", extent) for extent in extents))


def _device(number: int, mount: Mount) -> list[str]:
    return [
        f"  volume{number}:",
        "    type: disk",
        f"    source: {quoted(mount.source)}",
        f"    path: {quoted(mount.destination)}",
        *['    readonly: "true"'] * mount.read_only,
        *['    shift: "true"'] * (mount.owners == "idmap"),
    ]


ENGINES = {"incus": Incus("incus", "Incus"), "lxd": Incus("lxc", "LXD")}
