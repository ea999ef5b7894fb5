-- Follow-ups: what has to be done because of an event. This is an outbox: a row is written in the transaction that
-- moves the checkpoint past the event, the sender does what it says, at least once, and the row keeps the result.
SET LOCAL ROLE daybook_owner;

CREATE TABLE daybook.follow_ups (
    -- derived from event, reaction and target; also the command id, or the idempotency key, of what is done
    id             uuid        NOT NULL,
    -- the domain whose reaction made the row, and whose sender does what it says
    domain         text        NOT NULL,
    event_id       uuid        NOT NULL,
    -- of the event
    position       bigint      NOT NULL,
    -- what the follow-up belongs to, such as an order
    correlation_id uuid        NOT NULL,
    reaction       text        NOT NULL,
    target         uuid        NOT NULL,
    act            jsonb       NOT NULL,
    state          text        NOT NULL DEFAULT 'due',
    attempts       integer     NOT NULL DEFAULT 0,
    due_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- why it was refused or parked, or why the last attempt has to be repeated
    reason         text,
    settled_at     timestamptz,
    CONSTRAINT follow_ups_id PRIMARY KEY (id),
    CONSTRAINT follow_ups_state CHECK (state IN ('due', 'accepted', 'refused', 'parked', 'discarded'))
);
-- For the sender of a domain, which asks for what is due, the longest due first.
CREATE INDEX follow_ups_due ON daybook.follow_ups (domain, due_at) WHERE state = 'due';
-- Dead letters are few. They are listed in this order, page by page.
CREATE INDEX follow_ups_parked ON daybook.follow_ups (settled_at, id) WHERE state = 'parked';
CREATE INDEX follow_ups_discarded ON daybook.follow_ups (settled_at, id) WHERE state = 'discarded';
-- The follow-ups that something waits for: those that could not be done at once.
CREATE INDEX follow_ups_troubled ON daybook.follow_ups (correlation_id)
    WHERE state = 'parked' OR state = 'due' AND attempts > 0;

-- Imported events are history: nothing follows from them.
INSERT INTO daybook.checkpoints (projection, generation, live, position)
SELECT 'follow_ups', 1, true, imported_to FROM daybook.log;

GRANT SELECT ON daybook.follow_ups TO daybook_read;
GRANT SELECT, INSERT, UPDATE ON daybook.follow_ups TO daybook_project;
