-- daybook.append_one: appends one event of a caller that knows the head of the log and the version of the stream.
-- Clients that are alone go this way.
--
-- A group of one costs append_group twice as much: this is one statement, that is a function which checks a group. So
-- this does only what needs no check. The caller vouches for stream_version at the head that it has seen, as in
-- append_group.
--
-- The statement's snapshot is older than its lock, which is harmless: it only has to show the event at seen_position.
-- Whether that event still is the head, the unique index on positions decides. Positions are dense, so the next one
-- is free only if nobody has written since.
--
-- Returns the recorded_at and the link of the event. It returns NULL if the log does not have what the caller has
-- seen or the clocks differ, and fails with 23505 on events_position if another caller has written since. In all these
-- cases nothing is written, and append_group says what the caller has to know.
SET LOCAL ROLE daybook_owner;

CREATE FUNCTION daybook.append_one(
    seen_position bigint, seen_link bytea,
    stream_category smallint, stream_uuid uuid, stream_version bigint,
    correlation uuid, causation uuid, command uuid, command_fingerprint bytea,
    actor_name text, origin_code smallint, happened_at timestamptz, trace text,
    event_uuid uuid, type_name text, type_version smallint, body text, event_entry bytea,
    callers_clock timestamptz, clock_tolerance float8,
    OUT recorded timestamptz, OUT event_link bytea)
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
    WITH last AS MATERIALIZED (
        SELECT e.position + 1 AS next, e.link, greatest(clock_timestamp(), e.recorded_at) AS stamp
          FROM (SELECT FROM daybook.log FOR UPDATE) AS locked, daybook.events AS e
         WHERE e.position = seen_position AND e.link = seen_link
           AND daybook.clocks_agree(callers_clock, clock_tolerance)
               -- What is acknowledged is durable, whatever the connection is set to.
           AND CASE WHEN current_setting('synchronous_commit') IN ('on', 'remote_apply') THEN true
                    ELSE set_config('synchronous_commit', 'on', true) = 'on' END)
    INSERT INTO daybook.events (
           position, version, recorded_at, occurred_at, category, schema_version, origin,
           stream_id, event_id, correlation_id, causation_id, command_id,
           fingerprint, event_type, actor, traceparent, payload, link)
    SELECT last.next, stream_version, last.stamp, happened_at, stream_category, type_version, origin_code,
           stream_uuid, event_uuid, correlation, causation, command,
           command_fingerprint, type_name, actor_name, trace, body::json,
           sha256(last.link || int8send(last.next) || timestamptz_send(last.stamp) || event_entry)
      FROM last
    RETURNING recorded_at, link
$$;
REVOKE ALL ON FUNCTION daybook.append_one FROM PUBLIC;
GRANT EXECUTE ON FUNCTION daybook.append_one TO daybook_append;
