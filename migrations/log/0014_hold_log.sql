-- daybook.hold_log: locks the log until this transaction ends, so that nobody else appends.
--
-- An appender that has lost the race for a stream to another process locks the log in a transaction of its own. The
-- commands that lost are then decided again on what is now certain, and append_group is called in the same
-- transaction. Without this, a process that appends to one stream without a pause would keep all others from ever
-- doing so.
SET LOCAL ROLE daybook_owner;

CREATE FUNCTION daybook.hold_log() RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM daybook.log FOR UPDATE;
END
$$;

REVOKE ALL ON FUNCTION daybook.hold_log FROM PUBLIC;
GRANT EXECUTE ON FUNCTION daybook.hold_log TO daybook_append;
