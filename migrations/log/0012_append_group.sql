-- daybook.append_group: the append.
--
-- The caller sends a GROUP of appends. Each append is all-or-nothing; the group is not: a refused append uses no
-- position and does not affect the others.
--
-- The caller may execute this function and nothing else, so the function trusts it with nothing:
--   * positions are numbered here, under the lock, densely and in commit order;
--   * the versions that the caller claims are compared with the table before they are stored, with one probe for each
--     stream; unless the caller vouches for them at a head that it has seen, and the log still ends there: then nobody
--     else has written since;
--   * the link of the hash chain is computed here, over the digests that the caller sends;
--   * arrays that do not fit each other are refused, and so are missing elements, by the NOT NULL columns.
--
-- Call it in autocommit at READ COMMITTED. (Under REPEATABLE READ the snapshot may be older than the lock. Then the
-- head that is read here is stale, and events_position refuses the rows: an error, never a wrong log.)
--
-- The hash chain has one link for each group. The link of a group is the SHA-256 of the link before it (32 zero bytes
-- before the first group), the group's first position, its recorded_at, and the version and the digest (event_digest)
-- of each of its events, in order; numbers and times are as in PostgreSQL's binary format. The link is stored with
-- the group's last event. So a log that was altered anywhere does not fit its links, and two histories of a log have
-- no link in common after they part, though they may have ids, versions and stamps in common.
--
-- Every array is one-dimensional, from 1. Indexes between them start at 1:
--   stream_*          the distinct streams of the group, including those that it only expects something of
--   correlation_ids.. one element for each append: what its events have in common
--   event_*, payloads one element for each event, append by append, in order
--     event_append     its append
--     event_stream     its stream
--     event_version    the version that the caller claims for it; NULL = the next one, whatever it is (no expectation)
--     event_previous   the event of the group, in the same stream, that this one continues: it is refused together with
--                      that one. NULL = it continues what is in the log, or what the group has written there by then,
--                      if the versions fit. (An appender gathers appends that were each decided on what the one
--                      before will write. If another process was faster, the first is a conflict; but through that
--                      other process, the stream may be at the very version that the second expects.)
--     event_entries    40 bytes for each event, which the link covers: its version (8 bytes; ignored where none is
--                      claimed) and its digest (32 bytes)
--   expect_*          expectations that the versions do not carry, append by append: of a stream that the append does
--                     not write, or "must exist". expect_version n >= 0: exactly n (0 = no stream); -1: at least one
--                     event
--   seen_*            the marks that the caller has seen: positions, and the link of each. If the log lacks one of
--                     them, nothing is written: YH001. What the caller remembers is of another history
--   vouched_at        the caller knows that all versions it claims fit if the log ends at this position, which is one
--                     of seen_positions. NULL = it does not know
--   checked           go straight to the checked path; for a caller whose group failed on events_event_id
--   callers_clock     what time it is for the caller. If it differs from the time here by more than clock_tolerance, in
--                     seconds, nothing is written: YH002, from daybook.check_clock
--
-- Returns
--   one row with append NULL, outcome 'written': the whole group, from first_position on, in the order sent;
--   or one row for each append:
--     'written'    first_position (with expectations only: where the next event would go), and its events' versions
--     'conflict'   stream (index), expected_version (as claimed; -1 = must exist), actual_version
--     'duplicate'  its first event id is already in the log, at first_position
--     'id_taken'   its first event id is new, but another of its ids is in the log or repeated in the group, at
--                  first_position (NULL if not in the log). This is a fault of the caller, not a retry
--   and in each row where the log ends after the group: end_position, end_link.
--
-- The settings belong to the function, not to the connection:
--   search_path       because of SECURITY DEFINER.
--   plan_cache_mode   the parameters never change the plan; without this, short arrays are planned each time.
--   enable_seqscan    plans are cached. A plan that was made while the log was one page long would scan the whole log,
--                     once for each stream of each group, until the next ANALYZE.
SET LOCAL ROLE daybook_owner;

CREATE FUNCTION daybook.append_group(
    stream_category smallint[], stream_ids uuid[],
    correlation_ids uuid[], causation_ids uuid[], command_ids uuid[], fingerprints bytea[],
    actors text[], origins smallint[], occurred_ats timestamptz[], traceparents text[],
    event_append int[], event_stream int[], event_version bigint[], event_previous int[],
    event_ids uuid[], event_types text[], schema_versions smallint[], payloads text[], event_entries bytea,
    expect_append int[], expect_stream int[], expect_version bigint[],
    seen_positions bigint[], seen_links bytea[], vouched_at bigint, checked boolean,
    callers_clock timestamptz, clock_tolerance float8)
RETURNS TABLE (
    append int, outcome text, first_position bigint, group_recorded_at timestamptz,
    event_versions bigint[], stream int, expected_version bigint, actual_version bigint,
    end_position bigint, end_link bytea)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
AS $function$
DECLARE
    appends    CONSTANT int := cardinality(command_ids);
    events     CONSTANT int := cardinality(event_ids);
    expects    CONSTANT int := cardinality(expect_append);
    head       bigint;       -- the last position before this group
    stamp      timestamptz;  -- recorded_at of the whole group
    chained    bytea;        -- the link of the last event; in the end, of this group
    continues  boolean;      -- the log has what the caller has seen of it
    agreed     boolean;      -- every claim of the group holds
    -- The checked path only:
    slots      int[];        -- per event its place in the group as written, NULL = refused; all NULL = as sent
    running    bigint[];     -- per stream the version reached so far
    stored     bigint[];     -- per event the position its id already has in the log
    repeats    boolean[];    -- per event: an earlier event of the group has its id
    outcomes   text[]   := '{}';
    firsts     bigint[] := '{}';
    lengths    int[]    := '{}';   -- per append: how many events it has
    streams    int[]    := '{}';
    expecteds  bigint[] := '{}';
    actuals    bigint[] := '{}';
    taken      int := events;  -- how many events are written
    event      int := 1;     -- the first event not yet looked at
    expect     int := 1;     -- the first expectation not yet looked at
    start      int;          -- the append's first event
    stop       int;          -- the event after its last
    original   int;
BEGIN
    -- Arrays that do not fit each other would be read as if they did. A NULL array fits nothing.
    IF (cardinality(stream_category) = cardinality(stream_ids)
        AND appends = ALL (ARRAY[
            cardinality(correlation_ids), cardinality(causation_ids), cardinality(fingerprints), cardinality(actors),
            cardinality(origins), cardinality(occurred_ats), cardinality(traceparents)])
        AND events = ALL (ARRAY[
            cardinality(event_append), cardinality(event_stream), cardinality(event_version),
            cardinality(event_previous), cardinality(event_types), cardinality(schema_versions),
            cardinality(payloads), octet_length(event_entries) / 40])
        AND octet_length(event_entries) % 40 = 0
        AND expects = ALL (ARRAY[cardinality(expect_stream), cardinality(expect_version)])
        AND cardinality(seen_positions) = cardinality(seen_links)) IS NOT TRUE THEN
        RAISE EXCEPTION 'the arrays of a group do not fit each other' USING ERRCODE = 'invalid_parameter_value';
    END IF;

    IF appends = 0 THEN
        RETURN;
    END IF;

    IF NOT daybook.clocks_agree(callers_clock, clock_tolerance) THEN
        PERFORM daybook.check_clock(callers_clock, clock_tolerance);
    END IF;

    -- What is acknowledged is durable, whatever the connection is set to: a pooler may have dropped its setting.
    IF current_setting('synchronous_commit') NOT IN ('on', 'remote_apply') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;

    -- One appender at a time, until its transaction ends: so positions are in commit order, without holes.
    -- The row is locked, never updated. A row that each group rewrites leaves dead versions, which no vacuum may remove
    -- while any snapshot on the server is open; each group would walk through all of them.
    PERFORM FROM daybook.log FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'daybook.log has no row: the log was never created'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;

    -- The head and the verdict, in one statement: each statement costs a group of one some 5 % of its time.
    -- Its snapshot is taken after the lock, so it sees everything that the last owner of the lock wrote.
    --
    -- A stream's first event in the group must continue the stream; each later one must continue the one before.
    -- Both together leave no gap, and events_stream_version allows no version twice. The bound on s.version keeps the
    -- probe to one index entry, however long the stream is; below it, any answer would be a conflict anyway.
    -- "IS NOT TRUE": a claim that is NULL, or refers to nothing, fails.
    -- An empty log has no row here: its first group takes the checked path.
    SELECT last.position, last.recorded_at, last.link,
           CASE WHEN cardinality(seen_positions) = 1 AND last.position = seen_positions[1] THEN last.link = seen_links[1]
                ELSE daybook.has_marks(seen_positions, seen_links) END,
           CASE WHEN last.position = vouched_at THEN true ELSE NOT EXISTS (
               SELECT FROM generate_series(1, events) AS e(n)
               WHERE (event_version[e.n] = 1 + CASE
                   WHEN event_previous[e.n] IS NULL THEN coalesce((
                       SELECT s.version FROM daybook.events AS s
                       WHERE s.category = stream_category[event_stream[e.n]]
                         AND s.stream_id = stream_ids[event_stream[e.n]]
                         AND s.version >= event_version[e.n] - 1
                       ORDER BY s.version DESC LIMIT 1), 0)
                   WHEN event_previous[e.n] < e.n AND event_stream[event_previous[e.n]] = event_stream[e.n]
                       THEN event_version[event_previous[e.n]]
                   END) IS NOT TRUE) END
      INTO head, stamp, chained, continues, agreed
      FROM daybook.events AS last ORDER BY last.position DESC LIMIT 1;
    IF NOT coalesce(continues, cardinality(seen_positions) = 0) THEN
        RAISE EXCEPTION 'the log does not have all that the caller has seen, up to position %',
            (SELECT max(position) FROM unnest(seen_positions) AS seen(position))
            USING ERRCODE = 'YH001', HINT = 'The log has gone on from an older state: what was decided must be decided anew.';
    END IF;
    head  := coalesce(head, 0);
    stamp := greatest(clock_timestamp(), stamp);  -- never falls with position, whatever the clock does

    -- Explicit expectations are rare. They include what earlier appends of this group write: those versions fit.
    IF agreed AND expects > 0 THEN
        SELECT NOT EXISTS (
                   SELECT FROM unnest(expect_append, expect_stream, expect_version) AS x(append, stream, version)
                   CROSS JOIN LATERAL (
                       SELECT coalesce(
                           (SELECT max(event_version[e.n]) FROM generate_series(1, events) AS e(n)
                            WHERE event_stream[e.n] = x.stream AND event_append[e.n] < x.append),
                           (SELECT s.version FROM daybook.events AS s
                            WHERE s.category = stream_category[x.stream] AND s.stream_id = stream_ids[x.stream]
                            ORDER BY s.version DESC LIMIT 1),
                           0) AS version) AS now
                   WHERE CASE x.version WHEN -1 THEN now.version > 0 ELSE now.version = x.version END IS NOT TRUE)
          INTO agreed;
    END IF;

    IF checked OR agreed IS NOT TRUE THEN
        -- The checked path: append by append, each compared with what the ones before it left. The lock keeps the
        -- table as it is. The results are slots and event_version; the INSERT below is the same for both paths.
        SELECT array_agg(coalesce((
                   SELECT s.version FROM daybook.events AS s
                   WHERE s.category = k.category AND s.stream_id = k.stream_id
                   ORDER BY s.version DESC LIMIT 1), 0) ORDER BY k.n)
          INTO running
          FROM unnest(stream_category, stream_ids) WITH ORDINALITY AS k(category, stream_id, n);
        SELECT array_agg((SELECT s.position FROM daybook.events AS s WHERE s.event_id = e.event_id) ORDER BY e.n),
               array_agg(e.n > e.first_n ORDER BY e.n)
          INTO stored, repeats
          FROM (SELECT u.event_id, u.n, min(u.n) OVER (PARTITION BY u.event_id) AS first_n
                FROM unnest(event_ids) WITH ORDINALITY AS u(event_id, n)) AS e;
        slots := array_fill(NULL::int, ARRAY[events]);
        taken := 0;

        FOR a IN 1 .. appends LOOP
            outcomes[a]  := 'written';
            firsts[a]    := NULL;
            streams[a]   := NULL;
            expecteds[a] := NULL;
            actuals[a]   := NULL;
            start := event;
            stop  := start;
            WHILE stop <= events AND event_append[stop] = a LOOP
                stop := stop + 1;
            END LOOP;
            event := stop;
            lengths[a] := stop - start;

            -- Ids before versions: otherwise, a retry of what was written would conflict with itself.
            FOR i IN start .. stop - 1 LOOP
                IF stored[i] IS NOT NULL THEN
                    outcomes[a] := CASE WHEN i = start THEN 'duplicate' ELSE 'id_taken' END;
                    firsts[a]   := stored[i];
                    EXIT;
                ELSIF repeats[i] THEN
                    -- The id occurs earlier in the group; that does not count if that append was refused.
                    original := NULL;
                    FOR j IN 1 .. i - 1 LOOP
                        IF event_ids[j] = event_ids[i] AND (j >= start OR slots[j] IS NOT NULL) THEN
                            original := j;
                            EXIT;
                        END IF;
                    END LOOP;
                    IF original IS NOT NULL THEN
                        outcomes[a] := CASE WHEN i = start THEN 'duplicate' ELSE 'id_taken' END;
                        firsts[a]   := head + slots[original];
                        EXIT;
                    END IF;
                END IF;
            END LOOP;

            -- Explicit expectations: read all of them, even if the append is refused already, to get past them.
            WHILE expect <= expects AND expect_append[expect] = a LOOP
                IF outcomes[a] = 'written' AND (CASE expect_version[expect]
                       WHEN -1 THEN running[expect_stream[expect]] > 0
                       ELSE running[expect_stream[expect]] = expect_version[expect] END) IS NOT TRUE THEN
                    outcomes[a]  := 'conflict';
                    streams[a]   := expect_stream[expect];
                    expecteds[a] := expect_version[expect];
                    actuals[a]   := running[expect_stream[expect]];
                END IF;
                expect := expect + 1;
            END LOOP;

            IF outcomes[a] = 'written' THEN
                FOR i IN start .. stop - 1 LOOP
                    -- If the event before was refused, a version that fits belongs to another append.
                    IF event_version[i] <> running[event_stream[i]] + 1
                       OR event_previous[i] BETWEEN 1 AND start - 1 AND slots[event_previous[i]] IS NULL THEN
                        outcomes[a]  := 'conflict';
                        streams[a]   := event_stream[i];
                        expecteds[a] := event_version[i] - 1;
                        actuals[a]   := running[event_stream[i]];
                        -- All or nothing: take back what the append's earlier events have counted.
                        FOR j IN start .. i - 1 LOOP
                            running[event_stream[j]] := running[event_stream[j]] - 1;
                            slots[j] := NULL;
                        END LOOP;
                        taken := taken - (i - start);
                        EXIT;
                    END IF;
                    running[event_stream[i]] := running[event_stream[i]] + 1;
                    event_version[i] := running[event_stream[i]];
                    taken    := taken + 1;
                    slots[i] := taken;
                END LOOP;
                IF outcomes[a] = 'written' THEN
                    firsts[a] := head + coalesce(slots[start], taken + 1);
                END IF;
            END IF;
        END LOOP;

        IF event <= events OR expect <= expects THEN
            RAISE EXCEPTION 'events and expectations must be listed append by append'
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        -- The entries of the events that are written, each with its final version.
        SELECT string_agg(int8send(event_version[e.n]) || substring(event_entries FROM e.n * 40 - 31 FOR 32), ''
                          ORDER BY e.n)
          INTO event_entries
          FROM generate_series(1, events) AS e(n) WHERE slots[e.n] IS NOT NULL;
    END IF;
    IF taken > 0 THEN
        chained := sha256(coalesce(chained, decode(repeat('00', 32), 'hex'))
                          || int8send(head + 1) || timestamptz_send(stamp) || event_entries);
    END IF;

    -- Subscripts instead of unnest: plpgsql holds its arrays taken apart, so an element is an address, whereas each
    -- array unnested is a tuple store of its own.
    INSERT INTO daybook.events (
           position, version, recorded_at, occurred_at,
           category, schema_version, origin,
           stream_id, event_id, correlation_id, causation_id, command_id,
           fingerprint, event_type, actor, traceparent, payload, link)
    SELECT head + CASE WHEN slots IS NULL THEN e.n ELSE slots[e.n] END,
           event_version[e.n], stamp, occurred_ats[event_append[e.n]],
           stream_category[event_stream[e.n]], schema_versions[e.n], origins[event_append[e.n]],
           stream_ids[event_stream[e.n]], event_ids[e.n], correlation_ids[event_append[e.n]],
           causation_ids[event_append[e.n]], command_ids[event_append[e.n]],
           fingerprints[event_append[e.n]], event_types[e.n], actors[event_append[e.n]],
           traceparents[event_append[e.n]], payloads[e.n]::json,
           CASE WHEN CASE WHEN slots IS NULL THEN e.n ELSE slots[e.n] END = taken THEN chained END
      FROM generate_series(1, events) AS e(n)
     WHERE slots IS NULL OR slots[e.n] IS NOT NULL;

    group_recorded_at := stamp;
    end_position      := head + taken;
    end_link          := coalesce(chained, decode(repeat('00', 32), 'hex'));
    IF slots IS NULL THEN
        outcome        := 'written';
        first_position := head + 1;
        RETURN NEXT;
        RETURN;
    END IF;
    start := 1;
    FOR a IN 1 .. appends LOOP
        append           := a;
        outcome          := outcomes[a];
        first_position   := firsts[a];
        event_versions   := CASE outcomes[a] WHEN 'written' THEN event_version[start : start + lengths[a] - 1] END;
        start            := start + lengths[a];
        stream           := streams[a];
        expected_version := expecteds[a];
        actual_version   := actuals[a];
        RETURN NEXT;
    END LOOP;
END
$function$;

-- Everybody may execute a new function, until that is revoked.
REVOKE ALL ON FUNCTION daybook.append_group FROM PUBLIC;
GRANT EXECUTE ON FUNCTION daybook.append_group TO daybook_append;
