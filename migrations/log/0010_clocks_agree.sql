-- daybook.clocks_agree: whether the caller's clock differs from this server's by no more than the tolerance, which is
-- in seconds. It does not agree if one of them is NULL. The time compared is when the statement arrived: how long it
-- waits for the log does not count.
--
-- The functions that append call this. A check in a function beside them cost each statement some 15 µs of CPU, an
-- eighth of what append_one takes. This one has no settings and is one expression, so Postgres puts it in place of
-- each call.
SET LOCAL ROLE daybook_owner;

CREATE FUNCTION daybook.clocks_agree(callers_clock timestamptz, tolerance float8) RETURNS boolean
LANGUAGE sql STABLE
RETURN coalesce(abs(date_part('epoch', statement_timestamp() - callers_clock)) <= tolerance, false);
REVOKE ALL ON FUNCTION daybook.clocks_agree FROM PUBLIC;
GRANT EXECUTE ON FUNCTION daybook.clocks_agree TO daybook_append, daybook_project;
