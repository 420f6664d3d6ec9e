"""The options that permit what moving a volume refuses; fix-volume and remap share them."""

from __future__ import annotations

from typing import Annotated

from usernsplan.cli.options import one_of
from usernsplan.cli.words import Option
from usernsplan.fixing import FixRequest

Unmapped = Annotated[
    str,
    Option(
        metavar="refuse|keep",
        help="What to do with ids that the map lacks. Default: refuse.",
        show_default=False,
    ),
]
OutsideLinks = Annotated[
    str,
    Option(
        metavar="refuse|skip",
        help="What to do with files that have hard links elsewhere. Default: refuse.",
        show_default=False,
    ),
]
CrossMounts = Annotated[
    bool, Option("--cross-mounts", help="Also change file systems mounted in the volume.")
]
DropPower = Annotated[
    bool,
    Option(
        "--drop-power",
        help="Drop setuid, setgid and capabilities that would pass to another id.",
    ),
]
KeepPower = Annotated[
    bool,
    Option("--keep-power", help="Keep those on files proved unchanged; drop the others."),
]
Protected = Annotated[
    bool,
    Option("--protected", help="Change a home, a system folder or an engine's storage."),
]
CopyUp = Annotated[bool, Option("--copy-up", help="Let an overlay copy up the files that change.")]


def permitted(
    *,
    unmapped: str,
    outside_links: str,
    cross_mounts: bool,
    drop_power: bool,
    keep_power: bool,
    protected: bool,
    copy_up: bool,
) -> FixRequest:
    """What these options permit. Raises InvalidValueError for a value that does not exist."""
    return FixRequest(
        (),
        keep_unmapped=one_of("unmapped", unmapped, "refuse", "keep") == "keep",
        skip_outside_links=one_of("outside-links", outside_links, "refuse", "skip") == "skip",
        cross_mounts=cross_mounts,
        drop_power=drop_power,
        keep_power=keep_power,
        protected=protected,
        copy_up=copy_up,
    )
