-- Who may run which loop, and how far each projection has come.

SET LOCAL ROLE daybook_owner;

-- A lease is held by one process at a time. Its fence rises with every new owner, so that what a stopped owner still
-- sends can be told from what the present one sends. Expiry is by this server's clock alone.
CREATE TABLE daybook.leases (
    name       text        NOT NULL,
    owner      uuid        NOT NULL,
    fence      bigint      NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT leases_name PRIMARY KEY (name)
);

-- A projection's rows are kept by generation; one of them is live, another may be in the making. Rows and checkpoint
-- move in one transaction, and only from the position and under the fence that their owner knows.
CREATE TABLE daybook.checkpoints (
    projection text        NOT NULL,
    generation integer     NOT NULL,
    live       boolean     NOT NULL,
    position   bigint      NOT NULL DEFAULT 0,
    fence      bigint      NOT NULL DEFAULT 0,
    moved_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT checkpoints_generation PRIMARY KEY (projection, generation)
);
CREATE UNIQUE INDEX checkpoints_one_live ON daybook.checkpoints (projection) WHERE live;

GRANT SELECT ON daybook.leases, daybook.checkpoints TO daybook_read;
GRANT SELECT, INSERT, UPDATE, DELETE ON daybook.leases, daybook.checkpoints TO daybook_project;

RESET ROLE;
