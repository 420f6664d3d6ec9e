"""The units of systemd that run ``sync`` again and again. Pure."""

from __future__ import annotations

from usernsplan.formats import unit_file
from usernsplan.layout import FLEET
from usernsplan.planner.units import Unit

SERVICE, TIMER = "usernsplan-sync.service", "usernsplan-sync.timer"
# What starts all timers at boot.
TARGET = "timers.target"
_HEAD = """\
Written by usernsplan, which makes this host what the ledger of its fleet says of it.
To remove it: usernsplan sync --remove-timer"""


def units(interpreter: str) -> tuple[Unit, Unit]:
    """The service and its timer. ``interpreter`` is the Python that has usernsplan."""
    return Unit(SERVICE, _service(interpreter), _HEAD), Unit(TIMER, _TIMER_BODY, _HEAD)


def _service(interpreter: str) -> str:
    # It writes below /etc and /var, and adds accounts; nothing else of the host is its business.
    # -I: neither the environment nor the current folder says what root runs.
    return f"""\
[Unit]
Description=Make this host what the ledger of its fleet says of it
ConditionPathExists={FLEET}
Wants=network-online.target
After=network-online.target postgresql.service

[Service]
Type=oneshot
ExecStart={unit_file.argument(interpreter)} -I -m usernsplan sync
TimeoutStartSec=10min
NoNewPrivileges=yes
ProtectSystem=yes
ProtectHome=read-only
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictRealtime=yes
LockPersonality=yes
"""


# Hosts of a fleet do not all ask at the same moment, and one that was off asks when it boots.
_TIMER_BODY = """\
[Unit]
Description=Make this host what the ledger of its fleet says of it, every ten minutes

[Timer]
OnCalendar=*:0/10
RandomizedDelaySec=5min
Persistent=yes

[Install]
WantedBy=timers.target
"""
