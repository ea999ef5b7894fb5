-- daybook.confirm_server: notes that the log continues in its epoch on this server: what was distributed was compared
-- with it.
SET LOCAL ROLE daybook_owner;

CREATE FUNCTION daybook.confirm_server() RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO daybook.epochs AS e (epoch, forked_after, distributed_to, kept, system_identifier, timeline, why)
    SELECT log.epoch, 0, 0, 0, server.system_identifier, server.timeline, 'the log was begun'
      FROM daybook.log, daybook.server()
        ON CONFLICT ON CONSTRAINT epochs_epoch DO UPDATE
       SET system_identifier = excluded.system_identifier, timeline = excluded.timeline
     WHERE (e.system_identifier, e.timeline) <> (excluded.system_identifier, excluded.timeline)
$$;

REVOKE ALL ON FUNCTION daybook.confirm_server FROM PUBLIC;
GRANT EXECUTE ON FUNCTION daybook.confirm_server TO daybook_project;
