"""What a failed render prints for a command line is refused by the engines themselves, before anything is started."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.command import slow
from tests.engines import recipes
from tests.engines.recipes_containerd import CTR_RUN, containerd
from tests.engines.recipes_containerd import IMAGE as CTR_IMAGE
from tests.engines.recipes_nspawn import NSPAWN, NSPAWN_ENVIRONMENT
from tests.engines.throwaway import require

if TYPE_CHECKING:
    from tests.engines.throwaway import ThrowawayHost

MADE = "/tmp/shared/made"
SCRIPT = f"touch {MADE}"


def call(host: ThrowawayHost, engine: str, stack: ExitStack) -> tuple[str, dict[str, str]]:
    """A command line, with a place for what is rendered, that makes a file once it is started; and its environment."""
    host.run("mkdir", "-m", "1777", "/tmp/shared")
    if engine == "podman":
        recipes.podman_run(host, [], ["true"])
        words = f"podman run --rm {{}} -v /tmp/shared:/tmp/shared {recipes.IMAGE} {SCRIPT}"
        return words, recipes.PODMAN_ENVIRONMENT
    if engine == "containerd":
        stack.enter_context(containerd(host))
        mount = "--mount type=bind,src=/tmp/shared,dst=/tmp/shared,options=rbind:rw"
        return f"{' '.join(CTR_RUN)} {{}} {mount} {CTR_IMAGE} refused {SCRIPT}", {}
    require("systemd-nspawn")
    recipes.busybox_rootfs(host, "/tmp/tree")
    words = f"{' '.join(NSPAWN)} --pipe --settings=no -D /tmp/tree --bind=/tmp/shared {{}} {SCRIPT}"
    return words, NSPAWN_ENVIRONMENT


@pytest.mark.parametrize("engine", ["podman", *slow("containerd"), "nspawn"])
def test_it_starts_nothing_and_flags_do(host: ThrowawayHost, engine: str) -> None:
    host.write(
        "/usr/local/bin/usernsplan",
        f'#!/bin/sh\nexec {sys.executable} -m usernsplan "$@"\n',
        mode=0o755,
    )
    host.run("usernsplan", "allocate", "--strategy", "per-container", "web")
    with ExitStack() as stack:
        words, env = call(host, engine, stack)

        def run(name: str) -> int:
            script = words.format(f"$(usernsplan render {engine} {name})")
            return host.run("sh", "-c", script, env=env, check=False).returncode

        assert run("wbe") != 0
        assert not host.exists(MADE)
        # Nor is it something else that kept it from starting.
        assert run("web") == 0
        assert host.owner(MADE) == (589824, 589824)
