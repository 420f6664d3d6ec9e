"""usernsplan as a package of a throw-away host: in a virtual environment that does not need our own.

It is root's with all that it needs, wherever the checkout lies and whoever may write there.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from typing import TYPE_CHECKING

from tests.engines.throwaway import REPOSITORY
from usernsplan.volume.compiled import PURE

if TYPE_CHECKING:
    import subprocess

    from tests.engines.throwaway import ThrowawayHost

HERE = "/opt/usernsplan"
# What the environment is made of, for a machine that shows the host only in part.
PARTS = (sys.base_prefix,)


def install(host: ThrowawayHost, place: str = HERE) -> None:
    """Make a virtual environment with this package, and the programs that pyproject.toml names.

    The package is in its folder src, and what it needs in deps.
    """
    python = os.path.realpath(sys.executable)
    host.run(python, "-m", "venv", "--without-pip", place)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    host.run("mkdir", f"{place}/src", f"{place}/deps")
    host.run("cp", "-r", str(REPOSITORY / "usernsplan"), f"{place}/src")
    if os.environ.get(PURE) == "1":
        # What a service starts has no environment that would say so.
        host.run("rm", "-f", f"{place}/src/usernsplan/volume/_step.abi3.so")
    host.run("mount", "--bind", sysconfig.get_path("purelib"), f"{place}/deps")
    folders = f"{place}/src\n{place}/deps\n"
    host.write(f"{place}/lib/{version}/site-packages/usernsplan.pth", folders)
    scripts = (REPOSITORY / "pyproject.toml").read_text().partition("[project.scripts]\n")[2]
    for name, module, function in re.findall(
        r'^"?([\w.]+)"? = "(.+):(.+)"$', scripts, re.MULTILINE
    ):
        text = f"#!{place}/bin/python\nfrom {module} import {function}\n{function}()\n"
        host.write(f"{place}/bin/{name}", text, mode=0o755)


def installed(
    host: ThrowawayHost, *words: str, place: str = HERE, status: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run it as it is installed, with no variable that says where it is."""
    program = ("env", "-u", "PYTHONPATH", f"{place}/bin/usernsplan")
    done = host.run(*program, *words, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
