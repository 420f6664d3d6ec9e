-- The ledger of a fleet, version 1: who has which ids on which host.
--
-- A host's own ledger is the truth about that host. Here are its claims, so that no two hosts give out the
-- same ids, a copy of what its ledger has, and what operators ask of it. Only the functions below write; they
-- run as the owner of the schema and check who calls. Errors of ours have a state of the class UP: see
-- ledger/postgres.py.

CREATE EXTENSION IF NOT EXISTS btree_gist;
CREATE SCHEMA usernsplan;
SET LOCAL search_path = usernsplan, public;

CREATE TABLE meta (is_one boolean PRIMARY KEY DEFAULT true CHECK (is_one), version int NOT NULL);
INSERT INTO meta (version) VALUES (1);

-- role: the only one that may write for the host. machine: its machine-id. event: the number of the last event
-- of the host's ledger that is here. published: when the host last listed the ids that it has of its own. own_digest: of
-- that list, which the host sends again only after a change.
CREATE TABLE host (
    number int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    role name NOT NULL,
    machine text NOT NULL,
    version text NOT NULL,
    event bigint NOT NULL DEFAULT 0,
    stamp text NOT NULL DEFAULT '',
    joined timestamptz NOT NULL DEFAULT now(),
    seen timestamptz NOT NULL DEFAULT now(),
    published timestamptz,
    own_digest text NOT NULL DEFAULT ''
);

-- hosts: one host for a --local name, and all of them for any other. That two claims overlap is impossible.
CREATE TABLE claim (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    hosts int4range NOT NULL CHECK (NOT isempty(hosts)),
    kind text NOT NULL CHECK (kind IN ('uid', 'gid')),
    ids int8range NOT NULL CHECK (
        NOT isempty(ids) AND lower(ids) >= 0 AND upper(ids) <= 4294967295
    ),
    CONSTRAINT no_overlap EXCLUDE USING gist (hosts WITH &&, kind WITH =, ids WITH &&)
);
CREATE INDEX claim_name ON claim (name);

-- All ids that some host has, in blocks of 2^22, so that a host that looks for free ones need not read a million
-- claims. The triggers of claim keep it.
CREATE TABLE taken_block (
    kind text NOT NULL,
    number int NOT NULL,
    ids int8multirange NOT NULL,
    PRIMARY KEY (kind, number)
);

CREATE FUNCTION note_claims() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, usernsplan, pg_temp AS $$
BEGIN
    INSERT INTO taken_block AS b (kind, number, ids)
        SELECT c.kind, n, range_agg(c.ids * int8range(n::bigint << 22, (n + 1)::bigint << 22))
        FROM changed c, generate_series((lower(c.ids) >> 22)::int, ((upper(c.ids) - 1) >> 22)::int) n
        GROUP BY c.kind, n
        ON CONFLICT (kind, number) DO UPDATE SET ids = b.ids + excluded.ids;
    RETURN NULL;
END $$;

-- Of ids that several hosts had as local ones, those stay that another one still has.
CREATE FUNCTION forget_claims() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, usernsplan, pg_temp AS $$
BEGIN
    UPDATE taken_block b SET ids = b.ids - gone.ids + gone.kept
        FROM (
            SELECT c.kind, n, range_agg(c.ids * block.ids) AS ids,
                coalesce(range_agg(other.ids * c.ids * block.ids)
                    FILTER (WHERE NOT isempty(other.ids * c.ids * block.ids)), '{}') AS kept
            FROM changed c
            CROSS JOIN generate_series((lower(c.ids) >> 22)::int, ((upper(c.ids) - 1) >> 22)::int) n
            CROSS JOIN LATERAL (SELECT int8range(n::bigint << 22, (n + 1)::bigint << 22) AS ids) block
            LEFT JOIN claim other ON NOT upper_inf(c.hosts) AND other.kind = c.kind AND other.ids && c.ids
            GROUP BY c.kind, n) gone
        WHERE b.kind = gone.kind AND b.number = gone.n;
    RETURN NULL;
END $$;

CREATE TRIGGER note_claims AFTER INSERT ON claim REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION note_claims();
CREATE TRIGGER forget_claims AFTER DELETE ON claim REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION forget_claims();

-- Which hosts have a claim, and as what. A claim that no host has is deleted.
-- intended: a run is at work. wanted: an operator asks the host to take it. leaving: a run that is at work gives
-- it up, so that nobody may join in.
CREATE TABLE hold (
    claim bigint NOT NULL REFERENCES claim,
    host int NOT NULL REFERENCES host,
    state text NOT NULL CHECK (state IN ('intended', 'held', 'quarantined', 'reserved', 'wanted')),
    leaving boolean NOT NULL DEFAULT false,
    PRIMARY KEY (claim, host)
);
CREATE INDEX hold_host ON hold (host, claim);
-- A host may have 20,000 holds, of which a run changes two.
CREATE INDEX hold_intended ON hold (host) WHERE state = 'intended';
CREATE INDEX hold_leaving ON hold (host) WHERE leaving;

-- The events of each host's ledger. Nothing changes or deletes a row.
CREATE TABLE event (
    host int NOT NULL REFERENCES host,
    number bigint NOT NULL,
    at text NOT NULL,
    actor text NOT NULL,
    command text NOT NULL,
    changed text NOT NULL,
    change text NOT NULL,
    role name NOT NULL DEFAULT session_user,
    PRIMARY KEY (host, number)
);
-- The history of all hosts is read in portions.
CREATE INDEX event_at ON event (at, host, number);

-- The run that a host has begun: the rows of its ledger, files included.
CREATE TABLE intent (
    host int PRIMARY KEY REFERENCES host,
    number bigint NOT NULL,
    command text NOT NULL,
    actor text NOT NULL,
    change text NOT NULL,
    files text NOT NULL
);

-- The state of each host's ledger: its tables' rows, as JSON of the codec.
CREATE TABLE content (
    host int NOT NULL REFERENCES host,
    what text NOT NULL,
    key text NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (host, what, key)
);
CREATE INDEX content_key ON content (what, key);

-- The ids that a host has of its own: accounts, lines, machines. They are checked, and may overlap.
CREATE TABLE own (
    host int NOT NULL REFERENCES host,
    kind text NOT NULL,
    ids int8range NOT NULL,
    source text NOT NULL,
    holder text NOT NULL
);
CREATE INDEX own_host ON own (host);
CREATE INDEX own_ids ON own USING gist (ids);

-- What operators ask of a host: to allocate a name, or to release it (strategy is ''). options: those of the
-- strategy, as JSON. start: the first host id. refused: why the host did not do it.
CREATE TABLE wish (
    host int NOT NULL REFERENCES host,
    name text NOT NULL,
    strategy text NOT NULL,
    options text NOT NULL DEFAULT '{}',
    start bigint,
    at timestamptz NOT NULL DEFAULT now(),
    role name NOT NULL DEFAULT session_user,
    refused text NOT NULL DEFAULT '',
    PRIMARY KEY (host, name)
);

-- Who works on which volume, and who worked there last: a row for each volume of a run. token: the same for all of
-- a run, and more than any before. system, inside, inode: host/identity.py. work: which ids are moved. changing: the
-- run may have changed something. ended: no host is kept away any more; outcome says why.
CREATE TABLE lease (
    token bigint NOT NULL,
    host int NOT NULL REFERENCES host,
    system text NOT NULL,
    inside text NOT NULL,
    inode text NOT NULL,
    path text NOT NULL,
    container text NOT NULL,
    run text NOT NULL,
    method text NOT NULL,
    work text NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    changing boolean NOT NULL DEFAULT false,
    ended timestamptz,
    outcome text NOT NULL DEFAULT '' CHECK (outcome IN ('', 'done', 'done in part', 'undone', 'given up')),
    role name NOT NULL DEFAULT session_user,
    PRIMARY KEY (token, system, inside)
);
CREATE INDEX lease_system ON lease (system, inside);
CREATE INDEX lease_host ON lease (host, run);
CREATE SEQUENCE lease_token;

CREATE FUNCTION is_operator() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT pg_has_role(session_user, 'usernsplan_operator', 'MEMBER')
$$;

-- The number of a host that the caller may write for. UP002: it has not joined. 42501: it is another's.
CREATE FUNCTION mine(wanted text) RETURNS int LANGUAGE plpgsql STABLE AS $$
DECLARE found host;
BEGIN
    SELECT * INTO found FROM usernsplan.host WHERE name = wanted;
    IF found IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'UP002', MESSAGE = format('no host %s', wanted);
    END IF;
    IF found.role <> session_user THEN
        RAISE EXCEPTION USING ERRCODE = '42501',
            MESSAGE = format('the host %s belongs to the role %s, not to %s', wanted, found.role, session_user);
    END IF;
    RETURN found.number;
END $$;

-- One writer of claims at a time: the constraint proves, the lock only spares retries.
-- Not an advisory lock: every role that can connect could take that, and stop all hosts.
CREATE FUNCTION alone() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE usernsplan.meta IN EXCLUSIVE MODE;
END $$;

CREATE FUNCTION join_host(wanted text, of_machine text, of_version text) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, usernsplan, pg_temp AS $$
DECLARE found host;
BEGIN
    PERFORM alone();
    -- Other names are those of hosts that left, and what leave makes of them.
    IF wanted !~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$' THEN
        RAISE EXCEPTION USING ERRCODE = 'UP005', MESSAGE = format('%s cannot be the name of a host', wanted);
    END IF;
    SELECT * INTO found FROM host WHERE name = wanted;
    IF found.number IS NULL THEN
        INSERT INTO host (name, role, machine, version) VALUES (wanted, session_user, of_machine, of_version)
            RETURNING * INTO found;
    ELSIF found.role <> session_user OR found.machine <> of_machine THEN
        RAISE EXCEPTION USING ERRCODE = 'UP005', MESSAGE =
            format('another machine has joined as %s, with the role %s', wanted, found.role);
    END IF;
    RETURN found.number;
END $$;

-- Which claims stand in the way: (name, kind, first, stop, who), for holds that a host would have. gone: claims that
-- it gives up.
CREATE FUNCTION clashes(n int, names text[], locals boolean[], kinds text[], starts bigint[], stops bigint[],
    states text[], gone bigint[] DEFAULT '{}')
RETURNS TABLE (name text, kind text, start bigint, stop bigint, other text, hosts text)
LANGUAGE sql STABLE AS $$
    SELECT a.name, a.kind, greatest(a.start, lower(c.ids)), least(a.stop, upper(c.ids)), c.name,
        (SELECT coalesce(string_agg(DISTINCT o.name, ', '), '')
            FROM usernsplan.hold h JOIN usernsplan.host o ON o.number = h.host WHERE h.claim = c.id)
    FROM unnest(names, locals, kinds, starts, stops) AS a(name, is_local, kind, start, stop)
    JOIN usernsplan.claim c ON c.kind = a.kind AND c.ids && int8range(a.start, a.stop)
        AND c.hosts && CASE WHEN a.is_local THEN int4range(n, n + 1) ELSE int4range(NULL, NULL) END
    WHERE NOT (c.name = a.name AND c.ids = int8range(a.start, a.stop)
        AND c.hosts = CASE WHEN a.is_local THEN int4range(n, n + 1) ELSE int4range(NULL, NULL) END)
    UNION
    -- A name of the whole fleet has the same ids everywhere; what is quarantined for it does not count.
    SELECT c.name, c.kind, lower(c.ids), upper(c.ids), c.name, string_agg(DISTINCT o.name, ', ')
    FROM usernsplan.claim c
    JOIN usernsplan.hold h ON h.claim = c.id AND h.host <> n AND h.state IN ('held', 'intended', 'wanted')
    JOIN usernsplan.host o ON o.number = h.host
    WHERE upper_inf(c.hosts)
        AND c.name IN (SELECT u.name FROM unnest(names, locals, states) AS u(name, is_local, state)
            WHERE NOT u.is_local AND u.state IN ('held', 'intended', 'wanted'))
        AND NOT EXISTS (
            SELECT FROM unnest(names, kinds, starts, stops, states) AS a(name, kind, start, stop, state)
            WHERE a.name = c.name AND a.kind = c.kind AND int8range(a.start, a.stop) = c.ids
            AND a.state IN ('held', 'intended', 'wanted'))
        AND NOT EXISTS (SELECT FROM usernsplan.hold m
            WHERE m.claim = c.id AND m.host = n AND NOT m.leaving AND NOT c.id = ANY (gone)
            AND NOT EXISTS (
                SELECT FROM unnest(names, kinds, starts, stops) AS a(name, kind, start, stop)
                WHERE a.name = c.name AND a.kind = c.kind AND int8range(a.start, a.stop) = c.ids))
    GROUP BY c.id, c.name, c.kind, c.ids
    ORDER BY 1, 2, 3
$$;

-- Give a host these holds. UP001: somebody else has some of these ids; DETAIL says who.
CREATE FUNCTION take(n int, names text[], locals boolean[], kinds text[], starts bigint[], stops bigint[],
    states text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE clash record;
BEGIN
    IF EXISTS (
        SELECT FROM unnest(names, kinds, starts, stops) AS a(name, kind, start, stop)
        JOIN usernsplan.claim c ON c.name = a.name AND c.kind = a.kind AND c.ids = int8range(a.start, a.stop)
        JOIN usernsplan.hold h ON h.claim = c.id AND h.host <> n AND h.leaving)
    THEN
        RAISE EXCEPTION USING ERRCODE = 'UP001', MESSAGE = 'another host is changing the same name';
    END IF;
    INSERT INTO usernsplan.claim (name, hosts, kind, ids)
        SELECT DISTINCT a.name,
            CASE WHEN a.is_local THEN int4range(n, n + 1) ELSE int4range(NULL, NULL) END,
            a.kind, int8range(a.start, a.stop)
        FROM unnest(names, locals, kinds, starts, stops) AS a(name, is_local, kind, start, stop)
        WHERE NOT EXISTS (
            SELECT FROM usernsplan.claim c WHERE c.name = a.name AND c.kind = a.kind
            AND c.ids = int8range(a.start, a.stop)
            AND c.hosts = CASE WHEN a.is_local THEN int4range(n, n + 1) ELSE int4range(NULL, NULL) END);
    INSERT INTO usernsplan.hold (claim, host, state)
        SELECT c.id, n, min(a.state)
        FROM unnest(names, locals, kinds, starts, stops, states) AS a(name, is_local, kind, start, stop, state)
        JOIN usernsplan.claim c ON c.name = a.name AND c.kind = a.kind AND c.ids = int8range(a.start, a.stop)
            AND c.hosts = CASE WHEN a.is_local THEN int4range(n, n + 1) ELSE int4range(NULL, NULL) END
        GROUP BY c.id
        ON CONFLICT (claim, host) DO UPDATE SET state = excluded.state
        WHERE excluded.state <> 'intended';
EXCEPTION WHEN exclusion_violation THEN
    SELECT * INTO clash FROM usernsplan.clashes(n, names, locals, kinds, starts, stops, states) LIMIT 1;
    RAISE EXCEPTION USING ERRCODE = 'UP001',
        MESSAGE = format('%s %s-%s of ''%s'' are those of ''%s'' on %s', clash.kind, clash.start,
            clash.stop - 1, clash.name, clash.other, clash.hosts);
END $$;

-- Take holds from a host, and delete the claims that nobody has any more.
CREATE FUNCTION drop_holds(n int, claims bigint[]) RETURNS void LANGUAGE sql AS $$
    DELETE FROM usernsplan.hold WHERE host = n AND claim = ANY (claims);
    DELETE FROM usernsplan.claim c WHERE c.id = ANY (claims)
        AND NOT EXISTS (SELECT FROM usernsplan.hold h WHERE h.claim = c.id)
$$;

-- Changes of holds come as rows of arrays; a state of NULL gives a hold up.
CREATE FUNCTION given_up(names text[], locals boolean[], kinds text[], starts bigint[], stops bigint[],
    states text[]) RETURNS SETOF bigint LANGUAGE sql STABLE AS $$
    SELECT c.id
    FROM unnest(names, locals, kinds, starts, stops, states) AS a(name, is_local, kind, start, stop, state)
    JOIN usernsplan.claim c ON a.name = c.name AND a.kind = c.kind AND c.ids = int8range(a.start, a.stop)
        AND a.is_local <> upper_inf(c.hosts)
    WHERE a.state IS NULL
$$;

CREATE FUNCTION added(INOUT names text[], INOUT locals boolean[], INOUT kinds text[], INOUT starts bigint[],
    INOUT stops bigint[], INOUT states text[]) LANGUAGE sql STABLE AS $$
    SELECT coalesce(array_agg(a.name), '{}'), coalesce(array_agg(a.is_local), '{}'),
        coalesce(array_agg(a.kind), '{}'), coalesce(array_agg(a.start), '{}'), coalesce(array_agg(a.stop), '{}'),
        coalesce(array_agg(a.state), '{}')
    FROM unnest(names, locals, kinds, starts, stops, states) AS a(name, is_local, kind, start, stop, state)
    WHERE a.state IS NOT NULL
$$;

-- What a run intended and what it gives up goes first: the ids may get another name, or be part of another range.
CREATE FUNCTION change_holds(n int, names text[], locals boolean[], kinds text[], starts bigint[],
    stops bigint[], states text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE plus record;
BEGIN
    plus := usernsplan.added(names, locals, kinds, starts, stops, states);
    PERFORM usernsplan.drop_holds(n, ARRAY(
        SELECT usernsplan.given_up(names, locals, kinds, starts, stops, states)
        UNION ALL SELECT h.claim FROM usernsplan.hold h WHERE h.host = n AND h.state = 'intended'));
    IF cardinality(plus.names) > 0 THEN
        PERFORM usernsplan.take(n, plus.names, plus.locals, plus.kinds, plus.starts, plus.stops, plus.states);
    END IF;
END $$;

-- What other hosts have of the ids that a run would give a host: see clashes.
CREATE FUNCTION would_clash(of_host text, names text[], locals boolean[], kinds text[], starts bigint[],
    stops bigint[], states text[])
RETURNS TABLE (name text, kind text, start bigint, stop bigint, other text, hosts text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, usernsplan, pg_temp AS $$
DECLARE
    n int := mine(of_host);
    gone bigint[] := ARRAY(SELECT given_up(names, locals, kinds, starts, stops, states));
BEGIN
    RETURN QUERY SELECT c.* FROM added(names, locals, kinds, starts, stops, states) a,
        clashes(n, a.names, a.locals, a.kinds, a.starts, a.stops, a.states, gone) c
        -- What only this host has is its own to decide.
        WHERE c.hosts <> of_host;
END $$;

-- A run of a host begins: its intent, and the ids that it will have.
-- UP003: the host's ledger has another number of events. 23505: a run is pending.
-- UP001: another host has these ids, or got other ids under the name since this host decided: it decides again.
CREATE FUNCTION begin_run(of_host text, next bigint, command text, actor text, change text, files text,
    names text[], locals boolean[], kinds text[], starts bigint[], stops bigint[], states text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, usernsplan, pg_temp AS $$
DECLARE n int := mine(of_host); last bigint; clash record;
BEGIN
    PERFORM alone();
    SELECT h.event INTO last FROM host h WHERE h.number = n;
    IF last <> next - 1 THEN
        RAISE EXCEPTION USING ERRCODE = 'UP003', MESSAGE =
            format('the ledger of the fleet has %s events of %s, and this host %s', last, of_host, next - 1);
    END IF;
    INSERT INTO intent VALUES (n, next, command, actor, change, files);
    UPDATE hold h SET leaving = true FROM claim c, given_up(names, locals, kinds, starts, stops, states) g
        WHERE h.host = n AND h.claim = c.id AND g = c.id;
    FOR clash IN
        SELECT c.* FROM added(names, locals, kinds, starts, stops, states) a,
            clashes(n, a.names, a.locals, a.kinds, a.starts, a.stops, a.states) c
        -- What the host has itself under this name, it gives up.
        WHERE c.name = c.other AND c.hosts <> of_host
    LOOP
        RAISE EXCEPTION USING ERRCODE = 'UP001', MESSAGE = format('in the fleet, ''%s'' has the %ss %s-%s, on %s',
            clash.name, clash.kind, clash.start, clash.stop - 1, clash.hosts);
    END LOOP;

    -- Try what will be at the end, and go back: what the run gives up is still its own until then.
    BEGIN
        PERFORM change_holds(n, names, locals, kinds, starts, stops, states);
        RAISE EXCEPTION USING ERRCODE = 'UP999';
    -- Not UP000: a state that ends in 000 stands for its whole class.
    EXCEPTION WHEN SQLSTATE 'UP999' THEN NULL;
    END;
    -- Until then, nobody else gets the ids that are new.
    PERFORM take(n, array_agg(p.name), array_agg(p.is_local), array_agg(p.kind), array_agg(lower(p.ids)),
            array_agg(upper(p.ids)), array_agg('intended'::text))
        FROM (
            SELECT a.name, a.is_local, a.kind, unnest(int8multirange(int8range(a.start, a.stop)) - coalesce((
                SELECT range_agg(c.ids) FROM claim c JOIN hold h ON h.claim = c.id AND h.host = n
                WHERE c.kind = a.kind AND c.ids && int8range(a.start, a.stop)), '{}')) AS ids
            FROM unnest(names, locals, kinds, starts, stops, states)
                AS a(name, is_local, kind, start, stop, state)
            WHERE a.state IS NOT NULL) AS p
        HAVING count(*) > 0;
END $$;

-- What a host's ledger did: its events, the holds that it has now (of all, if it says so; else those that
-- changed), and the rows that changed. A value of NULL deletes a row. UP003, UP001: as above.
CREATE FUNCTION tell(of_host text, of_version text, first bigint, of_stamp text, ats text[], actors text[],
    commands text[], changeds text[], changes text[], is_whole boolean,
    names text[], locals boolean[], kinds text[], starts bigint[], stops bigint[], states text[],
    whats text[], keys text[], vals text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, usernsplan, pg_temp AS $$
DECLARE n int := mine(of_host); last bigint; new_last bigint := first - 1 + cardinality(ats);
BEGIN
    PERFORM alone();
    SELECT h.event INTO last FROM host h WHERE h.number = n;
    IF first > last + 1 OR new_last < last OR (NOT is_whole AND first <> last + 1) THEN
        RAISE EXCEPTION USING ERRCODE = 'UP003', MESSAGE =
            format('the ledger of the fleet has %s events of %s, and this host %s', last, of_host, new_last);
    END IF;
    INSERT INTO event (host, number, at, actor, command, changed, change)
        SELECT n, first - 1 + a.place, a.at, a.actor, a.command, a.changed, a.change
        FROM unnest(ats, actors, commands, changeds, changes)
            WITH ORDINALITY AS a(at, actor, command, changed, change, place)
        WHERE first - 1 + a.place > last;

    IF is_whole THEN
        PERFORM drop_holds(n, coalesce((
            SELECT array_agg(h.claim) FROM hold h JOIN claim c ON c.id = h.claim
            WHERE h.host = n AND h.state <> 'wanted' AND NOT EXISTS (
                SELECT FROM unnest(names, locals, kinds, starts, stops) AS a(name, is_local, kind, start, stop)
                WHERE a.name = c.name AND a.kind = c.kind AND c.ids = int8range(a.start, a.stop)
                AND a.is_local <> upper_inf(c.hosts))), '{}'));
        PERFORM back_again(n);
    END IF;
    PERFORM change_holds(n, names, locals, kinds, starts, stops, states);
    UPDATE hold h SET leaving = false WHERE h.host = n AND h.leaving;

    DELETE FROM content c WHERE c.host = n AND (is_whole OR EXISTS (
        SELECT FROM unnest(whats, keys, vals) AS a(what, key, val)
        WHERE a.what = c.what AND a.key = c.key));
    INSERT INTO content (host, what, key, value)
        SELECT n, a.what, a.key, a.val FROM unnest(whats, keys, vals) AS a(what, key, val) WHERE a.val IS NOT NULL;
    DELETE FROM intent i WHERE i.host = n AND i.number <= new_last;
    UPDATE host h SET event = new_last, stamp = of_stamp, seen = now(), version = of_version WHERE h.number = n;
END $$;

-- A run that began, and whose host could not note it, is forgotten with what it intended.
CREATE FUNCTION drop_run(of_host text, of_number bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, usernsplan, pg_temp AS $$
DECLARE n int := mine(of_host);
BEGIN
    PERFORM alone();
    DELETE FROM intent i WHERE i.host = n AND i.number = of_number;
    IF FOUND THEN
        PERFORM drop_holds(n, coalesce((
            SELECT array_agg(h.claim) FROM hold h WHERE h.host = n AND h.state = 'intended'), '{}'));
        UPDATE hold h SET leaving = false WHERE h.host = n AND h.leaving;
    END IF;
END $$;

-- A host leaves, with all that is here of it, but for the ids that its files on shared storage may carry: nobody has
-- looked. They stay quarantined until the machine joins again and says what it has (tell), or an operator says that
-- no file carries them (forget_left). UP010: it is at work.
CREATE FUNCTION leave(of_host text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, usernsplan, pg_temp AS $$
DECLARE n int := mine(of_host); busy text;
BEGIN
    PERFORM alone();
    SELECT format('a run of %s is pending (%s)', of_host, i.command) INTO busy FROM intent i WHERE i.host = n;
    IF busy IS NULL THEN
        SELECT format('%s works on the volume %s', of_host, l.path) INTO busy
            FROM lease l WHERE l.host = n AND l.ended IS NULL LIMIT 1;
    END IF;
    IF busy IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'UP010', MESSAGE = busy;
    END IF;
    UPDATE hold h SET state = 'quarantined', leaving = false FROM claim c
        WHERE h.host = n AND c.id = h.claim AND upper_inf(c.hosts) AND h.state IN ('held', 'quarantined');
    PERFORM drop_holds(n, coalesce((SELECT array_agg(h.claim) FROM hold h JOIN claim c ON c.id = h.claim
        WHERE h.host = n AND NOT (upper_inf(c.hosts) AND h.state = 'quarantined')), '{}'));
    DELETE FROM content c WHERE c.host = n;
    DELETE FROM own o WHERE o.host = n;
    DELETE FROM wish w WHERE w.host = n;
    -- The events stay: who had which ids is a question that comes later.
    UPDATE host h SET name = format('%s, left %s', h.name, h.number), role = '' WHERE h.number = n;
END $$;

-- What hosts see when they run: one row.
CREATE FUNCTION look(of_host text)
RETURNS TABLE (number int, event bigint, stamp text, intended bigint, wishes bigint, own_digest text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, usernsplan, pg_temp AS $$
DECLARE n int := mine(of_host);
BEGIN
    RETURN QUERY SELECT h.number, h.event, h.stamp, i.number,
            (SELECT count(*) FROM wish w WHERE w.host = n), h.own_digest
        FROM host h LEFT JOIN intent i ON i.host = h.number WHERE h.number = n;
END $$;

-- The ids that others have and a host may not give out: (kind, ids), without those of the names it asks about.
CREATE FUNCTION taken(of_host text, asked text[]) RETURNS TABLE (kind text, ids int8multirange)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, usernsplan, pg_temp AS $$
DECLARE n int := mine(of_host);
BEGIN
    RETURN QUERY
        WITH mine AS (
            SELECT c.kind, c.ids, c.hosts FROM hold h JOIN claim c ON c.id = h.claim
            -- What operators want it to take is not there yet, and not for another name.
            WHERE h.host = n AND h.state <> 'wanted'
        ), free AS (
            SELECT m.kind, m.ids FROM mine m WHERE upper_inf(m.hosts)
            UNION ALL SELECT c.kind, c.ids FROM claim c WHERE c.name = ANY (asked) AND upper_inf(c.hosts)
            -- What another host has as local ids too: a name of the whole fleet is there as well.
            UNION ALL SELECT m.kind, unnest(int8multirange(m.ids) - coalesce((
                SELECT range_agg(c.ids) FROM claim c
                WHERE c.kind = m.kind AND c.ids && m.ids AND NOT c.hosts @> n), '{}'))
            FROM mine m WHERE NOT upper_inf(m.hosts)
        ), theirs AS (
            SELECT b.kind, range_agg(r.ids) AS ids FROM taken_block b, unnest(b.ids) AS r(ids) GROUP BY b.kind
        )
        SELECT t.kind, t.ids - coalesce((SELECT range_agg(f.ids) FROM free f WHERE f.kind = t.kind), '{}')
        FROM theirs t;
END $$;

-- The ids of these names, where the whole fleet has them: which hosts have them, and which only quarantine them.
CREATE FUNCTION named(asked text[])
RETURNS TABLE (name text, kind text, start bigint, stop bigint, held text[], quarantined text[])
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, usernsplan, pg_temp AS $$
    SELECT c.name, c.kind, lower(c.ids), upper(c.ids),
        coalesce(array_agg(o.name::text ORDER BY o.name) FILTER (WHERE h.state <> 'quarantined'), '{}'),
        coalesce(array_agg(o.name::text ORDER BY o.name) FILTER (WHERE h.state = 'quarantined'), '{}')
    FROM claim c JOIN hold h ON h.claim = c.id JOIN host o ON o.number = h.host
    WHERE c.name = ANY (asked) AND upper_inf(c.hosts)
    GROUP BY c.id ORDER BY c.name, c.kind, c.ids
$$;

-- The run that a host has begun, as its ledger has it. Nobody else sees the files in it.
CREATE FUNCTION pending(of_host text)
RETURNS TABLE (number bigint, command text, actor text, change text, files text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, usernsplan, pg_temp AS $$
DECLARE n int := mine(of_host);
BEGIN
    RETURN QUERY SELECT i.number, i.command, i.actor, i.change, i.files FROM intent i WHERE i.host = n;
END $$;

-- A host did what it was asked, or says why not: then the wish stays, and its next sync tries again.
-- What was asked later than the wish of_at is not answered with it.
CREATE FUNCTION answer_wish(of_host text, of_name text, why_not text, of_at timestamptz DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, usernsplan, pg_temp AS $$
DECLARE n int := mine(of_host);
BEGIN
    IF why_not <> '' THEN
        UPDATE wish w SET refused = why_not
            WHERE w.host = n AND w.name = of_name AND w.at = coalesce(of_at, w.at);
        RETURN;
    END IF;
    DELETE FROM wish w WHERE w.host = n AND w.name = of_name AND w.at = coalesce(of_at, w.at);
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- What is left of a wish to have a name that came to nothing.
    PERFORM drop_holds(n, ARRAY(
        SELECT h.claim FROM hold h JOIN claim c ON c.id = h.claim
        WHERE h.host = n AND h.state = 'wanted' AND c.name = of_name));
END $$;

-- A host says which ids it has of its own: all of them, each time.
CREATE FUNCTION publish(of_host text, digest text, kinds text[], starts bigint[], stops bigint[], sources text[],
    holders text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, usernsplan, pg_temp AS $$
DECLARE n int := mine(of_host);
BEGIN
    DELETE FROM own o WHERE o.host = n;
    INSERT INTO own (host, kind, ids, source, holder)
        SELECT n, a.kind, int8range(a.start, a.stop), a.source, a.holder
        FROM unnest(kinds, starts, stops, sources, holders) AS a(kind, start, stop, source, holder);
    UPDATE host h SET published = now(), own_digest = digest WHERE h.number = n;
END $$;

-- The numbers of these hosts, for an operator. 42501: the caller is none. UP006: there is no such host.
CREATE FUNCTION asked_hosts(wanted text[]) RETURNS int[] LANGUAGE plpgsql STABLE AS $$
DECLARE missing text;
BEGIN
    IF NOT usernsplan.is_operator() THEN
        RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = format(
            'the role %s may not ask things of other hosts: that takes a member of usernsplan_operator', session_user);
    END IF;
    SELECT a INTO missing FROM unnest(wanted) a
        WHERE NOT EXISTS (SELECT FROM usernsplan.host h WHERE h.name = a AND h.role <> '') LIMIT 1;
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'UP006', MESSAGE = format('the fleet has no host %s', missing);
    END IF;
    RETURN ARRAY(SELECT h.number FROM usernsplan.host h WHERE h.name = ANY (wanted));
END $$;

-- An operator asks hosts to allocate names: all of them or none. The ids are claimed for each host, so that nobody
-- else gets them before its next sync. Returns what is new: a host that has the name already is asked nothing, and
-- what it was asked before, to release the name, is taken back.
-- UP004: the fleet has other ids under a name. UP006: so has one of these hosts, or it has some of the ids of its own.
CREATE FUNCTION ask(wanted text[], of_names text[], of_strategy text, of_options text, names text[], kinds text[],
    starts bigint[], stops bigint[]) RETURNS TABLE (host text, name text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, usernsplan, pg_temp AS $$
DECLARE
    numbers int[] := asked_hosts(wanted);
    way record;
    n int;
BEGIN
    PERFORM alone();
    SELECT a.name AS of, o.name AS host INTO way
        FROM unnest(of_names) AS a(name)
        JOIN content r ON r.host = ANY (numbers) AND r.what = 'allocation' AND r.key = a.name
        JOIN host o ON o.number = r.host
        WHERE EXISTS (
            SELECT FROM unnest(names, kinds, starts, stops) AS b(name, kind, start, stop)
            WHERE b.name = a.name AND NOT EXISTS (
                SELECT FROM hold d JOIN claim c ON c.id = d.claim
                WHERE d.host = r.host AND d.state = 'held' AND upper_inf(c.hosts)
                AND c.name = b.name AND c.kind = b.kind AND c.ids = int8range(b.start, b.stop)))
        LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'UP006', MESSAGE = format(
            '%s has ''%s'' already, and not with these ids', way.host, way.of);
    END IF;
    -- Another host may have taken the name since the ids were chosen.
    SELECT c.name AS of, c.kind, lower(c.ids) AS start, upper(c.ids) - 1 AS last, o.name AS host INTO way
        FROM claim c
        JOIN hold d ON d.claim = c.id AND d.state IN ('held', 'intended', 'wanted')
        JOIN host o ON o.number = d.host
        WHERE upper_inf(c.hosts) AND c.name = ANY (of_names) AND NOT EXISTS (
            SELECT FROM unnest(names, kinds, starts, stops) AS a(name, kind, start, stop)
            WHERE a.name = c.name AND a.kind = c.kind AND int8range(a.start, a.stop) = c.ids)
        ORDER BY c.name, c.kind DESC LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'UP004', MESSAGE = format('in the fleet, ''%s'' has the %ss %s-%s, on %s',
            way.of, way.kind, way.start, way.last, way.host);
    END IF;
    SELECT h.name AS host, o.*, a.name AS of INTO way
        FROM unnest(names, kinds, starts, stops) AS a(name, kind, start, stop)
        JOIN own o ON o.host = ANY (numbers) AND o.kind = a.kind AND o.ids && int8range(a.start, a.stop)
        JOIN host h ON h.number = o.host
        WHERE NOT EXISTS (
            SELECT FROM hold d JOIN claim c ON c.id = d.claim
            WHERE d.host = o.host AND d.state = 'held' AND c.name = a.name)
        LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'UP006', MESSAGE = format(
            '%s has %s %s-%s of its own (%s %s), where ''%s'' would be',
            way.host, way.kind, lower(way.ids), upper(way.ids) - 1, way.source, way.holder, way.of);
    END IF;
    FOREACH n IN ARRAY numbers LOOP
        PERFORM take(n, array_agg(a.name), array_agg(false), array_agg(a.kind), array_agg(a.start),
                array_agg(a.stop), array_agg('wanted'::text))
            FROM unnest(names, kinds, starts, stops) AS a(name, kind, start, stop)
            WHERE NOT EXISTS (
                SELECT FROM hold d JOIN claim c ON c.id = d.claim
                WHERE d.host = n AND c.name = a.name AND c.kind = a.kind AND c.ids = int8range(a.start, a.stop))
            HAVING count(*) > 0;
    END LOOP;
    RETURN QUERY
        DELETE FROM wish w WHERE w.host = ANY (numbers) AND w.name = ANY (of_names) AND w.strategy = ''
            RETURNING (SELECT o.name FROM host o WHERE o.number = w.host), w.name;
    RETURN QUERY
        INSERT INTO wish AS w (host, name, strategy, options, start)
            SELECT h, a.name, of_strategy, of_options, min(b.start)
            FROM unnest(numbers) h CROSS JOIN unnest(of_names) AS a(name)
            LEFT JOIN unnest(names, starts) AS b(name, start) ON b.name = a.name
            WHERE NOT EXISTS (
                SELECT FROM hold d JOIN claim c ON c.id = d.claim
                WHERE d.host = h AND d.state = 'held' AND c.name = a.name)
            AND NOT EXISTS (
                SELECT FROM wish v WHERE v.host = h AND v.name = a.name AND v.strategy = of_strategy
                AND v.options = of_options AND v.refused = '')
            GROUP BY h, a.name
            ON CONFLICT ON CONSTRAINT wish_pkey DO UPDATE SET strategy = excluded.strategy, options = excluded.options,
                start = excluded.start, at = now(), role = session_user, refused = ''
            RETURNING (SELECT o.name FROM host o WHERE o.number = w.host), w.name;
END $$;

-- An operator asks hosts to release names. Returns what is new: a host that lacks the name is asked nothing, and what
-- it was asked before is taken back.
CREATE FUNCTION ask_release(wanted text[], of_names text[]) RETURNS TABLE (host text, name text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, usernsplan, pg_temp AS $$
DECLARE
    numbers int[] := asked_hosts(wanted);
    n int;
BEGIN
    PERFORM alone();
    FOREACH n IN ARRAY numbers LOOP
        PERFORM drop_holds(n, ARRAY(
            SELECT d.claim FROM hold d JOIN claim c ON c.id = d.claim
            WHERE d.host = n AND d.state = 'wanted' AND c.name = ANY (of_names)));
    END LOOP;
    RETURN QUERY
        DELETE FROM wish w WHERE w.host = ANY (numbers) AND w.name = ANY (of_names) AND w.strategy <> ''
            RETURNING (SELECT o.name FROM host o WHERE o.number = w.host), w.name;
    RETURN QUERY
        INSERT INTO wish AS w (host, name, strategy)
            SELECT DISTINCT r.host, a.name, '' FROM unnest(of_names) AS a(name)
            JOIN content r ON r.host = ANY (numbers) AND r.what = 'allocation' AND r.key = a.name
            ON CONFLICT ON CONSTRAINT wish_pkey DO NOTHING
            RETURNING (SELECT o.name FROM host o WHERE o.number = w.host), w.name;
END $$;

-- Leases of volumes.

CREATE FUNCTION in_utc(at timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
$$;

-- Whether one of two volumes is the other, or lies in it. The same inode is the same folder, whatever its path; under
-- the same path of two copies of a disk there are two folders.
CREATE FUNCTION volumes_meet(system text, inside text, inode text, system2 text, inside2 text, inode2 text)
RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT system = system2 AND (
        (inode <> '' AND inode = inode2)
        OR (inside = inside2 AND (inode = '' OR inode2 = ''))
        OR (inside <> inside2 AND (
            starts_with(inside || '/', inside2 || '/') OR starts_with(inside2 || '/', inside || '/'))))
$$;

-- A run is about to work on volumes, or goes on. One row: its token; or, without a token, who keeps it away. A run
-- that goes on keeps the volumes that it does not reach now. A lease never ends by time: a host that lost its
-- connection may still be at work.
CREATE FUNCTION take_lease(of_host text, of_run text, of_container text, of_method text, of_work text,
    systems text[], insides text[], inodes text[], paths text[])
RETURNS TABLE (token bigint, host text, run text, path text, since text, outcome text, role text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, usernsplan, pg_temp AS $$
DECLARE n int := mine(of_host); next bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(7305093, 2);
    RETURN QUERY SELECT NULL::bigint, o.name, l.run, l.path, in_utc(l.since), l.outcome, l.role::text
        FROM lease l JOIN host o ON o.number = l.host
        WHERE CASE WHEN l.host = n AND l.run = of_run
            -- What was given up may have been changed by others since: its journal counts no more.
            THEN l.outcome = 'given up'
            ELSE l.ended IS NULL AND EXISTS (
                SELECT FROM unnest(systems, insides, inodes) AS a(system, inside, inode)
                WHERE volumes_meet(l.system, l.inside, l.inode, a.system, a.inside, a.inode)) END
        ORDER BY l.token LIMIT 1;
    IF FOUND THEN
        RETURN;
    END IF;

    next := nextval('lease_token');
    UPDATE lease l SET token = next WHERE l.host = n AND l.run = of_run AND l.ended IS NULL;
    INSERT INTO lease (token, host, system, inside, inode, path, container, run, method, work)
        SELECT DISTINCT ON (a.system, a.inside) next, n, a.system, a.inside, a.inode, a.path, of_container, of_run,
            of_method, of_work
        FROM unnest(systems, insides, inodes, paths) AS a(system, inside, inode, path)
        ON CONFLICT DO NOTHING;
    RETURN QUERY SELECT next, NULL::text, NULL::text, NULL::text, NULL::text, NULL::text, NULL::text;
END $$;

-- Before a run changes something: whether it still has its lease. UP011: it was ended.
CREATE FUNCTION check_lease(of_host text, of_token bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, usernsplan, pg_temp AS $$
DECLARE n int := mine(of_host);
BEGIN
    UPDATE lease l SET changing = true WHERE l.host = n AND l.token = of_token AND l.ended IS NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'UP011', MESSAGE =
            format('the lease that this run of %s had was ended; it stops where it is', of_host);
    END IF;
END $$;

-- A run has come to its end, with this outcome; '': it changed nothing, and is forgotten. Of the runs before it, each
-- host keeps its last one in a volume. What was given up stays: see take_lease.
CREATE FUNCTION end_lease(of_host text, of_token bigint, of_outcome text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, usernsplan, pg_temp AS $$
DECLARE n int := mine(of_host);
BEGIN
    PERFORM pg_advisory_xact_lock(7305093, 2);
    IF of_outcome = '' THEN
        DELETE FROM lease l WHERE l.host = n AND l.token = of_token AND l.ended IS NULL;
        RETURN;
    END IF;
    DELETE FROM lease o USING lease l
        WHERE l.host = n AND l.token = of_token AND l.ended IS NULL AND o.host = n AND o.token < of_token
        AND o.system = l.system AND o.inside = l.inside AND o.ended IS NOT NULL AND o.outcome <> 'given up';
    UPDATE lease l SET ended = now(), outcome = of_outcome
        WHERE l.host = n AND l.token = of_token AND l.ended IS NULL;
END $$;

-- An operator says that a host will never finish a run. UP012: it has no lease.
CREATE FUNCTION give_up_lease(of_host text, of_run text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, usernsplan, pg_temp AS $$
BEGIN
    IF NOT is_operator() THEN
        RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = format('%s is no operator of the fleet', session_user);
    END IF;
    PERFORM pg_advisory_xact_lock(7305093, 2);
    UPDATE lease l SET ended = now(), outcome = 'given up', role = session_user
        FROM host o WHERE o.number = l.host AND o.name = of_host AND l.run = of_run AND l.ended IS NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'UP012', MESSAGE = format('%s has no lease for a run %s', of_host, of_run);
    END IF;
END $$;

-- A machine that had left says what it has: what was kept for it goes. Its role then is its role now.
CREATE FUNCTION back_again(n int) RETURNS void LANGUAGE sql AS $$
    SELECT usernsplan.drop_holds(o.number, (SELECT coalesce(array_agg(h.claim), '{}') FROM usernsplan.hold h
            WHERE h.host = o.number))
    FROM usernsplan.host o JOIN usernsplan.host now ON now.number = n AND now.machine = o.machine
    WHERE o.role = '' AND o.machine <> ''
        AND EXISTS (SELECT FROM usernsplan.event e WHERE e.host = o.number AND e.role = session_user)
$$;

-- An operator says that no file carries the ids that a host which left had under a name. UP012: it has none.
CREATE FUNCTION forget_left(of_host text, of_name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, usernsplan, pg_temp AS $$
DECLARE n int; gone bigint[];
BEGIN
    IF NOT is_operator() THEN
        RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = format('%s is no operator of the fleet', session_user);
    END IF;
    PERFORM alone();
    SELECT h.host, array_agg(h.claim) INTO n, gone FROM hold h JOIN host o ON o.number = h.host
        JOIN claim c ON c.id = h.claim WHERE o.name = of_host AND o.role = '' AND c.name = of_name GROUP BY h.host;
    IF n IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'UP012', MESSAGE =
            format('no host that left as %s had ids of %s', quote_literal(of_host), quote_literal(of_name));
    END IF;
    PERFORM drop_holds(n, gone);
END $$;

-- The leases that keep others away, and the last that ended. A volume may have several rows.
CREATE FUNCTION leases()
RETURNS TABLE (host text, path text, container text, run text, method text, since text, ended text, outcome text,
    role text, changing boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, usernsplan, pg_temp AS $$
    SELECT DISTINCT ON (l.path, l.token) o.name, l.path, l.container, l.run, l.method, in_utc(l.since), in_utc(l.ended),
        l.outcome, l.role::text, l.changing
    FROM lease l JOIN host o ON o.number = l.host ORDER BY l.path, l.token
$$;

-- The last run that ended in these volumes, if it is another host's and moved the same ids.
CREATE FUNCTION moved_by(of_host text, of_work text, systems text[], insides text[], inodes text[])
RETURNS TABLE (host text, run text, path text, outcome text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, usernsplan, pg_temp AS $$
DECLARE n int := mine(of_host);
BEGIN
    RETURN QUERY SELECT last.name, last.run, last.path, last.outcome FROM (
        SELECT o.name, l.* FROM lease l JOIN host o ON o.number = l.host
        WHERE l.ended IS NOT NULL AND l.method = 'chown' AND l.outcome <> 'undone' AND EXISTS (
            SELECT FROM unnest(systems, insides, inodes) AS a(system, inside, inode)
            WHERE volumes_meet(l.system, l.inside, l.inode, a.system, a.inside, a.inode))
        ORDER BY l.ended DESC, l.token DESC LIMIT 1) AS last
        WHERE last.host <> n AND last.work = of_work;
END $$;

-- Nobody but the functions writes, even if somebody grants more to a role by mistake: an error, not no rows. And of
-- the history a host's role could then only append its own.
CREATE FUNCTION only_functions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT pg_catalog.pg_has_role(current_user, (
        SELECT n.nspowner FROM pg_catalog.pg_namespace n WHERE n.nspname = 'usernsplan'), 'MEMBER')
    THEN
        RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE =
            pg_catalog.format('only the functions of usernsplan write to %s', TG_TABLE_NAME);
    END IF;
    RETURN NULL;
END $$;
DO $$
DECLARE one text;
BEGIN
    FOREACH one IN ARRAY ARRAY['meta', 'host', 'claim', 'hold', 'taken_block', 'event', 'intent', 'content', 'own',
        'wish', 'lease'] LOOP
        EXECUTE format('CREATE TRIGGER only_functions BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %I '
            'FOR EACH STATEMENT EXECUTE FUNCTION only_functions()', one);
    END LOOP;
END $$;
ALTER TABLE event ENABLE ROW LEVEL SECURITY;
CREATE POLICY see ON event FOR SELECT USING (true);
CREATE POLICY append ON event FOR INSERT
    WITH CHECK (host IN (SELECT h.number FROM host h WHERE h.role = session_user));

-- Who may do what. A host's role writes through the functions, for its own host alone.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA usernsplan FROM PUBLIC;
GRANT USAGE ON SCHEMA usernsplan TO usernsplan_host, usernsplan_operator;
GRANT SELECT ON meta, host, claim, hold, event, content, own, wish, lease TO usernsplan_host, usernsplan_operator;
-- Whether a host is at work everybody may see, but not the files in it.
GRANT SELECT (host, number) ON intent TO usernsplan_host, usernsplan_operator;
GRANT EXECUTE ON FUNCTION is_operator, mine, join_host, begin_run, tell, drop_run, leave, look, taken, named,
    pending, clashes, would_clash, answer_wish, publish, ask, ask_release TO usernsplan_host, usernsplan_operator;
GRANT EXECUTE ON FUNCTION take_lease, check_lease, end_lease, give_up_lease, moved_by, leases, forget_left
    TO usernsplan_host, usernsplan_operator;
