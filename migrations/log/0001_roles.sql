-- The roles that sessions act in, and the schema that all tables are in. `migrate` runs this file first, as its own
-- login: the table that it keeps the log's migrations in needs the schema. All other files run as daybook_owner.

-- Roles belong to the server, not to the database: another Daybook on it may have made them, even at this moment.
DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['daybook_owner', 'daybook_append', 'daybook_project', 'daybook_read'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT', role);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
    END LOOP;
END
$$;
-- The login that migrates may act in each of them. Other logins must be granted theirs: see `migrate --logins`.
GRANT daybook_owner, daybook_append, daybook_project, daybook_read TO CURRENT_USER WITH SET TRUE;

CREATE SCHEMA daybook AUTHORIZATION daybook_owner;
SET LOCAL ROLE daybook_owner;
GRANT USAGE ON SCHEMA daybook TO daybook_append, daybook_project, daybook_read;
