-- daybook.begin_epoch: begins the log's next epoch, once for all who try. Returns NULL if another one has begun
-- meanwhile.
SET LOCAL ROLE daybook_owner;

CREATE FUNCTION daybook.begin_epoch(
    next_epoch bigint, forked_after bigint, distributed_to bigint, kept bigint, why text)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE daybook.log SET epoch = next_epoch WHERE epoch < next_epoch;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    INSERT INTO daybook.epochs (epoch, forked_after, distributed_to, kept, system_identifier, timeline, why)
    SELECT next_epoch, begin_epoch.forked_after, begin_epoch.distributed_to, begin_epoch.kept,
           server.system_identifier, server.timeline, begin_epoch.why
      FROM daybook.server();
    RETURN next_epoch;
END
$$;

REVOKE ALL ON FUNCTION daybook.begin_epoch FROM PUBLIC;
GRANT EXECUTE ON FUNCTION daybook.begin_epoch TO daybook_project;
