"""What a container may do to the host through a mount of its volume, and what keeps it from that."""

from __future__ import annotations

from dataclasses import replace

from tests.each import each
from usernsplan.formats.accounts import Accounts, Group, User
from usernsplan.mapping import Extent, IdMap, Mapping
from usernsplan.model import Allocation, Holder, Reach, VolumeMount, Way
from usernsplan.planner import shelter

ACCOUNTS = Accounts(
    (User("root", 0, 0), User("alice", 1000, 1000)), (Group("root", 0), Group("www", 33))
)


def mapping(uids: tuple[int, int, int], gids: tuple[int, int, int]) -> Mapping:
    return Mapping(IdMap([Extent(*uids)]), IdMap([Extent(*gids)]))


def allocation(name: str, start: int) -> Allocation:
    return Allocation(name, name, "per-container", mapping((0, start, 65536), (0, start, 65536)))


WEB, DB, TWIN = allocation("web", 589824), allocation("db", 655360), allocation("twin", 589824)
MOUNT = VolumeMount("/at", "/srv/web", "web", "own", mapping((0, 589824, 1), (0, 589824, 1)))


@each(
    ("uid", "gid", "whose"),
    [
        (0, 0, ("root (uid 0)",)),
        (0, 589824, ("root (uid 0)",)),
        (1000, 589824, ("alice (uid 1000)",)),
        (7, 0, ("the group root (gid 0)",)),
        (7, 33, ("the group www (gid 33)",)),
        # An account's first group need not be listed.
        (7, 1000, ("the group alice (gid 1000)",)),
        (1000, 33, ("alice (uid 1000)", "the group www (gid 33)")),
        (655361, 7, ("the container db",)),
        (7, 655360, ("the container db",)),
        # Its own ids, even if another container has them too.
        (589825, 589825, ()),
        (7, 8, ()),
    ],
)
def test_whose_power_one_owner_on_disk_is(uid: int, gid: int, whose: tuple[str, ...]) -> None:
    mount = replace(MOUNT, mapping=mapping((uid, 589824, 1), (gid, 589824, 1)))
    assert shelter.powers(mount, ACCOUNTS, (WEB, DB, TWIN)) == whose
    read_only = replace(mount, options=("noexec", "ro"))
    assert shelter.powers(read_only, ACCOUNTS, (WEB, DB, TWIN)) == ()


def test_a_shift_gives_roots_power() -> None:
    mount = replace(MOUNT, mapping=mapping((0, 589824, 65536), (0, 589824, 65536)))
    assert shelter.powers(mount, Accounts()) == ("root (uid 0)",)


class Asked:
    """A directory service with one account and one group."""

    def user(self, name: str) -> User | None:
        del name
        return None

    def user_of(self, uid: int) -> User | None:
        return User("carol", 5000, 5000) if uid == 5000 else None

    def group(self, name: str) -> Group | None:
        del name
        return None

    def group_of(self, gid: int) -> Group | None:
        return Group("staff", 6000) if gid == 6000 else None


def test_a_directory_is_asked_for_single_ids() -> None:
    mount = replace(MOUNT, mapping=mapping((5000, 589824, 1), (6000, 589824, 1)))
    assert shelter.powers(mount, Accounts(directory=Asked())) == (
        "carol (uid 5000)",
        "the group staff (gid 6000)",
    )


OPEN = Way("/srv/web", above=(8, 5))
ABOVE = (8, 5)


@each(
    ("way", "protect", "is_open"),
    [
        (OPEN, "", True),
        (OPEN._replace(nosuid=True), "", False),
        (OPEN._replace(folder="/srv"), "", False),
        (OPEN, "nosuid", True),
        (OPEN._replace(follows=True), "nosuid", False),
        (OPEN._replace(follows=True), "parent", False),
        (OPEN._replace(follows=True), "", True),
        (OPEN._replace(above=(8, 6)), "parent", True),
        (OPEN._replace(above=(9, 5)), "parent", True),
        (OPEN, "parent", False),
    ],
)
def test_which_ways_are_open_to_others(way: Way, protect: str, is_open: bool) -> None:
    assert shelter.open_ways(Reach((way,)), protect, ABOVE) == ((way,) if is_open else ())


def test_problems_are_a_line_each_and_not_too_many() -> None:
    holder = Holder(12, "ba\nsh", 1000, "its current folder", "/srv/web/a\nb")
    far = OPEN._replace(pid=9, command="daem")
    found = shelter.problems((OPEN, far), Reach(holders=(holder,), unknown=("process 3",)))
    assert found == (
        "/srv/web is open to others than root, and setuid counts there",
        "/srv/web, as process 9 (daem) sees it, is open to others than root, and setuid counts there",
        r"process 12 (ba\nsh) of uid 1000 has '/srv/web/a\nb' as its current folder",
        "process 3 could not be looked at",
    )
    many = shelter.problems((OPEN,) * 9, Reach())
    assert (len(many), many[-1]) == (6, "and 4 more")
    assert shelter.problems((), Reach()) == ()
