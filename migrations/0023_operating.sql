-- What keeps a projection from going on: somebody paused it, it fails, or an event cannot be taken in.

SET LOCAL ROLE daybook_owner;

ALTER TABLE daybook.checkpoints
    ADD COLUMN paused     boolean NOT NULL DEFAULT false,
    -- what the last try failed with, and when; null once a try succeeds
    ADD COLUMN last_error text,
    ADD COLUMN failed_at  timestamptz,
    -- how often somebody else than its owner has written rows: what the owner remembers of them is void then
    ADD COLUMN edits      bigint  NOT NULL DEFAULT 0;

-- Events that could not be taken into a projection, and those of the same key that wait behind them. All other keys go on.
CREATE TABLE daybook.parked_events (
    projection     text        NOT NULL,
    position       bigint      NOT NULL,
    -- what waits for it: an order, or a stream
    key            uuid        NOT NULL,
    correlation_id uuid        NOT NULL,
    event_type     text        NOT NULL,
    -- null of an event that only waits for one before it
    cause          text,
    parked_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT parked_events_position PRIMARY KEY (projection, position)
);
CREATE INDEX parked_events_key ON daybook.parked_events (projection, key, position);

GRANT SELECT ON daybook.parked_events TO daybook_read;
GRANT SELECT, INSERT, DELETE ON daybook.parked_events TO daybook_project;

RESET ROLE;
