"""Which files of a rendering may be written to the places where an engine reads them. Pure."""

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
    """The changes that write the files; ``now`` has the bytes there by path, or None for no file.

    Raises InvalidValueError if the rendering has no file, and RefusedError for a file that would
    lose something, unless ``replace`` permits it.
    """
    own = [file for file in rendered.files if file.into != "lines"]
    if not own:
        raise InvalidValueError(
            "--out: this engine has no file to write", hint="without --out the text is printed"
        )

    changes = []
    for file in own:
        before = now[file.path]
        after, is_kept = _after(file, before, layout)
        if before not in {None, after} and not (replace or is_kept):
            raise RefusedError(
                f"{layout.path(file.path)} exists and has other content; nothing was written",
                hint="use --replace-files to replace it; without --out the text is printed",
            )
        if before != after:
            changes.append(Change(file.path, before, after))
    return tuple(changes)


def lacking(rendered: Rendered, now: Mapping[str, bytes | None], layout: Layout) -> Iterator[str]:
    """Notes on lines that the engine needs in this order, and subuid and subgid do not have."""
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
                yield (
                    f"{layout.path(file.path)} lacks {lines} (in this order); "
                    f"{grants} grants lines there"
                )


def _after(file: File, before: bytes | None, layout: Layout) -> tuple[bytes, bool]:
    """The new content of the file, and whether it keeps everything that the file has."""
    content = file.content.encode()
    if file.into != "options":
        return content, _loses_nothing(before or b"", content)
    if before is None:
        raise RefusedError(
            f"{layout.path(file.path)} does not exist, but Podman needs it; nothing was written",
            hint="make it first, with driver, runroot and graphroot: containers-storage.conf(5)",
        )

    options = dict(line.partition(" = ")[::2] for line in file.content.splitlines())
    after = storage_conf.with_options(before, options, layout.path(file.path))
    return after, not subid.added_lines(after, before)


def _loses_nothing(before: bytes, after: bytes) -> bool:
    """Whether a JSON object still has every key and value that it had before."""
    try:
        old, new = json.loads(before), json.loads(after)
    except ValueError:
        return False
    return isinstance(old, dict) and isinstance(new, dict) and new == {**new, **old}
