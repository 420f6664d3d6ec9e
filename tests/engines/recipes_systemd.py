"""How systemd reads unit files in a throw-away host: what it objects to, what it understands, and what it then does."""

from __future__ import annotations

import itertools
import re
import subprocess
from typing import TYPE_CHECKING

from tests.engines.recipes_nspawn import NSPAWN, NSPAWN_ENVIRONMENT
from tests.engines.throwaway import CommandFailed, ThrowawayHost, require

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

UNITS = "/etc/systemd/system"

# A line of output about a place in a unit file.
PLACE = re.compile(r"(/[^:]+):\d+: ")

CAPABILITY_KEYS = ("CapabilityBoundingSet", "AmbientCapabilities")

_numbers = itertools.count(1)

# In test mode systemd reads the units as it would at boot, prints them and ends. It refuses to do so as root, wants a
# /run to write to all the same, and as nobody can change nothing else. Arguments: the unit.
UNDERSTAND = """
mount -t tmpfs -o mode=777 tmpfs /run
exec setpriv --reuid 65534 --regid 65534 --clear-groups systemd --test --system --no-pager "--unit=$1"
"""
TEST_ENVIRONMENT = {
    "SYSTEMD_LOG_LEVEL": "warning",
    "SYSTEMD_LOG_TARGET": "console",
    "XDG_RUNTIME_DIR": "/run",
}

# A machine that has the host's programs and users, and no units of its own. Arguments: the tree.
MAKE_TREE = """
umask 022
mkdir "$1"
cd "$1"
mkdir -p usr var srv tmp etc/alternatives
ln -s usr/bin usr/sbin usr/lib .
ln -s ../run var/run
[ ! -e /usr/lib64 ] || ln -s usr/lib64 .
echo ID=throwaway >etc/os-release
touch etc/passwd etc/group etc/machine-id
"""
SHOWN = ("/usr", "/etc/alternatives", "/etc/passwd", "/etc/group")

# Comes last of the drop-ins. Without its default dependencies the unit is all that is started, and with it ends the
# machine; the exit status of nspawn is then that of the service. Restart=no, because a oneshot service refuses always.
# The output goes to files that systemd opens before it becomes the user of the unit and changes what that user sees.
RUN_DROP_IN = """
[Unit]
DefaultDependencies=no
SuccessAction=exit-force
FailureAction=exit-force

[Service]
Type=oneshot
Restart=no
StandardOutput=truncate:/stdout
StandardError=truncate:/stderr
ExecStart=
ExecStart=/bin/sh /throwaway.sh
"""


def verify(host: ThrowawayHost, files: Mapping[str, str], unit: str) -> None:
    """Write unit files and drop-ins, by their absolute path, and let systemd object to them; any objection fails.

    systemd-analyze verify ends with status 0 where it ignores a line, so what it says is what counts. Two things it
    does not say: it skips an unknown capability without a word, which is therefore asked about apart; and it does not
    know whether the line it accepts means what was meant (see understood).
    """
    require("systemd-analyze")
    _write(host, files)
    result = host.run("systemd-analyze", "verify", "--man=no", unit, check=False)
    if result.returncode != 0 or _objections(result, files):
        raise CommandFailed(f"objections to {unit}", result)
    if capabilities := _capabilities(files.values()):
        host.run("systemd-analyze", "capability", *capabilities)


def understood(host: ThrowawayHost, files: Mapping[str, str], unit: str, key: str) -> list[str]:
    """Return how systemd prints a setting that it has read from these files, one item for each value it has.

    A key that may be given several times has a line for each; for BindPaths it is source, target and either rbind or
    norbind, with a colon between. Not every setting is printed: NoNewPrivileges is not.
    """
    require("systemd", "setpriv", "unshare")
    _write(host, files)
    result = host.run(
        "unshare", "--mount", "sh", "-euc", UNDERSTAND, "sh", unit, env=TEST_ENVIRONMENT
    )
    _, _, after = result.stdout.partition(f"\t-> Unit {unit}:\n")
    mine, _, _ = after.partition("\t-> Unit ")
    if "\t\tUnit Load State: loaded\n" not in mine:
        raise CommandFailed(f"{unit} was not loaded", result)
    start = f"\t\t{key}: "
    return [line.removeprefix(start) for line in mine.splitlines() if line.startswith(start)]


def service_run(
    host: ThrowawayHost,
    files: Mapping[str, str],
    unit: str,
    script: str,
    binds: Sequence[str] = (),
) -> str:
    """Start a service for real, with a shell script in place of its ExecStart, and return what the script prints.

    A systemd is booted for it, in a container without a user namespace. It knows only the unit files given and those of
    the distribution, but has the programs of the host, its users, and the folders in ``binds``. In a failure the status
    is that of the service: 217 when it could not become its user, 226 when it could not see its files as it should.
    """
    require("systemd", "systemd-nspawn")
    number = next(_numbers)
    tree = f"/tmp/throwaway-systemd-{number}"
    host.run("sh", "-euc", MAKE_TREE, "sh", tree)
    _write(host, files, tree)
    _write(
        host, {f"{UNITS}/{unit}.d/zzz-throwaway.conf": RUN_DROP_IN, "/throwaway.sh": script}, tree
    )
    shown = [
        *(f"--bind-ro={path}" for path in SHOWN),
        *(f"--bind={_escaped(path)}" for path in binds),
    ]
    command = [
        *NSPAWN,
        "--settings=no",
        f"--directory={tree}",
        f"--machine=throwaway{number}",
        *shown,
        "--boot",
        "--",
    ]
    manager = [f"--unit={unit}", "--log-target=console", "--log-level=notice", "--show-status=no"]
    boot = host.run(*command, *manager, check=False, env=NSPAWN_ENVIRONMENT)
    stdout, stderr = (_text(host, f"{tree}/{name}") for name in ("stdout", "stderr"))
    if boot.returncode != 0:
        said = f"{stderr}{boot.stdout}{boot.stderr}"
        failed = subprocess.CompletedProcess(boot.args, boot.returncode, stdout, said)
        raise CommandFailed(f"exit status {boot.returncode} of {unit}", failed)
    return stdout


# How the systemd of a machine speaks.
MANAGER = ("--log-target=console", "--log-level=notice", "--show-status=no")

# Stands in for an engine that starts at boot: what is ordered before the engine has to be done when it runs. It ends the
# machine, with its own status.
ENGINE = """
[Unit]
SuccessAction=exit-force
FailureAction=exit-force

[Service]
Type=oneshot
Environment=HOME=/root
StandardOutput=truncate:/stdout
StandardError=truncate:/stderr
ExecStart=/bin/sh -eu /throwaway.sh
"""


class Machine:
    """A machine in a tree of its own, which a whole systemd boots again and again from the same root.

    It is a container without a user namespace, so it may mount as a host may. ``parts`` of the host are shown to it, to
    be read only, besides its programs; ``others`` are files that it has in place of the host's.
    """

    def __init__(
        self,
        host: ThrowawayHost,
        parts: Sequence[str] = (),
        others: Mapping[str, str] | None = None,
    ) -> None:
        require("systemd", "systemd-nspawn")
        number = next(_numbers)
        self._host = host
        self._binds = [_escaped(part) for part in (*SHOWN, *parts)]
        self._binds += [":".join(map(_escaped, pair[::-1])) for pair in (others or {}).items()]
        self.name, self.tree = f"throwaway{number}", f"/tmp/throwaway-machine-{number}"
        host.run("sh", "-euc", MAKE_TREE, "sh", self.tree)
        self.write(f"{UNITS}/docker.service", ENGINE)
        wants = f"{self.tree}{UNITS}/multi-user.target.wants"
        host.run("install", "-d", wants)
        host.run("ln", "-s", f"{UNITS}/docker.service", wants)

    def write(self, path: str, text: str) -> None:
        """Write a file of the machine, while it is off."""
        _write(self._host, {path: text}, self.tree)

    def boot(
        self, script: str, env: Mapping[str, str] | None = None, flags: Sequence[str] = ()
    ) -> str:
        """Boot it, let its engine run a shell script, and return what that printed; then it is off again.

        ``flags`` are more of nspawn's.
        """
        self.prepare(script, env)
        boot = self._host.run(
            *NSPAWN,
            "--settings=no",
            f"--directory={self.tree}",
            f"--machine={self.name}",
            *(f"--bind-ro={bind}" for bind in self._binds),
            *flags,
            *("--boot", "--", *MANAGER),
            check=False,
            env=NSPAWN_ENVIRONMENT,
        )
        return self.ended(boot)

    def prepare(self, script: str, env: Mapping[str, str] | None = None) -> None:
        """Write what its engine runs, while it is off."""
        words = " ".join(f'"{name}={value}"' for name, value in (env or {}).items())
        self.write(
            f"{UNITS}/docker.service.d/environment.conf", f"[Service]\nEnvironment={words}\n"
        )
        self.write("/throwaway.sh", script)

    def ended(self, boot: subprocess.CompletedProcess[str]) -> str:
        """Return what the script printed, once whoever booted the machine has ended."""
        stdout, stderr = (_text(self._host, f"{self.tree}/{name}") for name in ("stdout", "stderr"))
        if boot.returncode != 0:
            said = f"{stderr}{boot.stdout}{boot.stderr}"
            failed = subprocess.CompletedProcess(boot.args, boot.returncode, stdout, said)
            raise CommandFailed(f"exit status {boot.returncode} of the machine", failed)
        return stdout


def _write(host: ThrowawayHost, files: Mapping[str, str], below: str = "") -> None:
    for path, text in files.items():
        host.write(f"{below}{path}", text)


def _escaped(path: str) -> str:
    """Write a path for nspawn's --bind, where a colon begins the next part."""
    return path.replace("\\", "\\\\").replace(":", "\\:")


def _text(host: ThrowawayHost, path: str) -> str:
    """Read what a service wrote, if it came so far."""
    return host.read(path).decode(errors="replace") if host.exists(path) else ""


def _objections(result: subprocess.CompletedProcess[str], files: Mapping[str, str]) -> list[str]:
    """Return what was said, but for the places in unit files that are not ours: the machine has some of its own."""
    places = ((line, PLACE.match(line)) for line in f"{result.stdout}{result.stderr}".splitlines())
    return [line for line, place in places if line and (place is None or place[1] in files)]


def _capabilities(texts: Iterable[str]) -> list[str]:
    settings = (line.partition("=") for text in texts for line in text.splitlines())
    words = (
        value.strip().removeprefix("~").split()
        for key, _, value in settings
        if key.strip() in CAPABILITY_KEYS
    )
    return [word for value in words for word in value]
