-- What JetStream was told of histories that the log does not have any more.
SET LOCAL ROLE daybook_owner;

-- The log's epochs, and the server that each was last seen on. A promoted replica, and a restore to a point in time, have
-- the same system identifier and a higher timeline; another cluster has another identifier.
CREATE TABLE daybook.epochs (
    epoch             bigint      NOT NULL,
    began_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- the last position that the log and what had been distributed have in common
    forked_after      bigint      NOT NULL,
    -- the last position that had been distributed; NULL = nobody knows, for the stream was gone
    distributed_to    bigint,
    -- how many of the messages in between are in lost_events
    kept              bigint      NOT NULL,
    system_identifier bigint      NOT NULL,
    timeline          integer     NOT NULL,
    why               text        NOT NULL,
    CONSTRAINT epochs_epoch PRIMARY KEY (epoch)
);

-- The messages that were in the stream and not in the log when an epoch began: events of a lost history, or what others
-- have published. As they were: nothing says that they can be read.
CREATE TABLE daybook.lost_events (
    -- the epoch that began without it
    epoch    bigint NOT NULL,
    position bigint NOT NULL,
    subject  text   NOT NULL,
    headers  json   NOT NULL,
    payload  bytea  NOT NULL,
    CONSTRAINT lost_events_position PRIMARY KEY (epoch, position)
);

CREATE FUNCTION daybook.server(OUT system_identifier bigint, OUT timeline integer)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- pg_control_checkpoint lags behind a promotion
    SELECT (SELECT system_identifier FROM pg_control_system()),
           ('x' || substring(pg_walfile_name(pg_current_wal_lsn()) FOR 8))::bit(32)::int
$$;

-- Begins the log's next epoch, once for all who try: NULL, if another one has begun meanwhile.
CREATE FUNCTION daybook.begin_epoch(next_epoch bigint, forked_after bigint, distributed_to bigint, kept bigint, why text)
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

-- Says that the log goes on in its epoch on this server: what was distributed was compared with it.
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

REVOKE ALL ON FUNCTION daybook.server, daybook.begin_epoch, daybook.confirm_server FROM PUBLIC;
GRANT EXECUTE ON FUNCTION daybook.server TO daybook_project, daybook_read;
GRANT EXECUTE ON FUNCTION daybook.begin_epoch, daybook.confirm_server TO daybook_project;
GRANT SELECT ON daybook.epochs, daybook.lost_events TO daybook_project, daybook_read;
GRANT INSERT ON daybook.lost_events TO daybook_project;

RESET ROLE;
