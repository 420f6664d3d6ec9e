"""What useradd has left, without running one; test_useradd_oracle runs it."""

from __future__ import annotations

import pytest

from tests.unit.states import state
from usernsplan.audit import Facts, check
from usernsplan.claims.useradd import useradd


@pytest.mark.parametrize(
    ("login_defs", "subuid"),
    [
        # shadow knows no comments in this file
        (b"", b"#bob:0:4294967295\n"),
        # refused before it looks: count >= SUB_UID_MAX
        (b"SUB_UID_MIN 1\nSUB_UID_MAX 65536\n", b""),
    ],
)
def test_the_audit_says_that_nothing_is_left_where_the_figures_do(
    login_defs: bytes, subuid: bytes
) -> None:
    host = state(subuid, None, login_defs=login_defs)
    found = useradd(host)
    assert found is not None
    assert found.users == 0
    assert [finding.place for finding in check(Facts(host), {"USN060", "USN061"})] == [
        "/etc/subuid"
    ]
