-- The calls that the simulated provider ignored once, because their token asked for it. The next time it carries them
-- out.
SET LOCAL ROLE daybook_owner;

CREATE TABLE daybook.provider_ignored (
    idempotency_key uuid        NOT NULL,
    ignored_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT provider_ignored_key PRIMARY KEY (idempotency_key)
);

GRANT SELECT ON daybook.provider_ignored TO daybook_read;
GRANT SELECT, INSERT ON daybook.provider_ignored TO daybook_project;
