-- The event log: who may do what to it, and its tables.

-- Roles belong to the server, not to the database: another Daybook may have made them, this moment.
DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['daybook_owner', 'daybook_append', 'daybook_project', 'daybook_read'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT', role);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
    END LOOP;
END
$$;
-- Whoever migrates may act as each of them; services that log in as somebody else must be granted theirs.
GRANT daybook_owner, daybook_append, daybook_project, daybook_read TO CURRENT_USER WITH SET TRUE;

CREATE SCHEMA daybook AUTHORIZATION daybook_owner;
GRANT USAGE ON SCHEMA daybook TO daybook_append, daybook_project, daybook_read;

SET LOCAL ROLE daybook_owner;

-- Which log this is. One row, locked by every append and never updated by one. The epoch rises when the log goes on
-- from an older state, after a restore: what was distributed of the earlier epoch is void.
CREATE TABLE daybook.log (
    only_row   boolean     NOT NULL DEFAULT true,
    log_id     uuid        NOT NULL DEFAULT gen_random_uuid(),
    epoch      bigint      NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT log_only_row PRIMARY KEY (only_row),
    CONSTRAINT log_only_row_true CHECK (only_row)
);
INSERT INTO daybook.log DEFAULT VALUES;

-- A category is stored with every event: as two bytes, not as a word.
CREATE TABLE daybook.categories (
    id   smallint NOT NULL,
    name text     NOT NULL,
    CONSTRAINT categories_id PRIMARY KEY (id),
    CONSTRAINT categories_name UNIQUE (name),
    CONSTRAINT categories_name_form CHECK (name ~ '^[a-z][a-z_]{0,30}$')
);

-- Columns stand in the order that wastes no alignment. Three indexes and no more: each costs every append. What is
-- asked by type, by time or by correlation is a projection's to answer.
CREATE TABLE daybook.events (
    -- dense, from 1, in commit order
    position       bigint      NOT NULL,
    -- in its stream: dense, from 1
    version        bigint      NOT NULL,
    -- this server's clock; never falls with position
    recorded_at    timestamptz NOT NULL,
    -- when it happened, by whoever said so
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
    -- of the command: tells it, sent again, from another one under its id
    fingerprint    bytea       NOT NULL,
    event_type     text        NOT NULL,
    actor          text        NOT NULL,
    traceparent    text,
    -- json, not jsonb: kept and sent on as it came, byte for byte
    payload        json        NOT NULL,
    CONSTRAINT events_position PRIMARY KEY (position),
    CONSTRAINT events_stream_version UNIQUE (category, stream_id, version),
    CONSTRAINT events_event_id UNIQUE (event_id)
);

-- Append-only, for its owner as well. No role is granted more than SELECT; this is the second line.
CREATE FUNCTION daybook.refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'events are append-only' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON daybook.events
    FOR EACH STATEMENT EXECUTE FUNCTION daybook.refuse_change();
-- also under session_replication_role = replica
ALTER TABLE daybook.events ENABLE ALWAYS TRIGGER events_append_only;

GRANT SELECT ON daybook.events, daybook.log, daybook.categories TO daybook_project, daybook_read;

RESET ROLE;
