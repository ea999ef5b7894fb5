-- The messages that had been distributed and were not in the log when an epoch began: events of a lost history, or what
-- others have published. They are kept as they were, and may be unreadable.
SET LOCAL ROLE daybook_owner;

CREATE TABLE daybook.lost_events (
    -- the epoch that began without it
    epoch    bigint NOT NULL,
    position bigint NOT NULL,
    subject  text   NOT NULL,
    headers  json   NOT NULL,
    payload  bytea  NOT NULL,
    CONSTRAINT lost_events_position PRIMARY KEY (epoch, position)
);

GRANT SELECT ON daybook.lost_events TO daybook_project, daybook_read;
GRANT INSERT ON daybook.lost_events TO daybook_project;
