-- What is due at some time, unless an event makes it needless before. Written with the checkpoint of the events that set
-- and clear them; what is due becomes a follow-up, and its row here goes.

SET LOCAL ROLE daybook_owner;

CREATE TABLE daybook.timers (
    kind           text        NOT NULL,
    -- the id of the stream that it is about
    target         uuid        NOT NULL,
    -- tells those of one kind and target from each other
    key            text        NOT NULL,
    -- derived from event, kind, target and key; also the id of the follow-up that it becomes
    id             uuid        NOT NULL,
    -- the event that has set it
    event_id       uuid        NOT NULL,
    position       bigint      NOT NULL,
    -- the order
    correlation_id uuid        NOT NULL,
    act            jsonb       NOT NULL,
    -- by Postgres' clock alone: when the event was recorded, and some seconds
    fires_at       timestamptz NOT NULL,
    -- an event that clears a timer names it by these
    CONSTRAINT timers_name PRIMARY KEY (kind, target, key)
);
-- The sweeper's only question is what is due.
CREATE INDEX timers_fires_at ON daybook.timers (fires_at);

-- Like follow-ups, nothing is set by what was imported.
INSERT INTO daybook.checkpoints (projection, generation, live, position)
VALUES ('timers', 1, true, coalesce((SELECT imported_to FROM daybook.log), 0));

GRANT SELECT ON daybook.timers TO daybook_read;
GRANT SELECT, INSERT, UPDATE, DELETE ON daybook.timers TO daybook_project;

RESET ROLE;
