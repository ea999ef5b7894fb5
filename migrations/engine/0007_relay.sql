-- How far the log was published, and whether a relay still reports. This is for monitoring only: a relay relies on what
-- JetStream itself says.
SET LOCAL ROLE daybook_owner;

CREATE TABLE daybook.relay (
    only_row   boolean     NOT NULL DEFAULT true,
    -- the last one that JetStream has acknowledged
    position   bigint      NOT NULL,
    moved_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- when a relay last reported: every second, and after each failure
    told_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- why the last try failed; NULL once a try succeeds
    last_error text,
    CONSTRAINT relay_only_row PRIMARY KEY (only_row),
    CONSTRAINT relay_only_row_true CHECK (only_row)
);

GRANT SELECT ON daybook.relay TO daybook_read;
GRANT SELECT, INSERT, UPDATE ON daybook.relay TO daybook_project;
