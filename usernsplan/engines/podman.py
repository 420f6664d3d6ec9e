"""Podman: --uidmap and --gidmap, container:host:count.

In rootless Podman the middle number is an id of the namespace in which Podman itself runs.

podman-run(1)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.engines import hardened
from usernsplan.engines.base import (
    EXACTLY,
    Engine,
    Hardening,
    RenderContext,
    Rendered,
    Verdict,
    is_login,
    login_of,
    plain,
)
from usernsplan.errors import InvalidValueError, RefusedError
from usernsplan.formats import containers_conf
from usernsplan.formats.subid import Grant, by_start, end_to_end
from usernsplan.mapping import KINDS, Extent, IdMap, Mapping
from usernsplan.model import DEFAULT_OWNER, OWN_PREFIX, ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from usernsplan.formats.accounts import User
    from usernsplan.formats.subid import SubidFile
    from usernsplan.harden.effective import Effective
    from usernsplan.model import Allocation, HostState, Mount


# Where containers-common has Podman's own profile. The first one counts.
OWN_FILTERS = ("/etc/containers/seccomp.json", "/usr/share/containers/seccomp.json")
NO_FILTER = (
    f"its own profile was not found: {' or '.join(OWN_FILTERS)}, or what containers.conf names; "
    "--base FILE gives one"
)


class OfPodman(Engine):
    """What Podman's engines share: where its own profile of system calls is."""

    own_filters = OWN_FILTERS
    filter_configs = containers_conf.PATHS
    login_filter_configs = containers_conf.OF_LOGIN

    def names_filter(self, contents: Sequence[bytes]) -> str:
        """The containers.conf of the host, or of an account, may name another profile."""
        return containers_conf.seccomp_profile(contents)


class Podman(OfPodman):
    """Flags for podman run, create and build."""

    takes = frozenset({"volume", "U", "rootless"})
    idmap = "yes"

    def verdict(self, allocation: Allocation) -> Verdict:
        """Any map: root's Podman passes it to the runtime unchanged."""
        del allocation
        return EXACTLY

    def render(self, allocation: Allocation, context: RenderContext) -> Rendered:
        """The flags on one line, to follow ``podman run``."""
        uids, gids = maps(allocation, context)
        flags = [f"--uidmap {text}" for text in uids] + [f"--gidmap {text}" for text in gids]
        flags += [f"-v {volume(mount)}" for mount in context.mounts]
        if context.policy is None:
            return Rendered(" ".join(flags), (), notes(allocation, context))
        its = self.hardening(context.policy, allocation, context)
        return Rendered(
            " ".join([*flags, *its.words]), its.files, (*notes(allocation, context), *its.notes)
        )

    def hardening(
        self, policy: Effective, allocation: Allocation, context: RenderContext
    ) -> Hardening:
        """Flags of podman run. The filter is a file, laid over Podman's own."""
        return flags_of(policy, allocation, context)


def flags_of(policy: Effective, allocation: Allocation, context: RenderContext) -> Hardening:
    """How podman run enforces a policy."""
    filter_, others = hardened.filter_file(policy, allocation, context, unknown=NO_FILTER)
    opts = [] if policy.new_privileges else ["no-new-privileges"]
    opts += hardened.filter_and_label(policy, filter_)
    return Hardening(
        hardened.verdicts(policy, others),
        (*hardened.capability_flags(policy), *hardened.as_flags(opts)),
        (filter_,) if filter_ else (),
        hardened.as_another_user(policy, ambient=True),
    )


def maps(allocation: Allocation, context: RenderContext) -> tuple[list[str], list[str]]:
    """The values of --uidmap and --gidmap: host ids for root, intermediate ids for an account."""
    mapping = allocation.mapping
    if context.rootless and context.state:
        mapping = _inner(allocation, login_of(allocation, context), context.state)
    return _texts(mapping.uids), _texts(mapping.gids)


def _texts(ids: IdMap) -> list[str]:
    return [f"{container}:{host}:{count}" for container, host, count in ids.triples()]


def _inner(allocation: Allocation, login: User, state: HostState) -> Mapping:
    """The map to the ids of the namespace in which the Podman of an account runs."""
    uids, gids = (
        _intermediate(
            login.owner_names, allocation.mapping[kind], state.subid(kind), login.number(kind)
        )
        for kind in KINDS
    )
    return Mapping(uids, gids)


def _intermediate(names: Sequence[str], ids: IdMap, file: SubidFile, own: int) -> IdMap:
    """A map to the ids of the namespace in which rootless Podman runs.

    There the user, whose id is ``own``, is 0, and the lines of the user's ``names`` follow from 1
    on. Every version of Podman takes such a map. Raises RefusedError if the lines do not determine
    it.
    """
    lines = [line for name in names for line in file.by_owner().get(name, [])]
    try:
        for line in lines:
            if not isinstance(line, Grant) and line.problem:
                raise InvalidValueError(
                    f"readers do not agree on line {line.number}: {line.problem}"
                )
        laid = end_to_end(by_start(line for line in lines if isinstance(line, Grant)), 1)
        places = [Extent(e.host, e.container, e.count) for e in laid]
        if places and ids.to_container(own) is not None:
            places.append(Extent(own, 0, 1))
        found = ids.compose(IdMap(places)) if places else ()
        if sum(e.count for e in found) != sum(e.count for e in ids):
            raise InvalidValueError("some of its ids are in none of the lines")
    except InvalidValueError as error:
        raise RefusedError(
            f"the lines of {names[0]} do not make this map: {error}",
            hint="'usernsplan check' shows what is wrong with the lines",
        ) from error
    return IdMap(found)


def volume(mount: Mount) -> str:
    """The value of -v and of Volume=. Raises RefusedError for a path that needs quotes."""
    options = ["ro"] * mount.read_only + ([] if mount.owners == "plain" else [mount.owners])
    return ":".join(
        [plain(mount.source), plain(mount.destination), *([",".join(options)] if options else [])]
    )


def notes(allocation: Allocation, context: RenderContext) -> tuple[str, ...]:
    """What these flags need."""
    found = []
    if (
        not context.rootless
        and allocation.owner
        not in {
            DEFAULT_OWNER,
            ROOT,
            f"{OWN_PREFIX}{allocation.name}",
        }
        and (not allocation.within or is_login(allocation.within))
    ):
        found.append(
            "these flags are for Podman as root; --rootless prints those for the Podman of "
            f"{allocation.owner}"
        )
    if context.rootless:
        found.append(
            f"these flags are for the Podman of {allocation.owner}; after its lines change, run: "
            "podman system migrate"
        )
        flags = [f"--uidmap {e.container}:@{e.host}:{e.count}" for e in allocation.mapping.uids]
        flags += [f"--gidmap {e.container}:@{e.host}:{e.count}" for e in allocation.mapping.gids]
        found.append(f"Podman 4.7 and later also take host ids, after an @: {' '.join(flags)}")
        found += _keep_id(allocation, context)
    return (*found, *of_idmap(context))


def _keep_id(allocation: Allocation, context: RenderContext) -> tuple[str, ...]:
    """How --userns=keep-id compares, where the account's own ids are in the map.

    It maps all ids of the account, and leaves no hole: the ids of the lines follow on from each
    other around the account's own. Checked with 4.3, which was the first to take uid= and gid=.
    """
    if context.state is None:
        return ()
    login = login_of(allocation, context)
    made = _inner(allocation, login, context.state)
    # There the account is 0.
    uid, gid = made.uids.to_container(0), made.gids.to_container(0)
    if uid is None or gid is None:
        return ()

    flag = f"--userns=keep-id:uid={uid},gid={gid}"
    counts = {kind: _granted(login, context.state.subid(kind)) for kind in KINDS}
    if (made.uids, made.gids) == (_kept(uid, counts["uid"]), _kept(gid, counts["gid"])):
        return (
            f"{flag} makes the same map, with Podman 4.3 or newer; a .container file has UserNS=",
        )
    return (
        (
            f"{flag} makes another map: there the container ids after the account's own are one host "
            "id lower, and all of the account's ids are in it"
        ),
    )


def _granted(login: User, file: SubidFile) -> int:
    """How many subordinate ids an account has."""
    lines = (line for name in login.owner_names for line in file.by_owner().get(name, []))
    return sum(line.stop - line.start for line in lines if isinstance(line, Grant))


def _kept(own: int, count: int) -> IdMap:
    """The map of keep-id, for an account with this many subordinate ids."""
    pieces = [(0, 1, own), (own, 0, 1), (own + 1, own + 1, count - own)]
    return IdMap(Extent(*piece) for piece in pieces if piece[2] > 0)


def of_idmap(context: RenderContext) -> tuple[str, ...]:
    """What an idmapped mount needs from the runtime."""
    if not any(mount.owners == "idmap" for mount in context.mounts):
        return ()
    return ("idmap needs crun, or runc 1.2 or newer; an older runc silently ignores it",)


ENGINES = {"podman": Podman()}
