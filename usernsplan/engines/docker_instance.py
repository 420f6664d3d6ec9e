"""A Docker daemon of its own for one range, since Docker maps by the daemon and not by the container.

Several daemons run on one host where each has its own configuration file, data-root, exec-root, pidfile and socket:
dockerd(8). Checked with 20.10: with the same bridge they hand out the same addresses; a containerd that runs on the
host is used by all of them, in the same namespace if nothing else is said.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar, Literal

from usernsplan.engines.base import File, RenderContext, Rendered, Verdict, no, subid_files
from usernsplan.engines.docker import can_lay, needs, run_with

if TYPE_CHECKING:
    from usernsplan.model import Allocation

# sun_path of unix(7) holds 108 bytes with the NUL.
_LONGEST_SOCKET = 107

_UNIT = """\
[Unit]
Description=Docker for the ids of {name}
After=network-online.target containerd.service
Wants=network-online.target

[Service]
Type=notify
ExecStart=dockerd --config-file {config}
ExecReload=/bin/kill -s HUP $MAINPID
TimeoutStartSec=0
RestartSec=2
Restart=always
LimitNOFILE=infinity
LimitNPROC=infinity
TasksMax=infinity
Delegate=yes
KillMode=process

[Install]
WantedBy=multi-user.target
"""


class DockerInstance:
    """The daemon's configuration file, a systemd unit, and the -H that reaches it."""

    reads_host: ClassVar[bool] = True
    takes: ClassVar[frozenset[str]] = frozenset({"volume"})
    idmap: ClassVar[Literal["no"]] = "no"

    def verdict(self, allocation: Allocation) -> Verdict:
        """What Docker can do at all, under a name that its socket's path has room for."""
        if len(_socket(allocation.name)) > _LONGEST_SOCKET:
            return no(
                f"its socket's path, {_socket(allocation.name)}, is longer than the {_LONGEST_SOCKET} allowed"
            )
        return can_lay(allocation)

    def render(self, allocation: Allocation, asked: RenderContext) -> Rendered:
        """Nothing in it is the main daemon's; without a bridge, whose address would have to be chosen."""
        name = f"docker-{allocation.name}"
        config = f"/etc/docker/{name}.json"
        text = json.dumps(
            {
                "userns-remap": allocation.owner,
                "no-new-privileges": True,
                "data-root": f"/var/lib/{name}",
                "exec-root": f"/run/{name}",
                "pidfile": f"/run/{name}.pid",
                "hosts": [f"unix://{_socket(allocation.name)}"],
                "containerd-namespace": name,
                "bridge": "none",
            },
            indent=2,
        )
        unit = File(
            f"/etc/systemd/system/{name}.service", _UNIT.format(name=allocation.name, config=config)
        )
        client = f"docker -H unix://{_socket(allocation.name)}"
        return Rendered(
            text,
            (File(config, text + "\n"), unit, *subid_files(allocation)),
            (
                f"this is {config}; --out DIR writes it there, and {unit.path} beside it",
                f"systemctl enable --now {name}, then: {client} run …",
                f"it has no bridge, so that no other daemon's is touched: '{client} network create' makes one",
                *needs(allocation, asked, "--engine docker-instance"),
                *run_with(f"{client} run", asked.mounts),
            ),
        )


def _socket(name: str) -> str:
    return f"/run/docker-{name}.sock"


ENGINES = {"docker-instance": DockerInstance()}
