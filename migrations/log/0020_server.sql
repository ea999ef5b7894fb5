-- daybook.server: which server this is, and on which timeline.
SET LOCAL ROLE daybook_owner;

CREATE FUNCTION daybook.server(OUT system_identifier bigint, OUT timeline integer)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- pg_control_checkpoint lags behind a promotion
    SELECT (SELECT system_identifier FROM pg_control_system()),
           ('x' || substring(pg_walfile_name(pg_current_wal_lsn()) FOR 8))::bit(32)::int
$$;

REVOKE ALL ON FUNCTION daybook.server FROM PUBLIC;
GRANT EXECUTE ON FUNCTION daybook.server TO daybook_project, daybook_read;
