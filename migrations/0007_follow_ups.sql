-- What is to be done because of an event. A row before it is an act: written with the checkpoint of the events that
-- were reacted to, and kept with what came of it.

SET LOCAL ROLE daybook_owner;

CREATE TABLE daybook.follow_ups (
    -- derived from event, reaction and target; also the command id, or the idempotency key, of the act
    id             uuid        NOT NULL,
    event_id       uuid        NOT NULL,
    -- of the event
    position       bigint      NOT NULL,
    -- of the event: the order
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
    CONSTRAINT follow_ups_state CHECK (state IN ('due', 'accepted', 'refused', 'parked'))
);
-- The sender's only question is what is due.
CREATE INDEX follow_ups_due ON daybook.follow_ups (due_at) WHERE state = 'due';

INSERT INTO daybook.checkpoints (projection, generation, live) VALUES ('follow_ups', 1, true);

GRANT SELECT ON daybook.follow_ups TO daybook_read;
GRANT SELECT, INSERT, UPDATE ON daybook.follow_ups TO daybook_project;

RESET ROLE;
