-- daybook.check_clock: refuses a caller (YH002) whose clock differs from this server's by more than the tolerance,
-- which is in seconds.
--
-- The statement that appends calls it, so that it costs no round trip; and whatever that statement has done is undone
-- with it. The time compared is when the statement arrived: how long it waits for the log does not count.
SET LOCAL ROLE daybook_owner;

CREATE FUNCTION daybook.check_clock(callers_clock timestamptz, tolerance float8) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ahead CONSTANT float8 := extract(epoch FROM statement_timestamp() - callers_clock);
BEGIN
    IF (abs(ahead) <= tolerance) IS NOT TRUE THEN
        -- Whole seconds, so that the text stays the same from one try to the next, and is logged only once.
        RAISE EXCEPTION 'Postgres'' clock is more than % s % that of this process, and % s are tolerated',
            floor(abs(ahead)), CASE WHEN ahead > 0 THEN 'ahead of' ELSE 'behind' END, tolerance
            USING ERRCODE = 'YH002', HINT = 'Set the clocks of both machines, by NTP for example.';
    END IF;
END
$$;
REVOKE ALL ON FUNCTION daybook.check_clock FROM PUBLIC;
GRANT EXECUTE ON FUNCTION daybook.check_clock TO daybook_append, daybook_project;
