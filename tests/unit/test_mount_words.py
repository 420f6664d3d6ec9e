"""How mount(8) calls mount.usernsplan."""

from __future__ import annotations

import pytest

from tests.each import each
from usernsplan.errors import UsageError
from usernsplan.formats.mount_words import MountWords, fstab_line, parse
from usernsplan.mapping import Extent, IdMap, Mapping
from usernsplan.model import VolumeMount


@each(
    ("words", "expected"),
    [
        ("/srv /mnt", MountWords("/srv", "/mnt")),
        # As mount(8) 2.38 was seen to call it for: defaults,container=web,nofail,_netdev,x-systemd.automount
        (
            "/srv /mnt -o rw,container=web,nofail,_netdev",
            MountWords("/srv", "/mnt", {"container": "web"}),
        ),
        (
            "/srv /mnt -f -v -o ro,nosuid,container=web,exec,dev",
            MountWords("/srv", "/mnt", {"container": "web"}, ("nosuid", "ro"), True, True),
        ),
        (
            "-o container=web /srv -nv /mnt -o mode=own,container-user=33:33,cross-mounts",
            MountWords(
                "/srv",
                "/mnt",
                {"container": "web", "mode": "own", "container-user": "33:33", "cross-mounts": ""},
                is_loud=True,
            ),
        ),
        ("/srv /mnt -o x-systemd.requires=a,X-mount.mkdir,,", MountWords("/srv", "/mnt")),
        ("/srv /mnt -o relatime", MountWords("/srv", "/mnt")),
        ("/srv /mnt -t usernsplan.sub", MountWords("/srv", "/mnt")),
        ("/srv /mnt -s -o strange", MountWords("/srv", "/mnt")),
    ],
)
def test_words_that_mount_gives(words: str, expected: MountWords) -> None:
    assert parse(words.split()) == expected


@each(
    ("words", "told", "hint"),
    [
        ("/srv", "name SOURCE and DEST", "mount -t usernsplan"),
        ("/srv /mnt /more", "name SOURCE and DEST", "mount -t usernsplan"),
        ("/srv /mnt -x", "-x is unknown", ""),
        ("/srv /mnt -o", "-o has no value", ""),
        ("/srv /mnt -N /proc/1/ns/mnt", "-N", ""),
        ("/srv /mnt -o contaner=web", "contaner=web is unknown", "did you mean container?"),
        ("/srv /mnt -o noatime", "noatime is unknown", "the mount that SOURCE is on"),
        ("/srv /mnt -o remount", "remount is unknown", "umount DEST first"),
        ("/srv /mnt -o container", "container is unknown", "container=VALUE"),
        ("/srv /mnt -o take=yes", "take=yes is unknown", "take without a value"),
        ("/srv /mnt -o user=33:33", "user=33:33 is unknown", "container-user="),
    ],
)
def test_words_that_cannot_be_meant(words: str, told: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(words.split())
    assert told in str(refused.value)
    assert hint in refused.value.hint


def test_a_line_of_fstab_has_all_that_was_asked_for() -> None:
    ids = IdMap((Extent(0, 589824, 1),))
    mount = VolumeMount(
        "/mnt/a b",
        "/srv/c\\d\te",
        "web",
        "own",
        Mapping(ids, ids),
        user="33:33",
        options=("nodev", "ro"),
        crosses=True,
        protect="parent",
    )
    source, at, kind, options, *numbers = fstab_line(mount).split(" ")
    assert (source, at, kind) == (r"/srv/c\134d\011e", r"/mnt/a\040b", "usernsplan")
    assert numbers == ["0", "0"]
    assert "nofail" in options.split(",")
    assert parse((source, at, "-o", options)) == MountWords(
        source,
        at,
        {
            "container": "web",
            "mode": "own",
            "container-user": "33:33",
            "protect": "parent",
            "cross-mounts": "",
        },
        ("nodev", "ro"),
    )
