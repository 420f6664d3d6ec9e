BEGIN TRANSACTION;
CREATE TABLE allocation (
    name TEXT PRIMARY KEY, owner TEXT NOT NULL, strategy TEXT NOT NULL,
    uid_map TEXT NOT NULL, gid_map TEXT NOT NULL, held_start INTEGER, held_count INTEGER, since TEXT NOT NULL
);
INSERT INTO "allocation" VALUES('web','usernsplan-web','per-container','[[0, 524288, 65536]]','[[0, 524288, 65536]]',524288,65536,'2026-01-01T00:00:01Z');
INSERT INTO "allocation" VALUES('db','usernsplan-db','per-container','[[0, 720896, 1000]]','[[0, 720896, 1000]]',720896,1000,'2026-01-01T00:00:04Z');
CREATE TABLE history (at TEXT NOT NULL, actor TEXT NOT NULL, command TEXT NOT NULL, changed TEXT NOT NULL);
INSERT INTO "history" VALUES('2026-01-01T00:00:01Z','{"uid": 0, "sudo_uid": null, "login_uid": null}','usernsplan allocate --strategy per-container web db old --root /tmp/host','["/tmp/host/etc/subuid: + usernsplan-web:524288:65536", "/tmp/host/etc/subuid: + usernsplan-db:589824:65536", "/tmp/host/etc/subuid: + usernsplan-old:655360:65536", "/tmp/host/etc/subgid: + usernsplan-web:524288:65536", "/tmp/host/etc/subgid: + usernsplan-db:589824:65536", "/tmp/host/etc/subgid: + usernsplan-old:655360:65536"]');
INSERT INTO "history" VALUES('2026-01-01T00:00:02Z','{"uid": 0, "sudo_uid": null, "login_uid": null}','usernsplan release old --root /tmp/host','["/tmp/host/etc/subuid: - usernsplan-old:655360:65536", "/tmp/host/etc/subgid: - usernsplan-old:655360:65536"]');
INSERT INTO "history" VALUES('2026-01-01T00:00:04Z','{"uid": 0, "sudo_uid": null, "login_uid": null}','usernsplan release db --root /tmp/host','["/tmp/host/etc/subuid: - usernsplan-db:589824:65536", "/tmp/host/etc/subgid: - usernsplan-db:589824:65536"]');
INSERT INTO "history" VALUES('2026-01-01T00:00:04Z','{"uid": 0, "sudo_uid": null, "login_uid": null}','usernsplan allocate --strategy per-container db --size 1000 --root /tmp/host','["/tmp/host/etc/subuid: + usernsplan-db:720896:1000", "/tmp/host/etc/subgid: + usernsplan-db:720896:1000"]');
CREATE TABLE intent (only INTEGER PRIMARY KEY CHECK (only = 1), content TEXT NOT NULL);
INSERT INTO "intent" VALUES(1,'{"command": "usernsplan allocate --strategy per-container late --root /tmp/host", "actor": [0, null, null], "add": [["late", "usernsplan-late", "per-container", "[[0, 786432, 65536]]", "[[0, 786432, 65536]]", 786432, 65536, ""]], "remove": [], "quarantine": [], "forget": [], "changes": [["/etc/subuid", "eAErLU4tyisuyEnM0y1PTbIyNTIxsrCwMjM1NTbjKkXIpSRZmRsZWFiaWRkaGBhwAQDsThA4", "eAErLU4tyisuyEnM0y1PTbIyNTIxsrCwMjM1NTbjKkXIpSRZmRsZWFiaWRkaGBggy+QklqRamVuYmRgbQbUBAGDrGRs="], ["/etc/subgid", "eAErLU4tyisuyEnM0y1PTbIyNTIxsrCwMjM1NTbjKkXIpSRZmRsZWFiaWRkaGBhwAQDsThA4", "eAErLU4tyisuyEnM0y1PTbIyNTIxsrCwMjM1NTbjKkXIpSRZmRsZWFiaWRkaGBggy+QklqRamVuYmRgbQbUBAGDrGRs="]]}');
CREATE TABLE quarantine (name TEXT NOT NULL, held_start INTEGER NOT NULL, held_count INTEGER NOT NULL,
    since TEXT NOT NULL);
INSERT INTO "quarantine" VALUES('old',655360,65536,'2026-01-01T00:00:02Z');
INSERT INTO "quarantine" VALUES('db',589824,65536,'2026-01-01T00:00:04Z');
COMMIT;
PRAGMA user_version = 1;
