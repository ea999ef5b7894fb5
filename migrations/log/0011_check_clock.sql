-- daybook.check_clock: refuses a caller whose clock does not agree with this server's (see clocks_agree): YH002.
-- Whatever the statement has done by then is undone with it.
SET LOCAL ROLE daybook_owner;

CREATE FUNCTION daybook.check_clock(callers_clock timestamptz, tolerance float8) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ahead CONSTANT float8 := date_part('epoch', statement_timestamp() - callers_clock);
BEGIN
    IF NOT daybook.clocks_agree(callers_clock, tolerance) THEN
        -- Whole seconds, so that the text stays the same from one try to the next, and is logged only once.
        RAISE EXCEPTION 'Postgres'' clock is more than % s % that of this process, and % s are tolerated',
            floor(abs(ahead)), CASE WHEN ahead > 0 THEN 'ahead of' ELSE 'behind' END, tolerance
            USING ERRCODE = 'YH002', HINT = 'Set the clocks of both machines, by NTP for example.';
    END IF;
END
$$;
REVOKE ALL ON FUNCTION daybook.check_clock FROM PUBLIC;
GRANT EXECUTE ON FUNCTION daybook.check_clock TO daybook_append, daybook_project;
