BEGIN TRANSACTION;
CREATE TABLE allocation (
    name TEXT PRIMARY KEY, owner TEXT NOT NULL, strategy TEXT NOT NULL,
    uid_map TEXT NOT NULL, gid_map TEXT NOT NULL, held_start INTEGER, held_count INTEGER, since TEXT NOT NULL
);
INSERT INTO "allocation" VALUES('web','usernsplan-web','per-container','[[0, 524288, 65536]]','[[0, 524288, 65536]]',524288,65536,'2026-01-01T00:00:01Z');
INSERT INTO "allocation" VALUES('db','usernsplan-db','per-container','[[0, 720896, 1000]]','[[0, 720896, 1000]]',720896,1000,'2026-01-01T00:00:04Z');
INSERT INTO "allocation" VALUES('box','usernsplan-box','per-container','[[0, 786432, 65536]]','[[0, 786432, 65536]]',786432,65536,'2026-01-01T00:00:05Z');
INSERT INTO "allocation" VALUES('alice','alice','per-container','[[0, 100000, 65536]]','[[0, 100000, 65536]]',100000,65536,'2026-01-01T00:00:07Z');
CREATE TABLE also (name TEXT NOT NULL, owner TEXT NOT NULL, PRIMARY KEY (name, owner));
INSERT INTO "also" VALUES('box','root');
CREATE TABLE found (name TEXT NOT NULL, path TEXT NOT NULL, line TEXT NOT NULL, PRIMARY KEY (name, path, line));
INSERT INTO "found" VALUES('alice','/etc/subuid','alice:100000:65536');
INSERT INTO "found" VALUES('alice','/etc/subgid','alice:100000:65536');
CREATE TABLE history (at TEXT NOT NULL, actor TEXT NOT NULL, command TEXT NOT NULL, changed TEXT NOT NULL);
INSERT INTO "history" VALUES('2026-01-01T00:00:01Z','{"uid": 0, "sudo_uid": null, "login_uid": null}','usernsplan allocate --strategy per-container web db old --root /tmp/host','["/tmp/host/etc/subuid: + usernsplan-web:524288:65536", "/tmp/host/etc/subuid: + usernsplan-db:589824:65536", "/tmp/host/etc/subuid: + usernsplan-old:655360:65536", "/tmp/host/etc/subgid: + usernsplan-web:524288:65536", "/tmp/host/etc/subgid: + usernsplan-db:589824:65536", "/tmp/host/etc/subgid: + usernsplan-old:655360:65536"]');
INSERT INTO "history" VALUES('2026-01-01T00:00:02Z','{"uid": 0, "sudo_uid": null, "login_uid": null}','usernsplan release old --root /tmp/host','["/tmp/host/etc/subuid: - usernsplan-old:655360:65536", "/tmp/host/etc/subgid: - usernsplan-old:655360:65536"]');
INSERT INTO "history" VALUES('2026-01-01T00:00:03Z','{"uid": 0, "sudo_uid": null, "login_uid": null}','usernsplan fix-volume /srv/web --container web --mode shift --root /tmp/host','["volume /srv/web is web''s now (shift)"]');
INSERT INTO "history" VALUES('2026-01-01T00:00:03Z','{"uid": 0, "sudo_uid": null, "login_uid": null}','usernsplan fix-volume /srv/db --container db --mode own --root /tmp/host','["volume /srv/db is db''s now (own)"]');
INSERT INTO "history" VALUES('2026-01-01T00:00:04Z','{"uid": 0, "sudo_uid": null, "login_uid": null}','usernsplan release db --root /tmp/host','["/tmp/host/etc/subuid: - usernsplan-db:589824:65536", "/tmp/host/etc/subgid: - usernsplan-db:589824:65536"]');
INSERT INTO "history" VALUES('2026-01-01T00:00:04Z','{"uid": 0, "sudo_uid": null, "login_uid": null}','usernsplan allocate --strategy per-container db --size 1000 --root /tmp/host','["/tmp/host/etc/subuid: + usernsplan-db:720896:1000", "/tmp/host/etc/subgid: + usernsplan-db:720896:1000"]');
INSERT INTO "history" VALUES('2026-01-01T00:00:04Z','{"uid": 0, "sudo_uid": null, "login_uid": null}','usernsplan fix-volume /srv/new --container db --mode own --root /tmp/host','["volume /srv/new is db''s now (own)"]');
INSERT INTO "history" VALUES('2026-01-01T00:00:05Z','{"uid": 0, "sudo_uid": null, "login_uid": null}','usernsplan allocate --strategy per-container box --engine lxc --root /tmp/host','["/tmp/host/etc/subuid: + usernsplan-box:786432:65536", "/tmp/host/etc/subuid: + root:786432:65536", "/tmp/host/etc/subgid: + usernsplan-box:786432:65536", "/tmp/host/etc/subgid: + root:786432:65536"]');
INSERT INTO "history" VALUES('2026-01-01T00:00:06Z','{"uid": 0, "sudo_uid": null, "login_uid": null}','usernsplan apply --yes /tmp/host/plan.yaml --root /tmp/host','["reserved 2000000-2000009: the NAS"]');
INSERT INTO "history" VALUES('2026-01-01T00:00:07Z','{"uid": 0, "sudo_uid": null, "login_uid": null}','usernsplan allocate --strategy per-container alice --owner alice --start 100000 --root /tmp/host','[]');
CREATE TABLE intent (only INTEGER PRIMARY KEY CHECK (only = 1), content TEXT NOT NULL);
INSERT INTO "intent" VALUES(1,'{"command": "usernsplan allocate --strategy per-container late --root /tmp/host", "actor": [0, null, null], "add": [["late", "usernsplan-late", "per-container", "[[0, 851968, 65536]]", "[[0, 851968, 65536]]", 851968, 65536, ""]], "also": [], "found": [], "remove": [], "quarantine": [], "forget": [], "unkeep": [], "volumes": [], "no_volumes": [], "reserve": [], "unreserve": [], "changes": [["/etc/subuid", "eAFLzMlMTrUyNAABKzNTU2MzrtLi1KK84oKcxDzd8tQkK1MjEyMLC0y5lCQrcyMDC0szsG5kXUn5FVbmFmYmxkZQXUX5+SWoIgA94yHt", "eAFLzMlMTrUyNAABKzNTU2MzrtLi1KK84oKcxDzd8tQkK1MjEyMLC0y5lCQrcyMDC0szsG5kXUn5FVbmFmYmxkZQXUX5+SWoIkh25CSWpFpZmBpamsEsAQC0PyrX"], ["/etc/subgid", "eAFLzMlMTrUyNAABKzNTU2MzrtLi1KK84oKcxDzd8tQkK1MjEyMLC0y5lCQrcyMDC0szsG5kXUn5FVbmFmYmxkZQXUX5+SWoIgA94yHt", "eAFLzMlMTrUyNAABKzNTU2MzrtLi1KK84oKcxDzd8tQkK1MjEyMLC0y5lCQrcyMDC0szsG5kXUn5FVbmFmYmxkZQXUX5+SWoIkh25CSWpFpZmBpamsEsAQC0PyrX"]]}');
CREATE TABLE quarantine (name TEXT NOT NULL, held_start INTEGER NOT NULL, held_count INTEGER NOT NULL,
    since TEXT NOT NULL, owner TEXT NOT NULL DEFAULT '', strategy TEXT NOT NULL DEFAULT '', uid_map TEXT NOT NULL DEFAULT '', gid_map TEXT NOT NULL DEFAULT '', made TEXT NOT NULL DEFAULT '');
INSERT INTO "quarantine" VALUES('old',655360,65536,'2026-01-01T00:00:02Z','usernsplan-old','per-container','[[0, 655360, 65536]]','[[0, 655360, 65536]]','2026-01-01T00:00:01Z');
INSERT INTO "quarantine" VALUES('db',589824,65536,'2026-01-01T00:00:04Z','usernsplan-db','per-container','[[0, 589824, 65536]]','[[0, 589824, 65536]]','2026-01-01T00:00:01Z');
CREATE TABLE reservation (ids TEXT PRIMARY KEY, why TEXT NOT NULL, since TEXT NOT NULL);
INSERT INTO "reservation" VALUES('2000000-2000009','the NAS','2026-01-01T00:00:06Z');
CREATE TABLE volume (path BLOB PRIMARY KEY, name TEXT NOT NULL, mode TEXT NOT NULL, since TEXT NOT NULL, user TEXT NOT NULL DEFAULT '');
INSERT INTO "volume" VALUES(X'2F7372762F776562','web','shift','2026-01-01T00:00:03Z','');
INSERT INTO "volume" VALUES(X'2F7372762F6462','db','own','2026-01-01T00:00:03Z','0:0');
INSERT INTO "volume" VALUES(X'2F7372762F6E6577','db','own','2026-01-01T00:00:04Z','0:0');
COMMIT;
PRAGMA user_version = 5;
