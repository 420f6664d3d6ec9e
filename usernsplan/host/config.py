"""The defaults of a host, from config.yaml. A command that finds none does not import YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from usernsplan.errors import placed
from usernsplan.host import plan_file
from usernsplan.layout import CONFIG_FILE, STDIN
from usernsplan.strategies import named

if TYPE_CHECKING:
    from usernsplan.formats.config import Config
    from usernsplan.layout import Layout


def load(layout: Layout, path: str | None) -> Config | None:
    """Read the named file ("-": standard input) or the host's; None if the host has none.

    Raises InvalidFileError for wrong content, InvalidValueError for options of another strategy,
    and RefusedError as ``plan_file.find_config`` does.
    """
    if path is None:
        found = plan_file.find_config(layout)
        place, raw = layout.path(CONFIG_FILE), found.raw if found else None
    else:
        place, raw = STDIN if path == "-" else path, plan_file.named(path)
    if raw is None:
        return None

    from usernsplan.formats.config import parse  # noqa: PLC0415 - loads YAML

    config = parse(raw, place)
    if config.strategy:
        with placed(config.places):
            named(config.strategy, config.options)
    return config
