-- A follow-up that is parked is a dead letter: it waits for somebody, who has it sent again or gives it up. Who did, and
-- why, is kept beside it: the follow-up itself goes on, and may be parked again.

SET LOCAL ROLE daybook_owner;

ALTER TABLE daybook.follow_ups
    DROP CONSTRAINT follow_ups_state,
    ADD CONSTRAINT follow_ups_state CHECK (state IN ('due', 'accepted', 'refused', 'parked', 'discarded'));
-- They are few, and listed in this order, page by page.
CREATE INDEX follow_ups_parked ON daybook.follow_ups (settled_at, id) WHERE state = 'parked';

CREATE TABLE daybook.resolutions (
    -- of a follow-up that was parked, its id
    dead_letter uuid        NOT NULL,
    outcome     text        NOT NULL,
    -- since when it had waited, and for which reason: a follow-up that is sent again has these no more
    parked_at   timestamptz,
    reason      text,
    resolved_by text        NOT NULL,
    why         text,
    resolved_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT resolutions_one PRIMARY KEY (dead_letter, resolved_at),
    CONSTRAINT resolutions_outcome CHECK (outcome IN ('redriven', 'discarded')),
    CONSTRAINT resolutions_why CHECK (outcome = 'redriven' OR why IS NOT NULL)
);

GRANT SELECT ON daybook.resolutions TO daybook_read;
-- Nobody changes what somebody has decided.
GRANT SELECT, INSERT ON daybook.resolutions TO daybook_project;

RESET ROLE;
