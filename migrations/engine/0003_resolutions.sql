-- What operators have decided about dead letters: who, what and why. A dead letter that was redriven may be parked
-- again, so it may have several resolutions.
SET LOCAL ROLE daybook_owner;

CREATE TABLE daybook.resolutions (
    -- the id of a follow-up or of a parked event
    dead_letter uuid        NOT NULL,
    outcome     text        NOT NULL,
    -- since when it had been parked, and why: a follow-up that is redriven no longer says so
    parked_at   timestamptz,
    reason      text,
    resolved_by text        NOT NULL,
    why         text,
    resolved_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- of an event, where it stands. Whoever folds the log leaves out a discarded event, now and in every rebuild
    projection  text,
    position    bigint,
    key         uuid,
    CONSTRAINT resolutions_one PRIMARY KEY (dead_letter, resolved_at),
    CONSTRAINT resolutions_outcome CHECK (outcome IN ('redriven', 'discarded')),
    CONSTRAINT resolutions_why CHECK (outcome = 'redriven' OR why IS NOT NULL),
    CONSTRAINT resolutions_event CHECK (num_nulls(projection, position, key) IN (0, 3))
);
CREATE UNIQUE INDEX resolutions_discarded_once ON daybook.resolutions (projection, position)
    WHERE outcome = 'discarded' AND projection IS NOT NULL;

GRANT SELECT ON daybook.resolutions TO daybook_read;
-- Nobody changes a decision that was made.
GRANT SELECT, INSERT ON daybook.resolutions TO daybook_project;
