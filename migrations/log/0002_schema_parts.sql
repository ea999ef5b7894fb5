-- The parts of the schema. The log is one; the engine and each domain are others, each with migrations of its own. A
-- part is owned by one crate, which embeds its files.
SET LOCAL ROLE daybook_owner;

CREATE TABLE daybook.schema_parts (
    -- its migrations are kept in daybook.<name>_migrations
    name        text   NOT NULL,
    -- the last migration of the part that a build must know to work with this schema; 0 if every build can. A migration
    -- that removes what older builds use sets this to its own number
    least_known bigint NOT NULL DEFAULT 0,
    CONSTRAINT schema_parts_name PRIMARY KEY (name)
);
INSERT INTO daybook.schema_parts (name) VALUES ('log');

-- The migrations of every part. Each process asks on each connect, in whatever role: a build whose migrations were
-- not all applied would say that it is ready, and stand still.
CREATE FUNCTION daybook.applied_migrations()
RETURNS TABLE (part text, least_known bigint, version bigint, success boolean, checksum bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known daybook.schema_parts;
BEGIN
    FOR known IN SELECT * FROM daybook.schema_parts LOOP
        RETURN QUERY EXECUTE
            format('SELECT $1, $2, version, success, checksum FROM daybook.%I', known.name || '_migrations')
            USING known.name, known.least_known;
    END LOOP;
END
$$;
REVOKE ALL ON FUNCTION daybook.applied_migrations FROM PUBLIC;
GRANT EXECUTE ON FUNCTION daybook.applied_migrations TO daybook_append, daybook_project, daybook_read;
