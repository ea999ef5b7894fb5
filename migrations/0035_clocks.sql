-- Clocks: who appends must agree with this server on what time it is, and a timer counts from no later than now.
SET LOCAL ROLE daybook_owner;

-- Refuses a caller whose clock is not this server's, within so many seconds: YH002. In the statement that appends it costs no
-- round trip, and whatever that statement has done is undone with it. The time is that of the statement's arrival: how long it
-- waits for the log does not count.
CREATE FUNCTION daybook.check_clock(callers_clock timestamptz, tolerance float8) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    ahead CONSTANT float8 := extract(epoch FROM statement_timestamp() - callers_clock);
BEGIN
    IF (abs(ahead) <= tolerance) IS NOT TRUE THEN
        -- Whole seconds: a text that is another at each try is told each time.
        RAISE EXCEPTION 'Postgres'' clock is more than % s % that of this process, and % s are tolerated',
            floor(abs(ahead)), CASE WHEN ahead > 0 THEN 'ahead of' ELSE 'behind' END, tolerance
            USING ERRCODE = 'YH002', HINT = 'Set the clocks of both machines, by NTP for example.';
    END IF;
END
$$;
REVOKE ALL ON FUNCTION daybook.check_clock FROM PUBLIC;
GRANT EXECUTE ON FUNCTION daybook.check_clock TO daybook_append, daybook_project;

-- What fires_at is counted from: when its event was recorded; or the clock when that was found to be in the future. Builds of
-- before leave it out: then it is the event's time.
ALTER TABLE daybook.timers ADD COLUMN counted_from timestamptz;
UPDATE daybook.timers AS t SET counted_from = e.recorded_at FROM daybook.events AS e WHERE e.position = t.position;

RESET ROLE;
