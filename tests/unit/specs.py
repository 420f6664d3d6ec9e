"""Plan files: one with every key, and text that YAML may take for something else."""

from __future__ import annotations

WHOLE = b"""\
# a comment
version: 1
strategy: per-container
size: 131072
block: 1
container-id: 33
dockerroot: 7
max: 1000
identity: false
pool: 589824-1048575
engines:
  - docker
  - {name: podman-auto, containers: 5, publish: none}
  - {name: lxc}
daemon: web
containers:
  - web
  - name: db
    owner: somebody
    start: 720896
    user: '999'
    size: 65536
    volumes:
      - /srv/db
      - path: /srv/other
        user: 33
      - {path: /srv/rootfs, mode: shift}
      - path: /srv/web
        mode: shift
        method: idmap
        at: /mnt/web
        persist: true
        read-only: true
        protect: nosuid
        cross-mounts: true
      - {path: /srv/logs, method: auto}
    lines: false
    publish: passwd
  - {name: mine, local: true}
hosts:
  web1: [web]
  '*': [db, web]
reservations:
  - ids: 765536-831071
    for: the NFS server
  - {ids: 5, for: one}
lines: true
publish: userdb
"""


# Words that readers of YAML 1.1 or 1.2 take for something else, and what has a meaning in YAML's grammar.
ODD = [
    *(
        "yes",
        "No",
        "on",
        "OFF",
        "y",
        "n",
        "true",
        "null",
        "~",
        "Null",
        "12",
        "012",
        "0o14",
        "0x1F",
        "1_000",
        "1000:10",
    ),
    *(
        "1.5",
        "1e3",
        ".inf",
        ".NaN",
        "-1",
        "+1",
        "2026-01-01",
        "<<",
        "=",
        "-",
        "- a",
        "a: b",
        "a #b",
        "#b",
        "'",
        '"',
    ),
    *(
        "''",
        "a'b",
        "[a]",
        "{a}",
        "&a",
        "*a",
        "!a",
        "!!int 5",
        "%a",
        "@a",
        "`a",
        "|",
        ">",
        "?",
        ":",
        "a:",
        ",",
        "é",
    ),
    *(
        "a  b",
        "a ",
        " a",
        "---",
        "...",
        "\\",
        "\\n",
        "/",
        "//a",
        "😀",
        "a\u0301",
        "None",
        "0",
        "00",
        "1:30",
        "a" * 200,
    ),
]
