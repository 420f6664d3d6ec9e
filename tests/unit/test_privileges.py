"""What the state of a process means, by table; tests/engines/test_inspect.py shows that it is so on the kernel."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.each import each
from usernsplan import IdMap, Mapping
from usernsplan.formats.proc_status import Capabilities, Ids, Status
from usernsplan.harden.names import CAPABILITIES
from usernsplan.model import Namespace
from usernsplan.whose import privileges
from usernsplan.whose.privileges import DEFAULT

NONE = Capabilities()
ALL = Capabilities(permitted=CAPABILITIES, effective=CAPABILITIES, bounding=CAPABILITIES)
BOUND = Capabilities(bounding=CAPABILITIES)
PLAIN = Status(
    "x", "S", Ids(1000, 1000, 1000, 1000), Ids(1000, 1000, 1000, 1000), (), BOUND, False, 0, 0
)
ROOT = Ids(0, 0, 0, 0)


def inside(*uids: tuple[int, int, int], owner: int | None = None) -> Namespace:
    ids = IdMap.of(*uids)
    return Namespace(1, owner, None, (1,), Mapping(ids, ids))


def namespaced(status: Status, uid: int) -> Status:
    ids = Ids(uid, uid, uid, uid)
    return replace(status, uids=ids, gids=ids)


NS = inside((0, 100000, 65536), owner=0)


@each(
    ("status", "namespace", "codes"),
    [
        # S15: not root, a bounding set, no no_new_privs.
        (PLAIN, None, {"no-capabilities", "regain-by-setuid", "no-seccomp"}),
        (
            replace(PLAIN, capabilities=NONE),
            None,
            {"no-capabilities", "nothing-to-regain", "no-seccomp"},
        ),
        # S16.
        (
            replace(PLAIN, no_new_privs=True),
            None,
            {"no-capabilities", "no-new-privs", "no-seccomp"},
        ),
        (
            replace(PLAIN, seccomp=2, filters=1),
            None,
            {"no-capabilities", "regain-by-setuid", "seccomp"},
        ),
        (
            replace(PLAIN, seccomp=1),
            None,
            {"no-capabilities", "regain-by-setuid", "strict-seccomp"},
        ),
        (replace(PLAIN, seccomp=None), None, {"no-capabilities", "regain-by-setuid"}),
        # Root of the host.
        (
            replace(PLAIN, uids=ROOT, capabilities=ALL),
            None,
            {"host-root", "host-capabilities", "setuid", "no-seccomp"},
        ),
        (
            replace(PLAIN, uids=ROOT),
            None,
            {"host-root", "powerless-root", "regain-as-root", "no-seccomp"},
        ),
        (
            replace(PLAIN, uids=ROOT, capabilities=NONE),
            None,
            {"host-root", "powerless-root", "no-seccomp"},
        ),
        # A container, whose uid 1000 is 101000.
        (
            namespaced(PLAIN, 101000),
            NS,
            {"owner", "no-capabilities", "regain-by-setuid", "no-seccomp"},
        ),
        (
            replace(namespaced(PLAIN, 100000), capabilities=ALL),
            NS,
            {"root-inside", "owner", "namespaced", "setuid", "no-seccomp"},
        ),
        # Nobody is root there.
        (
            namespaced(PLAIN, 5000),
            inside((1, 5000, 1)),
            {"no-capabilities", "regain-by-file", "no-seccomp"},
        ),
        # The map has root, but not the process.
        (
            PLAIN,
            NS,
            {
                "unmapped-uid",
                "unmapped-group",
                "owner",
                "no-capabilities",
                "regain-by-setuid",
                "no-seccomp",
            },
        ),
        # An identity map: root is root.
        (
            replace(namespaced(PLAIN, 0), capabilities=ALL),
            inside((0, 0, 65536)),
            {"identity-root", "namespaced", "setuid", "no-seccomp"},
        ),
        (
            namespaced(PLAIN, 0),
            replace(NS, mapping=None),
            {"host-uid-0", "no-map", "owner", "no-capabilities", "regain-by-file", "no-seccomp"},
        ),
        # Ids that differ.
        (
            replace(PLAIN, uids=Ids(1000, 1000, 0, 1000)),
            None,
            {"saved-root", "no-capabilities", "regain-by-setuid", "no-seccomp"},
        ),
        (
            replace(PLAIN, uids=Ids(1000, 1001, 1002, 1003)),
            None,
            {"other-uid", "file-system-uid", "no-capabilities", "regain-by-setuid", "no-seccomp"},
        ),
        (
            replace(PLAIN, groups=(0,)),
            None,
            {"root-group", "no-capabilities", "regain-by-setuid", "no-seccomp"},
        ),
        (
            replace(namespaced(PLAIN, 101000), groups=(100005, 27)),
            NS,
            {"unmapped-group", "owner", "no-capabilities", "regain-by-setuid", "no-seccomp"},
        ),
        # The other sets.
        (
            replace(
                PLAIN,
                capabilities=Capabilities(
                    inheritable=("chown", "kill"),
                    permitted=("chown",),
                    effective=("chown",),
                    ambient=("chown",),
                ),
            ),
            None,
            {"host-capabilities", "ambient", "inheritable", "regain-by-setuid", "no-seccomp"},
        ),
        (
            replace(PLAIN, capabilities=Capabilities(permitted=(*sorted(DEFAULT), "sys_admin"))),
            None,
            {"host-capabilities", "beyond-default", "nothing-to-regain", "no-seccomp"},
        ),
    ],
)
def test_what_follows(status: Status, namespace: Namespace | None, codes: set[str]) -> None:
    said = privileges.sentences(status, (namespace,) if namespace else ())
    assert {one.code for one in said} == codes
    assert len(said) == len(codes)
    assert all(one.text and one.text[0].islower() | one.text[0].isdigit() for one in said)


def test_what_is_regained_is_what_is_lacking() -> None:
    have = Capabilities(
        inheritable=("bpf",), permitted=("chown",), effective=("chown",), bounding=("chown", "kill")
    )
    for uids in (PLAIN.uids, ROOT):
        [gain] = [
            one
            for one in privileges.sentences(replace(PLAIN, uids=uids, capabilities=have), ())
            if "regain" in one.code
        ]
        assert gain.capabilities == ("kill", "bpf")
        assert gain.text.endswith("kill, bpf")


def test_where_nobody_is_root_only_the_bounding_set_can_be_had() -> None:
    have = Capabilities(inheritable=("bpf",), bounding=("chown", "kill"))
    [gain] = [
        one
        for one in privileges.sentences(
            replace(namespaced(PLAIN, 5000), capabilities=have), (inside((1, 5000, 1)),)
        )
        if one.code == "regain-by-file"
    ]
    assert gain.capabilities == ("chown", "kill")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), "none"),
        (CAPABILITIES, "all 41"),
        ((*CAPABILITIES, "41"), "all 42"),
        (tuple(DEFAULT), "the 14 that Docker gives by default"),
        (("chown", "41"), "chown, 41"),
        (tuple(name for name in CAPABILITIES if name != "bpf"), "all but bpf"),
    ],
)
def test_sets_are_told_in_few_words(names: tuple[str, ...], words: str) -> None:
    assert privileges.listed(names) == words
