"""What --explain says of a volume: which methods work, which mode fits, and what follows; a screen of text."""

from __future__ import annotations

from dataclasses import replace

from tests.each import each
from tests.unit.states import per_container
from usernsplan.fixing import Census, Choice, FixRequest, Obstacle
from usernsplan.host.mounts import MountPoint
from usernsplan.model import LedgerState, Mode, Volume, VolumeMount
from usernsplan.planner.mounts import owned
from usernsplan.report import explained as report
from usernsplan.volume import targets
from usernsplan.volume.decide import Meant
from usernsplan.volume.explained import Facts, explained, fitting

WEB = replace(per_container("web", 589824), event=1)
DB = replace(per_container("db", 655360), event=1)
EXT4 = MountPoint("8:1", "/", "/srv", "ext4", "rw,relatime", "rw")
ONE = ((33, 33, 10),)
THREE = ((33, 33, 7), (0, 0, 2), (1000, 100, 1))


def census(*owners: tuple[int, int, int], whole: bool = True) -> Census:
    entries = sum(n for *_, n in owners)
    return Census(entries, whole, 2.0, owners, at_most=entries if whole else None)


def meant(asked: FixRequest, ledger: LedgerState | None = None) -> Meant:
    found = LedgerState((WEB, DB)) if ledger is None else ledger
    return Meant(asked, found, WEB, ("/srv/web",), lambda words: f"usernsplan {words}")


ASKED = FixRequest(("/srv/web",), "web")


@each(
    ("asked", "found", "mode", "why"),
    [
        ({}, census(*ONE), "own", "everything has one owner"),
        ({}, census(*THREE), "shift", "3 owners, which own would make one"),
        ({}, census(*THREE, whole=False), "shift", "3 or more owners, which own would make one"),
        ({"mode": "own"}, census(*THREE), "own", "as you ask"),
        ({"mode": "shift"}, census(*ONE), "shift", "as you ask"),
        ({"user": "33:33"}, census(*THREE), "own", "as you ask"),
        ({"reverse": True}, census(*THREE), None, ""),
        ({"source": "db"}, census(*THREE), None, ""),
        ({"from_map": ("b 0 1 2",)}, census(*THREE), None, ""),
    ],
)
def test_the_mode_that_fits_keeps_owners_apart(
    asked: dict[str, object], found: Census, mode: Mode | None, why: str
) -> None:
    request = replace(ASKED, **asked)  # type: ignore[arg-type]
    assert fitting(request, meant(request), found) == (mode, why)


def test_what_is_recorded_comes_before_what_fits() -> None:
    recorded = meant(replace(ASKED, mode="shift"))
    assert fitting(ASKED, recorded, census(*ONE)) == ("shift", "as recorded")


def facts(found: Census, mode: Mode = "shift", /, **more: object) -> Facts:
    asked = replace(ASKED, mode=mode)
    rule = targets.shift(WEB.mapping) if mode == "shift" else targets.own(WEB.mapping, (0, 0))
    one = Facts(asked, meant(asked), "as you ask", rule, EXT4, found, WEB.mapping)
    return replace(one, **more)  # type: ignore[arg-type]


def both(one: Facts) -> tuple[Choice, Choice]:
    idmap, chown = explained("/srv/web", one).choices
    assert (idmap.method, chown.method) == ("idmap", "chown")
    return idmap, chown


def test_where_nothing_is_in_the_way_both_work_and_have_their_command() -> None:
    idmap, chown = both(facts(census(*THREE)))
    assert idmap.works
    assert chown.works
    assert idmap.command == "usernsplan mount-volume /srv/web --container web --mode shift"
    assert chown.command == "usernsplan fix-volume /srv/web --container web --mode shift"
    assert chown.notes == ("10 entries to change",)
    # A run looks, changes, and looks again.
    assert chown.seconds == 6.0


@each(
    ("more", "fact", "remedy"),
    [
        ({"mount": EXT4._replace(options="ro,relatime")}, "/srv is mounted read-only", "bind,rw"),
        ({"mount": EXT4._replace(fs_options="ro")}, "/srv is mounted read-only", "bind,rw"),
        ({"mount": EXT4._replace(kind="vfat")}, "(vfat) has one owner for everything", "uid="),
        ({"mount": EXT4._replace(kind="cifs")}, "(cifs) has one owner for everything", "uid="),
        ({"census": census((70000, 5, 4))}, "lacks 70000:5 (4 entries)", "--unmapped keep"),
        ({"census": census((5, 70000, 1))}, "lacks 5:70000 (1 entry)", "--unmapped keep"),
        ({"census": replace(census(*ONE), outside=1)}, "1 file with hard", "--outside-links skip"),
        ({"census": replace(census(*ONE), fixed=2)}, "2 entries immutable", "chattr -R -ia /srv"),
    ],
)
def test_what_stands_in_the_way_of_chown_alone(
    more: dict[str, object], fact: str, remedy: str
) -> None:
    idmap, chown = both(replace(facts(census(*ONE)), **more))  # type: ignore[arg-type]
    assert idmap.works
    [why] = chown.obstacles
    assert fact in why.fact
    assert remedy in why.remedy


def test_a_remedy_of_another_program_names_the_path_on_this_machine() -> None:
    one = facts(replace(census(*ONE), fixed=2))
    [why] = explained("/mnt/image/srv/web", one).choices[1].obstacles
    assert why.remedy == "chattr -R -ia /mnt/image/srv/web"


@each(
    "asked",
    [{"keep_unmapped": True}, {"skip_outside_links": True}],
)
def test_what_is_permitted_already_is_no_obstacle(asked: dict[str, bool]) -> None:
    found = replace(
        census((70000, 5, 4) if "keep_unmapped" in asked else (33, 33, 4)),
        outside=0 if "keep_unmapped" in asked else 3,
    )
    request = replace(ASKED, mode="shift", **asked)  # type: ignore[arg-type]
    one = replace(facts(found), asked=request)
    assert not both(facts(found))[1].works
    if "keep_unmapped" in asked:
        one = replace(one, rule=targets.shift(WEB.mapping, keep=True))
    assert both(one)[1].works


def test_what_is_against_both_and_what_is_against_a_mount_alone() -> None:
    home, old = Obstacle("a user's home", "add --protected"), Obstacle("too old")
    idmap, chown = both(facts(census(*ONE), against=(home,), against_idmap=(old,)))
    assert idmap.obstacles == (home, old)
    assert chown.obstacles == (home,)


def test_owners_that_a_mount_does_not_show_are_nobodys() -> None:
    notes = both(facts(census((33, 33, 4), (70000, 0, 2), (0, 80000, 1))))[0].notes
    assert notes == ("70000:0, 0:80000 (3 entries) would appear as 65534, nobody's",)
    own = facts(census(*THREE), "own", mapping=owned((589824, 589824), (33, 33)))
    assert both(own)[0].notes == (
        "only this user of the container can make files through the mount",
        "0:0, 1000:100 (3 entries) would appear as 65534, nobody's",
    )
    assert "3 owners become one" in both(own)[1].notes


@each(
    ("more", "note", "method"),
    [
        ({"mount": EXT4._replace(kind="overlay")}, "needs --copy-up", 1),
        ({"stores_owners": False}, "may refuse new owners", 1),
        ({"census": replace(census(*ONE), mounts=("/srv/web/in",))}, "shown without --cross", 0),
        ({"census": replace(census(*ONE), mounts=("/srv/web/in",))}, "out without --cross", 1),
        ({"census": replace(census(*ONE), unread=("/srv/web/x",))}, "read: /srv/web/x", 1),
        ({"census": census(*ONE, whole=False)}, "at least 10 entries to change", 1),
        ({"census": census(*ONE, whole=False)}, "only when all of it is read", 1),
    ],
)
def test_what_to_know_before_a_run(more: dict[str, object], note: str, method: int) -> None:
    choice = both(replace(facts(census(*ONE)), **more))[method]  # type: ignore[arg-type]
    assert any(note in one for one in choice.notes), choice.notes


@each(
    ("at_most", "seconds"),
    [(10, 6.0), (1000, 600.0), (None, None)],
)
def test_the_time_is_that_of_this_tree(at_most: int | None, seconds: float | None) -> None:
    found = replace(census(*ONE, whole=False), at_most=at_most)
    assert both(facts(found))[1].seconds == seconds


def test_who_has_the_volume_is_named() -> None:
    ledger = LedgerState(
        (WEB, DB),
        volumes=(
            Volume("/srv/web/in", "db", "own", event=2),
            Volume("/srv/x", "db", "own", event=2),
        ),
        mounts=(VolumeMount("/mnt/a", "/srv/web", "db", "shift", DB.mapping),),
    )
    one = replace(facts(census(*ONE)), users=("process 7 has it",))
    found = explained("/srv/web", replace(one, meant=meant(ASKED, ledger)))
    assert found.users == (
        "/srv/web/in has the ids of db on the disk",
        "/srv/web is mounted for db at /mnt/a",
        "process 7 has it",
    )


def test_the_effects_name_the_ids_of_this_volume() -> None:
    effects = {e.about: e for e in explained("/srv/web", facts(census(*THREE))).effects}
    assert effects["uids on disk"][1:] == ("stay: 0, 33, 1000", "become: 589824, 589857, 590824")
    assert {"backups", "quotas", "snapshots, rsync", "other containers", "later files"} < {*effects}


@each(
    ("asked", "words"),
    [
        ({"user": "33:33", "passwd": "/p"}, "--container web --user 33:33 --passwd /p"),
        ({"at": "/mnt/a b"}, "--container web --mode shift --at '/mnt/a b'"),
        (
            {"persist": True, "read_only": True, "protect": "nosuid"},
            "--container web --mode shift --protect nosuid --persist --read-only",
        ),
        (
            {"cross_mounts": True, "take": True},
            "--container web --mode shift --cross-mounts --take",
        ),
    ],
)
def test_the_command_keeps_what_was_asked(asked: dict[str, object], words: str) -> None:
    request = replace(ASKED, **asked)  # type: ignore[arg-type]
    mode: Mode = "own" if "user" in asked else "shift"
    one = replace(facts(census(*ONE)), asked=request, meant=meant(replace(request, mode=mode)))
    idmap, chown = both(one)
    assert idmap.command == f"usernsplan mount-volume /srv/web {words}"
    for option in ("--at", "--persist", "--read-only", "--protect"):
        assert option not in chown.command


# The text.


def test_a_volume_fits_on_a_screen() -> None:
    many = tuple((number, number, 1) for number in range(100, 200))
    found = replace(
        census(*many, whole=False),
        at_most=4_000_000,
        mounts=("/srv/web/in",),
        unread=("/srv/web/x",),
    )
    one = replace(
        facts(found, users=("process 4242 (podman) has it mounted at /data",)),
        against_idmap=(Obstacle("an overlay cannot, only its layers can: /a, /b", "use chown"),),
    )
    lines = list(report.text([explained("/srv/web", one)]))
    assert 20 < len(lines) <= 34
    assert all(len(line) <= 80 for line in lines), lines
    text = "\n".join(lines)
    assert "more than 100, counted in 2.0 s, at most 4000000" in text
    # 4,000,000 of 100 in two seconds, three times.
    assert "about 4000 min" in text
    assert "and 96 more" in text


def test_the_remedy_follows_its_reason_and_no_command_what_does_not_work() -> None:
    why = (Obstacle("it is a home", "add --protected"), Obstacle("it is too old"))
    lines = list(report.text([explained("/srv/web", facts(census(*ONE), against=why))]))
    at = lines.index("idmap            does not work: it is a home")
    assert [one.strip() for one in lines[at : at + 4]] == [
        "idmap            does not work: it is a home",
        "add --protected",
        "does not work: it is too old",
        "chown            does not work: it is a home",
    ]
    assert not any("usernsplan" in one for one in lines)


def test_text_of_others_moves_no_cursor_and_begins_no_line() -> None:
    one = explained("/srv/a\nzz\x1b[2J", facts(census(*ONE), users=("process 1 (\x1b[2J\nzz)",)))
    text = "\n".join(report.text([one]))
    assert "\x1b" not in text
    assert "\nzz" not in text
