-- The log's epochs, and the server that each was last seen on. A new epoch begins when events were distributed that
-- the log does not have any more: it was restored, or continues on a replica that lacked them.
SET LOCAL ROLE daybook_owner;

CREATE TABLE daybook.epochs (
    epoch             bigint      NOT NULL,
    began_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- the last position that the log and what had been distributed have in common
    forked_after      bigint      NOT NULL,
    -- the last position that had been distributed; NULL = unknown, because the stream was gone
    distributed_to    bigint,
    -- how many of the messages in between are in lost_events
    kept              bigint      NOT NULL,
    -- a promoted replica, and a restore to a point in time, have the same system identifier and a higher timeline;
    -- another cluster has another identifier
    system_identifier bigint      NOT NULL,
    timeline          integer     NOT NULL,
    why               text        NOT NULL,
    CONSTRAINT epochs_epoch PRIMARY KEY (epoch)
);

GRANT SELECT ON daybook.epochs TO daybook_project, daybook_read;
