-- Timers: what will be due at some time, unless an event makes it needless before. The rows are written in the
-- transaction that moves the checkpoint past the events that set and clear them. When a timer is due, its row here
-- becomes a follow-up.
SET LOCAL ROLE daybook_owner;

CREATE TABLE daybook.timers (
    -- the domain whose event has set it
    domain         text        NOT NULL,
    kind           text        NOT NULL,
    -- the id of the stream that it is about
    target         uuid        NOT NULL,
    -- distinguishes timers of the same kind and target
    key            text        NOT NULL,
    -- derived from event, kind, target and key; also the id of the follow-up that it becomes
    id             uuid        NOT NULL,
    -- the event that has set it
    event_id       uuid        NOT NULL,
    position       bigint      NOT NULL,
    -- what the timer belongs to, such as an order
    correlation_id uuid        NOT NULL,
    act            jsonb       NOT NULL,
    -- by this server's clock alone: some seconds after counted_from
    fires_at       timestamptz NOT NULL,
    -- when the event was recorded; or, if that turned out to be in the future, the time when this was found
    counted_from   timestamptz NOT NULL,
    -- an event that clears a timer names it by these
    CONSTRAINT timers_name PRIMARY KEY (domain, kind, target, key)
);
-- For the sweeper of a domain, which asks for what is due, the longest due first.
CREATE INDEX timers_fires_at ON daybook.timers (domain, fires_at);

-- Imported events are history: they set no timers.
INSERT INTO daybook.checkpoints (projection, generation, live, position)
SELECT 'timers', 1, true, imported_to FROM daybook.log;

GRANT SELECT ON daybook.timers TO daybook_read;
GRANT SELECT, INSERT, UPDATE, DELETE ON daybook.timers TO daybook_project;
