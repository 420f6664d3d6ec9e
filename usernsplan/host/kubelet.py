"""The configuration of the kubelet below a root, and whether getsubids is installed there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from usernsplan.errors import UsernsplanError
from usernsplan.host import files, programs
from usernsplan.layout import KUBELET_CONFIG, KUBELET_DROPINS
from usernsplan.model import Kubelet

if TYPE_CHECKING:
    from usernsplan.layout import Layout


def read(layout: Layout) -> Kubelet:
    """The kubelet's configuration below this root. Raises nothing: ``problem`` has the error."""
    found = Kubelet(has_getsubids=bool(programs.installed(layout, "getsubids")))
    try:
        # As the kubelet does with --config-dir: by name, and a later file replaces an earlier one.
        for path in (KUBELET_CONFIG, *sorted(_dropins(layout))):
            found = _with(found, layout, path)
    except UsernsplanError as error:
        return found._replace(problem=str(error), hint=error.hint)
    return found


def _with(found: Kubelet, layout: Layout, path: str) -> Kubelet:
    """What is known so far, with what one more file sets."""
    raw = files.read(layout, path, follow=True)
    if raw is None:
        return found
    # Imported here because YAML takes a fifth of the start-up time, and few hosts have a kubelet.
    from usernsplan.formats import kubelet_config  # noqa: PLC0415

    config = kubelet_config.parse(raw, layout.path(path))
    if config.ids_per_pod:
        place = f"{layout.path(path)}:{config.line}"
        found = found._replace(ids_per_pod=config.ids_per_pod, place=place)
    if config.max_pods:
        found = found._replace(max_pods=config.max_pods)
    return found


def _dropins(layout: Layout) -> list[str]:
    with files.explained(layout, KUBELET_DROPINS):
        try:
            folder = files.opened_folder(layout, KUBELET_DROPINS)
        except (FileNotFoundError, NotADirectoryError):
            return []
        try:
            names = os.listdir(folder)
        finally:
            os.close(folder)
    return [f"{KUBELET_DROPINS}/{name}" for name in names if name.endswith(".conf")]
