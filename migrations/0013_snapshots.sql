-- Snapshots of long streams: a state, so that not all events have to be folded again. They can be thrown away.
SET LOCAL ROLE daybook_owner;

CREATE TABLE daybook.snapshots (
    category  smallint NOT NULL,
    stream_id uuid     NOT NULL,
    -- the state is that of all events up to this one
    version   bigint   NOT NULL,
    position  bigint   NOT NULL,
    -- what folded it: a state that another fold has made is nobody's
    fold      bigint   NOT NULL,
    state     json     NOT NULL,
    CONSTRAINT snapshots_stream PRIMARY KEY (category, stream_id)
);

GRANT SELECT, INSERT, UPDATE, DELETE ON daybook.snapshots TO daybook_project;
GRANT SELECT ON daybook.snapshots TO daybook_read;

RESET ROLE;
