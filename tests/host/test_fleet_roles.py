"""What each role of the database may do: two hosts', an operator's, one of nobody's. The server itself is asked."""

# ruff: noqa: S608 - the tables are those of our own schema

from __future__ import annotations

import re
from contextlib import contextmanager
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.command import needs_root
from tests.each import each
from tests.host.fleet_state import ALLOCATE, is_well, ranges, run
from tests.postgres import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.postgres import FleetOfRoots

pytestmark = needs_root
SQL = (resources.files("usernsplan.ledger") / "fleet.sql").read_text("utf-8")
TABLES = re.findall(r"(?m)^CREATE TABLE (\w+)", SQL)
PERMISSION, NO_FUNCTION_OF = "42501", "permission denied for function"
# What others may call: each asks who calls it.
OPEN = {
    one
    for several in re.findall(r"GRANT EXECUTE ON FUNCTION (.*?)\s+TO ", SQL, re.DOTALL)
    for one in re.split(r",\s*", several)
}


class Roles(NamedTuple):
    """A fleet with the hosts a and b, and an operator who has no host."""

    fleet: FleetOfRoots
    a: Path
    b: Path

    def asks(self, role: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
        login = f"{role}_{self.fleet.database}"
        return self.fleet.server.query(statement, *values, database=self.fleet.database, role=login)

    def refused(self, role: str, statement: str, *values: object) -> str:
        """What the server says."""
        import psycopg  # noqa: PLC0415 - may be missing

        with pytest.raises(psycopg.Error) as caught:
            self.asks(role, statement, *values)
        assert caught.value.sqlstate == PERMISSION, (statement, str(caught.value))
        return str(caught.value)

    def everything(self) -> dict[str, list[str]]:
        return {
            table: sorted(
                repr(row) for row in self.fleet.query(f"SELECT * FROM usernsplan.{table}")
            )
            for table in TABLES
        }


@pytest.fixture
def roles(fleet: FleetOfRoots) -> Roles:
    found = Roles(fleet, fleet.host("a"), fleet.host("b"))
    fleet.role("op", "usernsplan_operator")
    fleet.server.query(f"CREATE ROLE none_{fleet.database} LOGIN PASSWORD '{PASSWORD}'")
    run(found.a, *ALLOCATE, "web")
    run(found.b, *ALLOCATE, "db")
    return found


@contextmanager
def unchanged(roles: Roles) -> Iterator[None]:
    """What is done meanwhile changes no row."""
    before = roles.everything()
    yield
    assert roles.everything() == before


def test_nobody_writes_to_a_table(roles: Roles) -> None:
    assert len(TABLES) > 9
    for table in TABLES:
        [[column]] = roles.fleet.query(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 "
            "AND attidentity = '' ORDER BY attnum LIMIT 1",
            f"usernsplan.{table}",
        )
        with unchanged(roles):
            for role in ("h_a", "op", "none") if table in {"event", "claim"} else ("h_a",):
                for statement in (
                    f"UPDATE usernsplan.{table} SET {column} = {column}",
                    f"DELETE FROM usernsplan.{table}",
                    f"TRUNCATE usernsplan.{table} CASCADE",
                    f"INSERT INTO usernsplan.{table} OVERRIDING SYSTEM VALUE SELECT * FROM usernsplan.{table}",
                ):
                    roles.refused(role, statement)


def test_nor_if_somebody_granted_it_by_mistake(roles: Roles) -> None:
    """It is an error, and not an update of no rows."""
    roles.fleet.query("GRANT ALL ON ALL TABLES IN SCHEMA usernsplan TO usernsplan_host")
    with unchanged(roles):
        for table in TABLES:
            said = roles.refused("h_a", f"DELETE FROM usernsplan.{table}")
            assert "only the functions of usernsplan write" in said
    roles.fleet.query("DROP TRIGGER only_functions ON usernsplan.event")
    [[a], [b]] = roles.fleet.query("SELECT number FROM usernsplan.host ORDER BY name")
    event = "INSERT INTO usernsplan.event VALUES (%s, 99, '', '', '', '', '')"
    roles.refused("h_a", event, b)
    before = roles.fleet.query("SELECT * FROM usernsplan.event ORDER BY host, number")
    roles.asks("h_a", "DELETE FROM usernsplan.event")
    roles.asks("h_a", "UPDATE usernsplan.event SET change = ''")
    assert roles.fleet.query("SELECT * FROM usernsplan.event ORDER BY host, number") == before
    roles.asks("h_a", event, a)


def test_who_has_no_role_of_the_fleet_sees_nothing(roles: Roles) -> None:
    for table in TABLES:
        roles.refused("none", f"SELECT * FROM usernsplan.{table}")
    roles.refused("none", "SELECT usernsplan.look('a')")


def test_what_files_a_run_changes_only_its_host_sees(roles: Roles) -> None:
    for role in ("h_a", "h_b", "op"):
        roles.refused(role, "SELECT files FROM usernsplan.intent")
        roles.asks(role, "SELECT host, number FROM usernsplan.intent")
    roles.refused("h_b", "SELECT * FROM usernsplan.pending('a')")
    roles.refused("op", "SELECT * FROM usernsplan.pending('a')")


EMPTY = "'{}','{}','{}','{}','{}'"
FOR_A_HOST = [
    f"begin_run('a', 2, '', '', '', '', {EMPTY}, '{{}}')",
    f"tell('a', '', 2, '', {EMPTY}, true, {EMPTY}, '{{}}', '{{}}','{{}}','{{}}')",
    "drop_run('a', 1)",
    "leave('a')",
    "look('a')",
    "taken('a', '{}')",
    "pending('a')",
    "answer_wish('a', 'web', '', now())",
    f"publish('a', '', {EMPTY})",
    f"would_clash('a', {EMPTY}, '{{}}')",
]


@each("call", FOR_A_HOST)
def test_what_is_of_a_host_only_its_own_role_does(roles: Roles, call: str) -> None:
    # Another role does not help who is logged in as somebody else.
    roles.fleet.server.query(f"GRANT h_a_{roles.fleet.database} TO h_b_{roles.fleet.database}")
    with unchanged(roles):
        for role in ("h_b", "op", "none"):
            roles.refused(role, f"SELECT * FROM usernsplan.{call}")
        roles.refused(
            "h_b", f"SET ROLE h_a_{roles.fleet.database}; SELECT * FROM usernsplan.{call}"
        )


ASK = (
    "ask('{b}', '{xx}', 'per-container', '{\"size\": 65536}', '{xx,xx}', '{uid,gid}', "
    "'{900005888,900005888}', '{900071424,900071424}')"
)


@each(
    "call",
    [
        ASK,
        "ask_release('{b}', '{db}')",
    ],
)
def test_other_hosts_are_asked_by_operators_alone(roles: Roles, call: str) -> None:
    for role in ("h_a", "h_b", "none"):
        roles.refused(role, f"SELECT * FROM usernsplan.{call}")
    roles.asks("op", f"SELECT * FROM usernsplan.{call}")
    run(roles.b, "sync")
    is_well(roles.fleet, (roles.a, roles.b))


def test_every_function_that_others_may_call_is_known_here_and_asks_who_calls(
    roles: Roles,
) -> None:
    found = roles.fleet.query(
        "SELECT p.proname, p.prosecdef, p.proconfig, has_function_privilege('public', p.oid, 'EXECUTE'), "
        "has_function_privilege('usernsplan_host', p.oid, 'EXECUTE') "
        "FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'usernsplan'"
    )
    assert {name for name, *_, may in found if may} == OPEN
    for name, is_definer, config, is_public, _ in found:
        assert not is_public, name
        if is_definer:
            assert config == ["search_path=pg_catalog, usernsplan, pg_temp"], name


def test_a_table_of_the_caller_hides_none_of_ours(roles: Roles) -> None:
    before = ranges(roles.b)
    roles.fleet.query("GRANT TEMPORARY ON DATABASE " + roles.fleet.database + " TO PUBLIC")
    roles.refused(
        "h_b",
        "CREATE TEMPORARY TABLE host AS SELECT * FROM usernsplan.host; "
        "UPDATE host SET role = session_user; SET search_path = pg_temp, usernsplan; "
        "SELECT usernsplan.leave('a')",
    )
    assert ranges(roles.b) == before


def test_a_host_of_the_operator_is_no_more_than_a_host_to_the_others(roles: Roles) -> None:
    op = roles.fleet.host("c", "usernsplan_operator")
    run(op, *ALLOCATE, "mail")
    roles.refused("h_c", "SELECT usernsplan.leave('a')")
    run(op, "release", "db", "--on", "b")
    assert "db" in ranges(roles.b)
    run(roles.b, "sync")
    assert "db" not in ranges(roles.b)
    is_well(roles.fleet, (roles.a, roles.b, op))
