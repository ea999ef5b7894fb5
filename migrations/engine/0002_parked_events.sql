-- Events that a projection could not apply, and the later events of the same key, which wait behind them. The events
-- of all other keys are applied.
SET LOCAL ROLE daybook_owner;

CREATE TABLE daybook.parked_events (
    projection text        NOT NULL,
    position   bigint      NOT NULL,
    -- an order or a stream: the later events of this key wait
    key        uuid        NOT NULL,
    -- NULL if the event only waits for one before it
    cause      text,
    parked_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- of the projection's rows: each generation parks events by itself
    generation integer     NOT NULL,
    -- derived from the event and the projection
    id         uuid        NOT NULL,
    CONSTRAINT parked_events_position PRIMARY KEY (projection, generation, position)
);
CREATE INDEX parked_events_key ON daybook.parked_events (projection, generation, key, position);
-- The first event of each key is a dead letter. The others wait for it.
CREATE INDEX parked_events_first ON daybook.parked_events (parked_at, id) WHERE cause IS NOT NULL;

GRANT SELECT ON daybook.parked_events TO daybook_read;
GRANT SELECT, INSERT, DELETE ON daybook.parked_events TO daybook_project;
-- When the first event of a key is applied or discarded, the next one may turn out to fail as well: then it gets a
-- cause.
GRANT UPDATE (cause) ON daybook.parked_events TO daybook_project;
