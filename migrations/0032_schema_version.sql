-- Which schema this is. Every process asks on each connect: a build whose migrations were not all applied would say that it
-- is ready, and stand still.

DO $$
BEGIN
    -- `daybook migrate` makes this table before the first migration. It is missing if the files are run by hand.
    IF to_regclass('public._sqlx_migrations') IS NOT NULL THEN
        GRANT SELECT ON public._sqlx_migrations TO daybook_owner;
    END IF;
END
$$;

SET LOCAL ROLE daybook_owner;

-- `applied`: the last migration that was. `least_known`: the last one that a build must know to work with this schema; a
-- migration that leaves out what older builds use replaces this function with its own number.
CREATE FUNCTION daybook.schema_version(OUT applied bigint, OUT least_known bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    SELECT max(version) INTO applied FROM public._sqlx_migrations WHERE success;
    least_known := 32;
END
$$;

REVOKE ALL ON FUNCTION daybook.schema_version FROM PUBLIC;
GRANT EXECUTE ON FUNCTION daybook.schema_version TO daybook_append, daybook_project, daybook_read;

RESET ROLE;
