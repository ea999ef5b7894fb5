-- The notices to customers that the embedded notifier has received. A mail sender on the same NATS contract replaces
-- it.
SET LOCAL ROLE daybook_owner;

CREATE TABLE daybook.notices (
    -- the follow-up's: a notice that is delivered again is the same notice
    id          uuid        NOT NULL,
    customer_id uuid        NOT NULL,
    order_id    uuid        NOT NULL,
    message     jsonb       NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT notices_id PRIMARY KEY (id)
);

GRANT SELECT ON daybook.notices TO daybook_read;
GRANT SELECT, INSERT ON daybook.notices TO daybook_project;
