"""Files of a rendering in the places where an engine looks for them: what may be written there. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from usernsplan.errors import InvalidValueError, RefusedError
from usernsplan.formats import storage_conf, subid
from usernsplan.model import Change

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from usernsplan.engines.base import File, Rendered
    from usernsplan.layout import Layout


def placed(
    rendered: Rendered, now: Mapping[str, bytes | None], layout: Layout, *, replace: bool
) -> tuple[Change, ...]:
    """The changes that bring files to their places, from what stands there ``now`` (by path; None: no file).

    Raises InvalidValueError where there is none to bring, and RefusedError where one says something else and neither
    ``replace`` is said nor all of it kept.
    """
    own = [file for file in rendered.files if file.into != "lines"]
    if not own:
        raise InvalidValueError(
            "--out: this has no place of its own", hint="without --out it is printed"
        )
    changes = []
    for file in own:
        before = now[file.path]
        after, is_kept = _after(file, before, layout)
        if before not in {None, after} and not (replace or is_kept):
            raise RefusedError(
                f"{layout.path(file.path)} is there already and says something else; nothing was written",
                hint="say --replace-files to replace it, or compare: without --out it is printed",
            )
        if before != after:
            changes.append(Change(file.path, before, after))
    return tuple(changes)


def lacking(rendered: Rendered, now: Mapping[str, bytes | None], layout: Layout) -> Iterator[str]:
    """What the engine depends on and subuid and subgid, as they are ``now``, do not have in this order."""
    for file in rendered.files:
        if file.into == "lines":
            wanted = file.content.encode().splitlines(keepends=True)
            have = subid.parse(now[file.path]).by_owner().get(file.content.partition(":")[0], [])
            if (
                list(
                    dict.fromkeys(raw for line in have if (raw := subid.ended(line.raw)) in wanted)
                )
                != wanted
            ):
                lines = ", ".join(file.content.split())
                grants = layout.inline("allocate …")
                yield f"{layout.path(file.path)} lacks {lines} (in this order): {grants} grants lines there"


def _after(file: File, before: bytes | None, layout: Layout) -> tuple[bytes, bool]:
    """What the file is to be, and whether that keeps all that it says."""
    content = file.content.encode()
    if file.into != "options":
        return content, _loses_nothing(before or b"", content)
    if before is None:
        raise RefusedError(
            f"{layout.path(file.path)} does not exist, and Podman wants it whole: nothing was written",
            hint="make it first, with driver, runroot and graphroot: containers-storage.conf(5)",
        )
    options = dict(line.partition(" = ")[::2] for line in file.content.splitlines())
    after = storage_conf.with_options(before, options, layout.path(file.path))
    return after, not subid.added_lines(after, before)


def _loses_nothing(before: bytes, after: bytes) -> bool:
    """Tell whether a JSON object says all that it said before, and more."""
    try:
        old, new = json.loads(before), json.loads(after)
    except ValueError:
        return False
    return isinstance(old, dict) and isinstance(new, dict) and new == {**new, **old}
