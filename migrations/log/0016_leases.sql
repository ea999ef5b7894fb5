-- Leases: which process may run which loop.
SET LOCAL ROLE daybook_owner;

-- One process owns a lease at a time. The fence rises with each new owner, so that what a stopped owner still sends
-- differs from what the present one sends. Leases expire by this server's clock alone.
CREATE TABLE daybook.leases (
    name       text        NOT NULL,
    owner      uuid        NOT NULL,
    fence      bigint      NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT leases_name PRIMARY KEY (name)
);

GRANT SELECT ON daybook.leases TO daybook_read;
GRANT SELECT, INSERT, UPDATE, DELETE ON daybook.leases TO daybook_project;
