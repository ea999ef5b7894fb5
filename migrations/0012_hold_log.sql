-- daybook.hold_log: nobody else appends until the end of this transaction.
--
-- For an appender that lost a stream to another process: in a transaction of its own it holds the log, while those who
-- lost decide again on what is now certain, and calls append_group in the same transaction. Without it, a process that
-- appends to one stream without a pause would keep every other one from ever doing so.
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

RESET ROLE;
