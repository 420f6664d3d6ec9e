"""A separate Docker daemon for one range, because Docker has one map for each daemon.

Several daemons can run on one host if each has its own configuration file, data-root, exec-root,
pidfile and socket: dockerd(8). Checked with 20.10: daemons with the same bridge hand out the same
addresses; all of them use the host's containerd, by default in the same namespace.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from usernsplan.engines import hardened
from usernsplan.engines.base import (
    Engine,
    File,
    Hardening,
    RenderContext,
    Rendered,
    Verdict,
    no,
    subid_files,
)
from usernsplan.engines.docker import (
    NO_FILTER,
    SELINUX,
    can_lay,
    needs,
    run_with,
)

if TYPE_CHECKING:
    from usernsplan.harden.effective import Effective
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


class DockerInstance(Engine):
    """The daemon's configuration file, a systemd unit, and the -H that reaches it."""

    reads_host = True
    takes = frozenset({"volume"})

    def verdict(self, allocation: Allocation) -> Verdict:
        """What Docker can do, if the name fits into the path of the daemon's socket."""
        if len(_socket(allocation.name)) > _LONGEST_SOCKET:
            return no(
                f"the path of its socket, {_socket(allocation.name)}, has more than "
                f"{_LONGEST_SOCKET} bytes"
            )
        return can_lay(allocation)

    def render(self, allocation: Allocation, context: RenderContext) -> Rendered:
        """A configuration that shares nothing with the main daemon.

        It has no bridge: somebody would have to choose its address.
        """
        name = f"docker-{allocation.name}"
        config = f"/etc/docker/{name}.json"
        policy = context.policy
        its = self.hardening(policy, allocation, context) if policy else Hardening({})
        text = json.dumps(
            {
                "userns-remap": allocation.owner,
                "no-new-privileges": policy is None or not policy.new_privileges,
                "data-root": f"/var/lib/{name}",
                "exec-root": f"/run/{name}",
                "pidfile": f"/run/{name}.pid",
                "hosts": [f"unix://{_socket(allocation.name)}"],
                "containerd-namespace": name,
                "bridge": "none",
                # All containers of this daemon have the policy.
                **({"seccomp-profile": its.files[0].path} if its.files else {}),
                **({SELINUX: True} if _labels(its, context) else {}),
            },
            indent=2,
        )
        unit = File(
            f"/etc/systemd/system/{name}.service", _UNIT.format(name=allocation.name, config=config)
        )
        client = f"docker -H unix://{_socket(allocation.name)}"
        return Rendered(
            text,
            (File(config, text + "\n"), unit, *subid_files(allocation), *its.files),
            (
                f"this is {config}; --out DIR writes it below DIR, together with {unit.path}",
                f"start the daemon with 'systemctl enable --now {name}', then: {client} run …",
                (
                    f"the daemon has no bridge, so it touches no other daemon's; "
                    f"'{client} network create' makes one"
                ),
                *needs(allocation, context, "--engine", "docker-instance"),
                *run_with(f"{client} run", context.mounts, its.words),
                *its.notes,
            ),
        )

    def hardening(
        self, policy: Effective, allocation: Allocation, context: RenderContext
    ) -> Hardening:
        """The daemon has the filter; capabilities and labels are options of docker run."""
        filter_, others = hardened.filter_file(policy, allocation, context, unknown=NO_FILTER)
        return Hardening(
            hardened.verdicts(policy, others),
            (
                *hardened.capability_flags(policy),
                *hardened.as_flags(hardened.filter_and_label(policy, None)),
            ),
            (filter_,) if filter_ else (),
            hardened.as_another_user(policy),
        )


def _labels(its: Hardening, context: RenderContext) -> bool:
    return "label" in its.verdicts and context.selinux != "off"


def _socket(name: str) -> str:
    return f"/run/docker-{name}.sock"


ENGINES = {"docker-instance": DockerInstance()}
