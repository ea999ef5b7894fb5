-- Each migration that was applied, and not only the last one: a process compares them with those that it was built with. And
-- what builds of before 0035 leave as it is when they set a timer anew.

DO $$
BEGIN
    -- 0032 has not granted it where `daybook migrate` had made the table in another schema.
    IF to_regclass('public._sqlx_migrations') IS NOT NULL THEN
        GRANT SELECT ON public._sqlx_migrations TO daybook_owner;
    END IF;
END
$$;

SET LOCAL ROLE daybook_owner;

CREATE FUNCTION daybook.applied_migrations()
RETURNS TABLE (version bigint, checksum bytea, success boolean)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT m.version, m.checksum, m.success FROM public._sqlx_migrations AS m;
END
$$;

REVOKE ALL ON FUNCTION daybook.applied_migrations FROM PUBLIC;
GRANT EXECUTE ON FUNCTION daybook.applied_migrations TO daybook_append, daybook_project, daybook_read;

-- A timer that another event sets anew counts from that event. A build that does not know counted_from leaves there what the
-- event before it had. Without a value, the event's own time is taken.
CREATE FUNCTION daybook.forget_counted_from() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    NEW.counted_from := NULL;
    RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION daybook.forget_counted_from FROM PUBLIC;

-- If both events are of one time, its value and none are the same.
CREATE TRIGGER timers_counted_from BEFORE UPDATE ON daybook.timers FOR EACH ROW
WHEN (NEW.position IS DISTINCT FROM OLD.position AND NEW.counted_from IS NOT DISTINCT FROM OLD.counted_from)
EXECUTE FUNCTION daybook.forget_counted_from();

RESET ROLE;
