-- Copies of read models: as they were at some time, or of a part of the log. Each copy is a table by itself. Nothing
-- keeps it up to date, and whoever made it may drop it.

-- Only the login that migrates may create a schema.
SET LOCAL ROLE NONE;
CREATE SCHEMA daybook_copies AUTHORIZATION daybook_owner;
SET LOCAL ROLE daybook_owner;
GRANT USAGE, CREATE ON SCHEMA daybook_copies TO daybook_project;
GRANT USAGE ON SCHEMA daybook_copies TO daybook_read;
