-- Checkpoints: how far each projection has come in the log.
SET LOCAL ROLE daybook_owner;

-- A projection has at most two generations of rows. One is live. The other is being built, or is the one before, kept
-- for an undo. Rows and checkpoint change in one transaction, and only from the position and under the fence that
-- their owner knows.
CREATE TABLE daybook.checkpoints (
    projection text        NOT NULL,
    generation integer     NOT NULL,
    live       boolean     NOT NULL,
    position   bigint      NOT NULL DEFAULT 0,
    -- of the lease of its owner
    fence      bigint      NOT NULL DEFAULT 0,
    moved_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- of the code that folds the rows: other code does not write them
    version    smallint    NOT NULL DEFAULT 1,
    -- this generation was live before the live one, and is complete up to its position
    kept       boolean     NOT NULL DEFAULT false,
    -- an operator wants the projection to stand still
    paused     boolean     NOT NULL DEFAULT false,
    -- why the last try failed, and when; NULL once a try succeeds
    last_error text,
    failed_at  timestamptz,
    -- how often anyone but the owner has written rows: then the owner forgets the rows that it has in memory
    edits      bigint      NOT NULL DEFAULT 0,
    CONSTRAINT checkpoints_generation PRIMARY KEY (projection, generation),
    CONSTRAINT checkpoints_generations CHECK (generation IN (1, 2))
);
CREATE UNIQUE INDEX checkpoints_one_live ON daybook.checkpoints (projection) WHERE live;

GRANT SELECT ON daybook.checkpoints TO daybook_read;
GRANT SELECT, INSERT, UPDATE, DELETE ON daybook.checkpoints TO daybook_project;
