"""How much CPU each command takes from start to end, beside a bare interpreter; and what libraries take to import.

Run it in a venv into which usernsplan is installed, with its bytecode compiled: that is what users start. The host is
a small one below a root of its own. Seconds are those of the processor: others on the machine disturb them less.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median

RUNS = 15
# What each command is asked on the small host, with the options that are needed to change nothing of it.
COMMANDS = (
    *(
        "list",
        "list --json",
        "show web",
        "history",
        "volumes",
        "map",
        "capacity",
        "whois 589857",
        "check",
    ),
    *("find-owned web /srv", "render podman web", "render --list"),
    *(
        "allocate web db",
        "allocate new --dry-run",
        "adopt --all --dry-run",
        "release web --dry-run",
    ),
    *("rename web www --dry-run", "remap web --size 131072 --dry-run"),
    *("plan", "plan --schema", "apply --yes", "export"),
    *(
        "fix-volume /srv/web --container web",
        "fix-volume /srv/web --container web --dry-run",
        "undo --last --dry-run",
    ),
    *("mount-volume /srv/web --container web --dry-run", f"inspect {os.getpid()}"),
    *("--help", "--version", "allocate --help"),
)
# These look at the machine itself, or at nothing.
_NO_ROOT = ("inspect", "--help", "--version")
_PLAN = "strategy: per-container\nengines: [podman]\ncontainers: [web, db]\n"


def main() -> None:
    """Print the figures, as rows of a table in Markdown: what, milliseconds, and how many bare interpreters."""
    program = str(Path(sys.executable).parent / "usernsplan")
    with tempfile.TemporaryDirectory() as root:
        lines = {"python -c pass": [sys.executable, "-c", "pass"]}
        for words in COMMANDS:
            rooted = (
                [] if words.endswith(_NO_ROOT) or words.startswith("inspect") else ["--root", root]
            )
            lines[f"usernsplan {words}"] = [program, *words.split(), *rooted]
        for library in ("typer", "sqlite3", "json", "yaml", "rich.progress"):
            lines[f"import {library}"] = [sys.executable, "-c", f"import {library}"]
        _prepare(program, root)

        taken: dict[str, list[float]] = {name: [] for name in lines}
        # In turn: what disturbs the machine for a while disturbs all alike.
        for _ in range(RUNS):
            for name, line in lines.items():
                taken[name].append(cpu(line))
        bare = median(taken["python -c pass"])
        print("| command | CPU, ms | times a bare interpreter |\n|---|---|---|")
        for name, several in taken.items():
            print(f"| `{name}` | {median(several) * 1000:.0f} | {median(several) / bare:.1f} |")


def cpu(words: list[str]) -> float:
    """Seconds of the processor that a command and its children take. A failing command is an error."""
    null = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    # What Python is told by the environment would count in both, and differ from what users start.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    pid = os.posix_spawn(words[0], words, env, file_actions=null)
    _, status, usage = os.wait4(pid, 0)
    # 1: check has findings.
    if os.waitstatus_to_exitcode(status) not in {0, 1}:
        raise SystemExit(f"{words} failed")
    return usage.ru_utime + usage.ru_stime


def _prepare(program: str, root: str) -> None:
    volume = Path(root, "srv/web")
    volume.mkdir(parents=True)
    Path(root, "etc").mkdir()
    for number in range(10):
        (volume / f"file{number}").touch()
    cpu([program, "allocate", "--strategy", "per-container", "web", "db", "--root", root])
    if os.geteuid() == 0:
        cpu([program, "fix-volume", "/srv/web", "--container", "web", "--root", root])
    Path(root, "etc/usernsplan.yaml").write_text(_PLAN)


if __name__ == "__main__":
    if not shutil.which("usernsplan", path=os.path.dirname(sys.executable)):
        sys.exit("install usernsplan into this venv first: pip install .")
    main()
