-- When the relay was last seen to do its work, and what keeps it from it: a relay that stands still shows in no projection,
-- for these read the log then.

SET LOCAL ROLE daybook_owner;

CREATE TABLE daybook.distribution (
    one_row    boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    -- Postgres' clock; NULL: never
    worked_at  timestamptz,
    -- of the last try, if none has succeeded since
    last_error text
);
INSERT INTO daybook.distribution DEFAULT VALUES;

GRANT SELECT ON daybook.distribution TO daybook_project, daybook_read;
GRANT UPDATE (worked_at, last_error) ON daybook.distribution TO daybook_project;

RESET ROLE;
