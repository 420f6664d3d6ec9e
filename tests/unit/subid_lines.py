"""Lines of subuid, and what each reader takes them for."""

from __future__ import annotations

from usernsplan.formats.readers import READERS, Entry

FAILS = "fails"
# What a reader takes a line for: a range of an owner, nothing, or a reason to give up.
Take = Entry | str | None
WEB = ("web", 5, 70000)
# The largest number of Go in 64 bits, and what is left of it when Docker lays it.
MOST = 2**63 - 1
LAID = 2**32 - 1


AS_BEFORE = "as before"


def row(raw: bytes, *takes: Take, new: Take = AS_BEFORE) -> tuple[bytes, tuple[Take, ...]]:
    """A line, and what shadow, Docker, Podman and Incus take it for; ``new`` is for shadow 4.20."""
    old, *others = takes
    takes = (old, old if new == AS_BEFORE else new, *others)
    assert len(takes) == len(READERS)
    return raw, takes


LINES: list[tuple[bytes, tuple[Take, ...]]] = [
    # Plain: all agree.
    row(b"web:5:70000\n", WEB, WEB, WEB, WEB),
    row(b"web:5:70000", WEB, WEB, WEB, WEB),
    *(
        row(b"%s:5:70000\n" % o, *[(o.decode(), 5, 70000)] * 4)
        for o in (b"1234", b"WEB", b"CORP\\web$", b"m\xc3\xbcller")
    ),
    row(b"\xff:5:70000\n", *[("\udcff", 5, 70000)] * 4),
    row(b"web:0:0\n", *[("web", 0, 0)] * 4),
    row(b"web:4294967295:4294967295\n", *[("web", 4294967295, 4294967295)] * 4, new=None),
    row(b"web\x1c:5:70000\n", *[("web\x1c", 5, 70000)] * 4),
    row(b"web :5:70000\n", *[("web ", 5, 70000)] * 4),
    row(b":5:70000\n", None, *[("", 5, 70000)] * 3),
    # Nothing to anybody.
    *(
        row(raw, None, None, None, None)
        for raw in (b"", b"\n", b"\r\n", b"#\n", b"# a:b:c", b"#web:5:70000\n", b"#\xff")
    ),
    # A blank before them, and incus gives up.
    *(
        row(raw, None, None, None, FAILS)
        for raw in (b" \n", b"\t\r\n", b"  # web:5:70000\n", b"\x0b#\n")
    ),
    # Comments behind.
    row(b"web:5:70000 # c\n", None, ("web", 5, 0), FAILS, None),
    row(b"web:5:70000# c\n", None, ("web", 5, 0), FAILS, WEB),
    row(b"web:5 # c:70000\n", None, ("web", 0, 70000), FAILS, FAILS),
    row(b"we#b:5:70000\n", *[("we#b", 5, 70000)] * 3, FAILS),
    # Blanks.
    row(b" web:5:70000\n", (" web", 5, 70000), WEB, WEB, (" web", 5, 70000)),
    row(b"\tweb:5:70000\n", ("\tweb", 5, 70000), WEB, WEB, ("\tweb", 5, 70000)),
    row(b"\xc2\xa0web:5:70000\n", ("\xa0web", 5, 70000), WEB, WEB, ("\xa0web", 5, 70000)),
    row(b"\x1cweb:5:70000\n", *[("\x1cweb", 5, 70000)] * 4),
    row(b"\x85web:5:70000\n", *[("\udc85web", 5, 70000)] * 4),
    row(b"web: 5:70000\n", WEB, ("web", 0, 70000), FAILS, None),
    row(b"web:5:\t70000\n", WEB, ("web", 5, 0), FAILS, None),
    row(b"web:5 :70000\n", None, ("web", 0, 70000), FAILS, None),
    row(b"web:5:70000 \n", None, WEB, WEB, None),
    row(b"web:5:70000\t\n", None, WEB, WEB, None),
    row(b"web:5:70000\r\n", None, WEB, WEB, WEB),
    row(b"web:5:70000\r\r\n", None, WEB, WEB, None),
    # Numbers.
    row(b"web:0x5:70000\n", WEB, ("web", 0, 70000), FAILS, None),
    row(b"web:5:0X11170\n", WEB, ("web", 5, 0), FAILS, None),
    row(b"web:010:70000\n", ("web", 8, 70000), *[("web", 10, 70000)] * 3),
    row(b"web:08:70000\n", None, *[("web", 8, 70000)] * 3),
    row(b"web:00:70000\n", *[("web", 0, 70000)] * 4),
    row(b"web:0x:70000\n", None, ("web", 0, 70000), FAILS, None),
    row(b"web:+5:70000\n", WEB, WEB, WEB, None),
    row(
        b"web:-5:70000\n",
        ("web", 2**64 - 5, 70000),
        ("web", 2**32 - 5, 70000),
        ("web", -5, 70000),
        None,
        new=None,
    ),
    row(
        b"web:5:-7\n", ("web", 5, 2**64 - 7), ("web", 5, 2**32 - 7), ("web", 5, -7), None, new=None
    ),
    row(b"web:-0:70000\n", *[("web", 0, 70000)] * 3, None),
    row(b"web:x:70000\n", None, ("web", 0, 70000), FAILS, None),
    row(b"web:5:x\n", None, ("web", 5, 0), FAILS, None),
    row(b"web:1e3:70000\n", None, ("web", 0, 70000), FAILS, None),
    row(b"web:1_0:70000\n", None, ("web", 0, 70000), FAILS, None),
    row(b"web:\xd9\xa1:70000\n", None, ("web", 0, 70000), FAILS, None),
    row(
        b"web:4294967296:70000\n",
        ("web", 2**32, 70000),
        ("web", 0, 70000),
        ("web", 2**32, 70000),
        None,
        new=None,
    ),
    row(
        b"web:5:4294967301\n",
        ("web", 5, 2**32 + 5),
        ("web", 5, 5),
        ("web", 5, 2**32 + 5),
        None,
        new=None,
    ),
    row(
        b"web:9223372036854775807:1\n",
        ("web", MOST, 1),
        ("web", LAID, 1),
        ("web", MOST, 1),
        None,
        new=None,
    ),
    row(
        b"web:9223372036854775808:1\n",
        ("web", MOST + 1, 1),
        ("web", LAID, 1),
        FAILS,
        None,
        new=None,
    ),
    row(
        b"web:18446744073709551615:1\n",
        ("web", 2**64 - 1, 1),
        ("web", LAID, 1),
        FAILS,
        None,
        new=None,
    ),
    row(b"web:18446744073709551616:1\n", None, ("web", LAID, 1), FAILS, None),
    row(b"web:18446744073709551616x:1\n", None, ("web", LAID, 1), FAILS, None),
    row(b"web:9223372036854775808x:1\n", None, ("web", 0, 1), FAILS, None),
    row(b"web:-9223372036854775809:1\n", ("web", MOST, 1), ("web", 0, 1), FAILS, None, new=None),
    row(b"web:" + b"9" * 500 + b":1\n", None, ("web", LAID, 1), FAILS, None),
    row(b"web:" + b"0" * 500 + b"5:70000\n", *[WEB] * 4),
    row(b"web:" + b"0" * 500 + b"9:70000\n", None, *[("web", 9, 70000)] * 3),
    row(b"web:" + b"0" * 65000 + b"x:70000\n", None, ("web", 0, 70000), FAILS, None),
    row(b"web:0x000:70000\n", *[("web", 0, 70000)] * 2, FAILS, None),
    # Fields.
    row(b"web\n", None, ("web", 0, 0), FAILS, FAILS),
    row(b"web:5\n", None, ("web", 5, 0), FAILS, FAILS),
    row(b"web:5:\n", None, ("web", 5, 0), FAILS, None),
    row(b"web::70000\n", None, ("web", 0, 70000), FAILS, None),
    row(b"::\n", None, ("", 0, 0), FAILS, None),
    # The last ids of id_t.
    row(b"web:4294967295:1\n", *[("web", 4294967295, 1)] * 4),
    row(b"web:4294967295:2\n", *[("web", 4294967295, 2)] * 4, new=None),
    row(b"web:5:4294967291\n", *[("web", 5, 4294967291)] * 4),
    row(b"web:5:4294967292\n", *[("web", 5, 4294967292)] * 4, new=None),
    row(b"web:0:4294967295\n", *[("web", 0, 4294967295)] * 4),
    row(b"web:5:70000:\n", WEB, WEB, FAILS, WEB, new=None),
    row(b"web:5:70000:9:x\n", WEB, WEB, FAILS, WEB, new=None),
    row(b"web:5:70000: # c\n", WEB, WEB, FAILS, WEB, new=None),
    # To shadow a line for NIS.
    row(b"+web:5:70000\n", None, *[("+web", 5, 70000)] * 3),
    row(b"-web:5:70000\n", None, *[("-web", 5, 70000)] * 3),
    # NUL.
    row(b"web:5:70000\0\n", None, ("web", 5, 0), FAILS, None, new=FAILS),
    row(b"web\0:5:70000\n", None, *[("web\0", 5, 70000)] * 3, new=FAILS),
    # Long lines.
    *(row(b"w" * n + b":5:70000\n", *[("w" * n, 5, 70000)] * 4) for n in (1013, 1015)),
    *(row(b"w" * n + b":5:70000\n", None, *[("w" * n, 5, 70000)] * 3) for n in (1016, 5000, 65527)),
    row(b"\xc3\xbc" * 508 + b":5:70000\n", None, *[("\xfc" * 508, 5, 70000)] * 3),
    row(b"w" * 65528 + b":5:70000\n", None, FAILS, FAILS, FAILS),
]


def short(value: object) -> str:
    return repr(value)[:40] if isinstance(value, bytes) else ""


def of_length(length: int) -> bytes:
    """Make a line of so many bytes, its line end not counted, that grants 7 ids from 5."""
    return b"w" * (length - 4) + b":5:7\n"
