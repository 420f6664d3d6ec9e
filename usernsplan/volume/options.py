"""The rule that the options of ``fix-volume`` mean for its volumes: the owner of each inode. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from usernsplan.errors import InvalidValueError
from usernsplan.holdings import all_own_ids
from usernsplan.mapping import Extent, IdMap
from usernsplan.mapping import Mapping as Mapping_
from usernsplan.patterns import pattern
from usernsplan.strategies import PerContainer, Shared, SingleUid
from usernsplan.volume import targets
from usernsplan.volume.decide import is_its_own, named

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from usernsplan.fixing import FixRequest
    from usernsplan.formats.accounts import Accounts
    from usernsplan.model import Allocation, LedgerState

_NUMBERS = pattern(r"\d{1,10}:\d{1,10}:\d{1,10}", re.ASCII)
_NUMBER = pattern(r"\d{1,10}", re.ASCII)


def targets_of(  # noqa: PLR0913 - a request resolved, see Meant
    request: FixRequest,
    ledger: LedgerState,
    allocation: Allocation | None,
    passwd: Accounts,
    names: Sequence[str] = (),
    *,
    former: Mapping_ | None = None,
) -> targets.OwnershipRule:
    """The rule that the options mean for volumes of these ``names`` in the ledger; see Meant.

    Raises InvalidValueError for options that contradict each other.
    """
    _refuse_contradiction(request)
    keep = request.keep_unmapped
    if allocation is None:
        uids, gids = _map("--uid-map", request.uid_map), _map("--gid-map", request.gid_map)
        if request.user is not None:
            return targets.own(Mapping_(uids, gids), _user(request.user, passwd), keep=keep)
        return targets.explicit(uids, gids, reverse=request.reverse, keep=keep)

    # The host ids of a shared map are the host's too, except those reserved for it from the pool.
    alone = allocation.strategy != Shared.name or is_its_own(ledger, allocation, names)
    exclusive = None if alone else all_own_ids(allocation)
    old = former
    if request.reverse:
        return targets.shift(old or allocation.mapping, reverse=True, keep=keep)
    if request.source is not None and old is None:
        old = former_map(request.source, ledger, allocation)
    if old is not None and request.mode != "own" and request.user is None:
        return targets.move(old, allocation.mapping, keep=keep, exclusive=exclusive)
    if request.mode == "shift":
        return targets.shift(allocation.mapping, keep=keep, exclusive=exclusive)
    return targets.own(allocation.mapping, _user(request.user, passwd), keep=keep)


def _refuse_contradiction(request: FixRequest) -> None:
    """Raise InvalidValueError for options that contradict each other."""
    explicit = bool(request.uid_map or request.gid_map)
    moves = (
        request.mode == "shift"
        or request.reverse
        or request.source is not None
        or bool(request.from_map)
    )
    shifts = moves or (explicit and request.user is None)

    if request.method == "idmap" and request.user is not None and request.mode == "shift":
        raise InvalidValueError(
            "--user cannot be combined with --mode shift", hint="leave out one of them"
        )
    wrong = {
        "--mode own cannot be combined with --reverse, --from, --from-map or a map without --user": (
            request.mode == "own" and shifts
        ),
        "--user cannot be combined with --mode shift, --reverse, --from or --from-map": (
            request.user is not None and moves
        ),
        "--reverse cannot be combined with --from": request.reverse and request.source is not None,
        "--from-map cannot be combined with --from or --reverse": bool(request.from_map)
        and (request.reverse or request.source is not None),
        "a map cannot be combined with --container, --from or --from-map": (
            explicit
            and ((request.container or request.source) is not None or bool(request.from_map))
        ),
        "--passwd needs --user": request.passwd is not None and request.user is None,
        "--uid-map and --gid-map need each other": bool(request.uid_map) != bool(request.gid_map),
    }
    for fact, is_wrong in wrong.items():
        if is_wrong:
            raise InvalidValueError(fact, hint="see 'usernsplan fix-volume --help'")


def former_map(name: str, ledger: LedgerState, allocation: Allocation) -> Mapping_:
    """The mapping that files move out of: another allocation's, or a quarantined range's.

    The ledger has only the range of a quarantined one. Its mapping follows from the host's
    strategy.
    """
    released = [q.reserved_range for q in ledger.quarantined if q.name == name]
    if name == allocation.name and not released:
        raise InvalidValueError(
            "--from and --container have the same name", hint="give --from the former container"
        )
    if name != allocation.name and (
        not released or any(a.name == name for a in ledger.allocations)
    ):
        return named({a.name: a for a in ledger.allocations}, name, "--from").mapping

    if len(released) > 1:
        ranges = ", ".join(map(str, released))
        raise InvalidValueError(
            f"--from {name}: several ranges of this name are quarantined: {ranges}",
            hint="move the files out of one with --uid-map, --gid-map and --reverse first",
        )
    if allocation.strategy == PerContainer.name:
        return PerContainer(released[0].count).mapping(released[0].start)
    if allocation.strategy == SingleUid.name:
        return SingleUid(container_id=allocation.mapping.uids[0].container).mapping(
            released[0].start
        )
    raise InvalidValueError(
        f"--from {name}: the ledger does not have the shared map of a released container",
        hint="use --uid-map and --gid-map",
    )


def _map(option: str, texts: Iterable[str]) -> IdMap:
    extents = []
    for text in texts:
        if not _NUMBERS.fullmatch(text):
            raise InvalidValueError(
                f"{option} {text}: expected CONTAINER:HOST:COUNT, as in 0:100000:65536"
            )
        try:
            extents.append(Extent(*map(int, text.split(":"))))
        except InvalidValueError as error:
            raise InvalidValueError(f"{option} {text}: {error}", hint=error.hint) from error
    return IdMap(extents)


def _user(text: str | None, passwd: Accounts) -> targets.Owner:
    """The container ids of U or U:G. The default of G is the user's group in passwd, else 0."""
    if text is None:
        return (0, 0)

    name, colon, group_name = text.partition(":")
    number = int(name) if _NUMBER.fullmatch(name) else None
    user = passwd.user(name) if number is None else passwd.user_of(number)
    uid = user.uid if user else number
    if uid is None:
        raise InvalidValueError(
            f"--user {text}: no such user", hint="use a number, or the image's --passwd FILE"
        )

    if not colon:
        return (uid, user.gid if user else 0)
    if _NUMBER.fullmatch(group_name):
        return (uid, int(group_name))
    group = passwd.group(group_name)
    if group is None:
        raise InvalidValueError(
            f"--user {text}: no such group",
            hint="use a number, or --passwd FILE with the image's 'group' file in the same folder",
        )
    return (uid, group.gid)
