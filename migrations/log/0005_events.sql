-- The events, in commit order.
SET LOCAL ROLE daybook_owner;

-- The order of the columns wastes no alignment. There are three indexes and no more, because each costs every append. A
-- projection answers what is asked by type, by time or by correlation.
CREATE TABLE daybook.events (
    -- dense, from 1, in commit order
    position       bigint      NOT NULL,
    -- within its stream: dense, from 1
    version        bigint      NOT NULL,
    -- by this server's clock; never falls with position
    recorded_at    timestamptz NOT NULL,
    -- when it happened, as the caller says
    occurred_at    timestamptz NOT NULL,
    category       smallint    NOT NULL,
    schema_version smallint    NOT NULL,
    -- 0 live, 1 import
    origin         smallint    NOT NULL,
    stream_id      uuid        NOT NULL,
    -- derived from the command's id and the event's place in the command; grows with time
    event_id       uuid        NOT NULL,
    correlation_id uuid        NOT NULL,
    -- the event that led to the command, if one did
    causation_id   uuid,
    command_id     uuid        NOT NULL,
    -- of the command: tells a command that is sent again from another command with the same id
    fingerprint    bytea       NOT NULL,
    event_type     text        NOT NULL,
    actor          text        NOT NULL,
    traceparent    text,
    -- json, not jsonb: it is stored and sent on as it came, byte for byte
    payload        json        NOT NULL,
    -- of the last event of each group of appends: the group's link in the hash chain (see append_group)
    link           bytea,
    CONSTRAINT events_position PRIMARY KEY (position),
    CONSTRAINT events_stream_version UNIQUE (category, stream_id, version),
    CONSTRAINT events_event_id UNIQUE (event_id)
);

-- Append-only, even for its owner. No role is granted more than SELECT; this is the second line of defence.
CREATE FUNCTION daybook.refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'events are append-only' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON daybook.events
    FOR EACH STATEMENT EXECUTE FUNCTION daybook.refuse_change();
-- ALWAYS: also under session_replication_role = replica. CREATE TRIGGER cannot say so.
ALTER TABLE daybook.events ENABLE ALWAYS TRIGGER events_append_only;

GRANT SELECT ON daybook.events TO daybook_project, daybook_read;
