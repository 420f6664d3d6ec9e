"""OCI runtimes (crun, runc): a fragment of config.json, or the patched config.json of a bundle.

https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#user-namespace-mappings
"""

from __future__ import annotations

import json
import posixpath
from typing import TYPE_CHECKING, Any, NoReturn, cast

from usernsplan.engines import hardened
from usernsplan.engines.base import (
    EXACTLY,
    Engine,
    Hardening,
    RenderContext,
    Rendered,
    Verdict,
    no,
)
from usernsplan.engines.podman import of_idmap
from usernsplan.errors import InvalidFileError, RefusedError
from usernsplan.escape import operand, shell
from usernsplan.harden.names import kernel_names
from usernsplan.patterns import pattern

if TYPE_CHECKING:
    from collections.abc import Iterator

    from usernsplan.harden.effective import Effective
    from usernsplan.mapping import IdMap, Mapping
    from usernsplan.model import Allocation, Mount

_ID = pattern("[0-9]{1,10}")
# What Fedora's policy has for the files of containers, for a bundle without a label.
_FILES = "system_u:object_r:container_file_t:s0"
_LEVEL_AT = 3
_SURROGATE = pattern("[\ud800-\udfff]")


class Oci(Engine):
    """The part of config.json with the user namespace, its maps and the mounts."""

    takes = frozenset({"volume", "bundle"})
    idmap = "asked"

    def verdict(self, allocation: Allocation) -> Verdict:
        """Any map: the runtime writes it to the kernel unchanged."""
        del allocation
        return EXACTLY

    def render(self, allocation: Allocation, context: RenderContext) -> Rendered:
        """A JSON object to merge into config.json: its lists are added to those in the file."""
        linux = {
            "namespaces": [{"type": "user"}],
            "uidMappings": _mappings(allocation.mapping.uids),
            "gidMappings": _mappings(allocation.mapping.gids),
        }
        mounts = [_mount(mount, allocation.mapping) for mount in context.mounts]
        notes = [*of_idmap(context)]
        policy = context.policy
        if context.bundle is None:
            fragment = {**({"mounts": mounts} if mounts else {}), "linux": linux}
            if policy:
                fragment = _with_scalars(fragment, policy, context)
            return Rendered(json.dumps(fragment, indent=2), (), tuple(notes))

        config = _config(context.bundle, context.place)
        changed = _patched(config, linux, mounts, context.place)
        if policy:
            changed = _hardened(_with_scalars(changed, policy, context), policy, context)
            notes += _of_user(changed, policy)
        # A file that has all this already stays as it is, whatever its indentation.
        text = context.bundle if changed == config else _written(changed)

        if rootfs := _rootfs(changed, context.place):
            words = (
                f"fix-volume {operand(rootfs)} --container {shell(allocation.name)} --mode shift"
            )
            fix = context.layout.command(words)
            notes.append(f"the root file system has to belong to these ids; this does it: {fix}")
        return Rendered(text, (), (*notes, *_odd_mounts(changed, allocation.mapping)))

    def hardening(
        self, policy: Effective, allocation: Allocation, context: RenderContext
    ) -> Hardening:
        """All of a bundle. A fragment takes nothing away, and most of a policy does."""
        del allocation
        if context.bundle is None:
            why = no(
                "lists of a fragment are added to those of config.json; --bundle DIR changes it"
            )
            lists = ("capabilities", "system calls", "families", "architectures")
            return Hardening(hardened.verdicts(policy, dict.fromkeys(lists, why)))
        _, others = _filter(policy, _config(context.bundle, context.place), context)
        return Hardening(hardened.verdicts(policy, others))


def _mappings(ids: IdMap) -> list[dict[str, int]]:
    return [
        {"containerID": container, "hostID": host, "size": count}
        for container, host, count in ids.triples()
    ]


def _mount(mount: Mount, mapping: Mapping) -> dict[str, Any]:
    found: dict[str, Any] = {
        "destination": mount.destination,
        "type": "bind",
        "source": mount.source,
        "options": ["rbind", "ro" if mount.read_only else "rw"],
    }
    if mount.owners == "idmap":
        # Here containerID is the id on the disk: the container sees the ids that the disk has.
        found |= {"uidMappings": _mappings(mapping.uids), "gidMappings": _mappings(mapping.gids)}
    return found


def _config(text: str, place: str) -> dict[str, Any]:
    try:
        config = json.loads(
            text, object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        fact = "nested too deep" if isinstance(error, RecursionError) else str(error)
        hint = "restore it from a backup, or make a new bundle: runc spec"
        raise InvalidFileError(place, f"not JSON: {fact}", hint=hint) from error
    if not _is_config(config):
        hint = "make one with: runc spec"
        raise InvalidFileError(place, "not the config.json of an OCI bundle", hint=hint)
    return cast("dict[str, Any]", config)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object. Raises ValueError for two equal keys, because one would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(
            f"the key {next(key for key in keys if keys.count(key) > 1)!r} is there twice"
        )
    return found


def _finite(text: str) -> float:
    """A number that can be written again: Python writes 1e999 as Infinity, which is not JSON."""
    number = float(text)
    if number in {float("inf"), float("-inf")}:
        raise ValueError(f"{text} is too large a number")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def _written(config: dict[str, Any]) -> str:
    """The text of a whole config.json. Half of a surrogate pair stays escaped."""
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    return (
        text
        if text.isascii() or not _SURROGATE.search(text)
        else json.dumps(config, indent=2) + "\n"
    )


def _is_config(config: object) -> bool:
    """Tell whether the parts that we read and change are what they have to be."""
    linux = config.get("linux", {}) if isinstance(config, dict) else None
    if not isinstance(config, dict) or not isinstance(linux, dict):
        return False
    process = config.get("process") or {}
    if not isinstance(process, dict) or not _has_sets(process.get("capabilities") or {}):
        return False
    parts = (config.get("mounts") or [], linux.get("namespaces") or [])
    return all(
        isinstance(part, list) and all(isinstance(item, dict) for item in part) for part in parts
    ) and all(
        isinstance(mount.get("destination"), str) and isinstance(mount.get("options") or [], list)
        for mount in parts[0]
    )


def _has_sets(capabilities: object) -> bool:
    return isinstance(capabilities, dict) and all(
        isinstance(each or [], list) for each in capabilities.values()
    )


def _patched(
    config: dict[str, Any], linux: dict[str, Any], mounts: list[dict[str, Any]], place: str
) -> dict[str, Any]:
    """The configuration with the namespace, with these maps instead of others, and with the mounts.

    A mount takes the place of one with the same destination. Raises RefusedError.
    """
    old = config.get("linux", {})
    namespaces = old.get("namespaces") or []
    if any(each.get("type") == "user" and each.get("path") for each in namespaces):
        raise RefusedError(
            f"{place} joins an existing user namespace, whose map is fixed",
            hint='remove the "path" of the user namespace from it',
        )

    new = [] if any(each.get("type") == "user" for each in namespaces) else linux["namespaces"]
    merged = {**old, **linux, "namespaces": [*namespaces, *new]}

    new_mounts = {mount["destination"]: mount for mount in mounts}
    left, standing = dict(new_mounts), []
    for mount in config.get("mounts") or []:
        destination = mount["destination"].rstrip("/")
        if destination not in new_mounts:
            standing.append(mount)
        elif destination in left:
            # It replaces the first one; a second one would be mounted over it.
            standing.append(left.pop(destination))

    more = {"mounts": [*standing, *left.values()]} if mounts else {}
    return {**config, **more, "linux": merged}


def _with_scalars(
    config: dict[str, Any], policy: Effective, context: RenderContext
) -> dict[str, Any]:
    """A configuration with what a policy sets to one value: no_new_privs and labels."""
    process, linux = {**(config.get("process") or {})}, {**(config.get("linux") or {})}
    process["noNewPrivileges"] = not policy.new_privileges
    found = {**config, "process": process, "linux": linux}
    # runc does not start a container with a label where SELinux is off.
    if context.selinux == "off":
        return found
    if policy.selinux_type or policy.selinux_level:
        process["selinuxLabel"] = _label(
            process.get("selinuxLabel"),
            hardened.PROCESS_LABEL,
            policy.selinux_type,
            policy.selinux_level,
        )
    if policy.selinux_level:
        linux["mountLabel"] = _label(linux.get("mountLabel"), _FILES, "", policy.selinux_level)
    return found


def _label(old: object, default: str, type_: str, level: str) -> str:
    """An SELinux label with another type and level; "" for one of them is as it was.

    A label is user:role:type:level, and a level may have a colon.
    """
    parts = (old if isinstance(old, str) and old else default).split(":", _LEVEL_AT)
    user, role, its_type, *rest = (*parts, *default.split(":", _LEVEL_AT)[len(parts) :])
    return ":".join([user, role, type_ or its_type, level or rest[0]])


def _hardened(changed: dict[str, Any], policy: Effective, context: RenderContext) -> dict[str, Any]:
    """A configuration with the capabilities and the filter of a policy."""
    kept = kernel_names(sorted(policy.capabilities))
    process = changed["process"]
    old = process.get("capabilities") or {}
    sets = dict.fromkeys(("bounding", "effective", "permitted"), kept)
    # Only a program of another user than root needs these two, so they are not filled.
    sets |= {
        name: [each for each in kept if each in (old.get(name) or [])]
        for name in ("inheritable", "ambient")
    }
    found = {**changed, "process": {**process, "capabilities": sets}}

    filter_, _ = _filter(policy, changed, context)
    if filter_ and not _is_same(filter_, changed["linux"].get("seccomp")):
        found["linux"] = {**found["linux"], "seccomp": filter_}
    return found


def _filter(
    policy: Effective, config: dict[str, Any], context: RenderContext
) -> tuple[dict[str, Any] | None, dict[str, Verdict]]:
    """The filter over that of the bundle, and its verdicts; None if the policy needs none."""
    if not policy.filters:
        return None, {}
    from usernsplan.harden import seccomp  # noqa: PLC0415 - many hosts have no policy

    own = config.get("linux", {}).get("seccomp")
    base, place = context.own_filter, context.own_filter_place
    if own:
        base, place = json.dumps(own).encode(), f"{context.place}: linux.seccomp"
    over = seccomp.NO_FILTER
    if base is not None:
        over = hardened.base_of(policy, base, place, context)
    return hardened.laid_over(policy, over, context)


def _is_same(one: dict[str, Any], other: object) -> bool:
    """Tell whether two filters say the same. The order of rules means nothing."""

    def said(filter_: dict[str, Any]) -> dict[str, Any]:
        lists = {
            key: {json.dumps(each, sort_keys=True) for each in filter_.get(key) or []}
            for key in ("architectures", "syscalls")
        }
        return {**filter_, **lists}

    return isinstance(other, dict) and said(one) == said(other)


def _of_user(config: dict[str, Any], policy: Effective) -> tuple[str, ...]:
    """Notes on a process that is root where a policy does not let it be, or that is not."""
    process = config["process"]
    user = process.get("user")
    if not (isinstance(user, dict) and user.get("uid")):
        return hardened.as_another_user(policy, "set process.user.uid")
    if len(process["capabilities"]["ambient"]) == len(policy.capabilities):
        return ()
    return (f"{hardened.NO_AMBIENT}: add them to ambient and inheritable in process.capabilities",)


def _rootfs(config: dict[str, Any], place: str) -> str | None:
    """The path of the bundle's root file system; None if the file has none."""
    root = config.get("root")
    path = root.get("path") if isinstance(root, dict) else None
    return posixpath.join(posixpath.dirname(place), path) if isinstance(path, str) else None


def _odd_mounts(config: dict[str, Any], mapping: Mapping) -> Iterator[str]:
    """Notes on mounts with an id that is not mapped: mount(2) fails with EINVAL."""
    for mount in config.get("mounts") or []:
        for option in mount.get("options") or []:
            kind, _, number = str(option).partition("=")
            ids = {"uid": mapping.uids, "gid": mapping.gids}.get(kind)
            if ids and _ID.fullmatch(number) and ids.to_host(int(number)) is None:
                yield (
                    f"{mount.get('destination')} is mounted with {option}, which is not mapped; "
                    "remove that option"
                )


ENGINES = {"oci": Oci()}
