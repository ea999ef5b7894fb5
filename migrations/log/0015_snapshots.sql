-- Snapshots of long streams: the state after some event, so that not all events have to be folded again. They can be
-- deleted at any time.
SET LOCAL ROLE daybook_owner;

CREATE TABLE daybook.snapshots (
    category  smallint NOT NULL,
    stream_id uuid     NOT NULL,
    -- the state is that after all events up to this one
    version   bigint   NOT NULL,
    position  bigint   NOT NULL,
    -- the version of the code that folded it: other code does not use it
    fold      bigint   NOT NULL,
    state     json     NOT NULL,
    CONSTRAINT snapshots_stream PRIMARY KEY (category, stream_id)
);

GRANT SELECT, INSERT, UPDATE, DELETE ON daybook.snapshots TO daybook_project;
GRANT SELECT ON daybook.snapshots TO daybook_read;
