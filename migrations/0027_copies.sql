-- Copies of read models: as they were at some time, or of a part of the log. Each is a table by itself, which nothing
-- keeps up to date, and which whoever made it may drop.

CREATE SCHEMA daybook_copies AUTHORIZATION daybook_owner;

SET LOCAL ROLE daybook_owner;

GRANT USAGE, CREATE ON SCHEMA daybook_copies TO daybook_project;
GRANT USAGE ON SCHEMA daybook_copies TO daybook_read;

RESET ROLE;
