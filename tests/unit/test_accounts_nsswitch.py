"""passwd, group and nsswitch.conf, as glibc and shadow read them."""

from __future__ import annotations

import pytest

from usernsplan.formats.accounts import Accounts, Group, User, groups, homes, users
from usernsplan.formats.nsswitch import Source, source
from usernsplan.ids import IdRange, IdSet

PASSWD = b"root:x:0:0:root:/root:/bin/bash\nweb:x:1000:1001:,,,:/:/bin/sh\ntwin:x:1000:5::/:/bin/sh\nweb:x:7:7::/:\n"


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"", []),
        (b"\n\n", []),
        (b"web:x:1000:1001::/:/bin/sh\n", [User("web", 1000, 1001)]),
        (b"web:x:1000:1001", [User("web", 1000, 1001)]),
        (b"web:x:1000\n", []),
        (b"web:x::1001::/:\n", []),
        (b"web:x:1000:::/:\n", []),
        (b"web:x:0x10:1::/:\n", []),
        (b"web:x:-1:1::/:\n", []),
        (b":x:1:1::/:\n", []),
        (b"+::::::\n", []),
        (b"w\xff:x:1:2::/:\r\n", [User("w\udcff", 1, 2)]),
        (b"broken\nweb:x:1:2::/:\n", [User("web", 1, 2)]),
    ],
)
def test_an_account_is_a_name_with_two_numbers(raw: bytes, found: list[User]) -> None:
    assert list(users(raw)) == found


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"web:x:1000:\n", [Group("web", 1000)]),
        (b"web:x:1000:a,b\ndb:x:5", [Group("web", 1000), Group("db", 5)]),
        (b"web:x\nweb:x::\n:x:5:\nweb:x:y:\n", []),
    ],
)
def test_a_group_is_a_name_with_a_number(raw: bytes, found: list[Group]) -> None:
    assert list(groups(raw)) == found


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"", []),
        (
            b"root:x:0:0:root:/root:/bin/bash\nweb:x:1000:1001:,,,:/home/web:/bin/sh\n",
            [(0, "/root"), (1000, "/home/web")],
        ),
        (b"web:x:1000:1001::/home/web", [(1000, "/home/web")]),
        (b"web:x:1000:1001\nweb:x:1000:1001:\n", []),
        (b"web:x:1000:1001:::/bin/sh\n", []),
        (b"web:x::1001::/home/web:\n", []),
        (b"web:x:y:1001::/home/web:\n", []),
        (b"+::::::\n#web:x:1000:1001::/home/web:\n", []),
        (b"twin:x:5:5::/a:\ntwin:x:5:5::/b:\n", [(5, "/a"), (5, "/b")]),
        (b"w\xff:x:1:2::/home/w\xff:/bin/sh\n", [(1, "/home/w\udcff")]),
        (b"web:x:1:2::/home/with blank:/bin/sh\n", [(1, "/home/with blank")]),
    ],
)
def test_a_home_is_told_with_the_number_of_whose_it_is(
    raw: bytes, found: list[tuple[int, str]]
) -> None:
    assert list(homes(raw)) == found


def test_the_first_of_two_equal_names_or_numbers_is_found_as_getpwnam_does() -> None:
    accounts = Accounts(tuple(users(PASSWD)), (Group("a", 5), Group("b", 5), Group("a", 6)))
    assert accounts.user("web") == accounts.user_of(1000) == User("web", 1000, 1001)
    assert accounts.group("a") == accounts.group_of(5) == Group("a", 5)
    assert (accounts.user("none"), accounts.user_of(42)) == (None, None)
    assert (accounts.group("none"), accounts.group_of(42)) == (None, None)


def test_every_uid_and_every_gid_counts_as_taken() -> None:
    accounts = Accounts(tuple(users(PASSWD)), (Group("a", 60000), Group("big", 2**40)))
    assert accounts.ids() == IdSet(
        [IdRange(0, 1), IdRange(5, 1), IdRange(7, 1), IdRange(1000, 2), IdRange(60000, 1)]
    )


def test_a_number_of_thousands_of_digits_stops_nobody() -> None:
    assert list(users(b"x:x:" + b"9" * 5000 + b":1::/:\nweb:x:1:2::/:\n"))[-1] == User("web", 1, 2)
    assert list(groups(b"x:x:" + b"9" * 5000 + b":\nweb:x:1:\n"))[-1] == Group("web", 1)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", Source(("files",), 0)),
        (b"passwd: files\n", Source(("files",), 0)),
        (b"#subid: sss\n", Source(("files",), 0)),
        (b"subids: sss\n", Source(("files",), 0)),
        (b"subid: sss\n", Source(("sss",), 1)),
        (b"# c\n\nsubid:\tfiles sss", Source(("files", "sss"), 3)),
        (b"subid:sss # subid: files\r\n", Source(("sss",), 1)),
        (b"subid: sss\nsubid: files\n", Source(("sss",), 1)),
        (b"subid: sss [NOTFOUND=return] files\n", Source(("sss", "files"), 1)),
        (b"\xff\xfe\nsubid: sss\n", Source(("sss",), 2)),
        # shadow goes on to the next line where the first names nothing, and stops at a NUL.
        (b"subid: \t\nsubid: sss\n", Source(("sss",), 2)),
        (b"subid:\n", Source(("files",), 0)),
        (b"subid: sss\0x files\n", Source(("sss",), 1)),
    ],
)
def test_the_services_of_a_database_are_read_in_order_with_their_line(
    raw: bytes, expected: Source
) -> None:
    assert source(raw, "subid") == expected


@pytest.mark.parametrize(
    "action",
    [
        "[NOTFOUND=return]",
        "[!UNAVAIL=return]",
        "[SUCCESS=return NOTFOUND=continue]",
        "[ NOTFOUND = return ]",
    ],
)
def test_what_stands_in_brackets_is_no_service(action: str) -> None:
    assert source(f"passwd: files {action} sss\n".encode(), "passwd").services == ("files", "sss")


@pytest.mark.parametrize(
    ("raw", "library"),
    [
        (b"", ""),
        (b"subid: files sss\n", ""),
        (b"subid: sss files\n", "libsubid_sss.so"),
        (b"subid: " + b"x" * 50, "libsubid_" + "x" * 50 + ".so"),
        # shadow (lib/nss.c) takes no longer name, and counts bytes.
        (b"subid: " + b"x" * 51, ""),
        (b"subid: " + "\u00fc".encode() * 26, ""),
    ],
)
def test_the_first_service_names_the_library_that_shadow_loads(raw: bytes, library: str) -> None:
    assert source(raw, "subid").library == library


def test_the_files_are_read_unless_the_library_of_the_service_is_there() -> None:
    service = source(b"subid: sss\n", "subid")
    assert service.reads_files
    assert service.lacks_plugin
    installed = service._replace(plugin="/usr/lib/libsubid_sss.so")
    assert not installed.reads_files
    assert not installed.lacks_plugin
    files = source(b"subid: files\n", "subid")
    assert files.reads_files
    assert not files.lacks_plugin


@pytest.mark.parametrize(
    ("raw", "directory"),
    [
        (b"", ""),
        (b"passwd: files systemd\n", ""),
        (b"passwd: compat systemd\n", ""),
        (b"passwd: files sss systemd\n", "sss"),
        (b"passwd: winbind ldap\n", "winbind"),
        # A service that nobody knows may have accounts that it does not list.
        (b"passwd: files [NOTFOUND=continue] own\n", "own"),
    ],
)
def test_a_service_that_need_not_list_its_accounts_is_named(raw: bytes, directory: str) -> None:
    assert source(raw, "passwd").directory == directory
