-- Read model: an order as it stands, one row each.

SET LOCAL ROLE daybook_owner;

CREATE TABLE daybook.order_summary (
    generation  integer     NOT NULL,
    order_id    uuid        NOT NULL,
    customer_id uuid        NOT NULL,
    status      text        NOT NULL,
    -- why it ended early, if it did
    reason      text,
    currency    text        NOT NULL,
    -- minor units of the currency
    total       bigint      NOT NULL,
    authorised  bigint      NOT NULL,
    captured    bigint      NOT NULL,
    lines       integer     NOT NULL,
    delivered   integer     NOT NULL,
    -- [{payment_id, kind, amount, status, captured}], in the order's order
    payments    jsonb       NOT NULL,
    placed_at   timestamptz NOT NULL,
    changed_at  timestamptz NOT NULL,
    -- of the order's stream
    version     bigint      NOT NULL,
    CONSTRAINT order_summary_order PRIMARY KEY (generation, order_id)
);
CREATE INDEX order_summary_newest ON daybook.order_summary (generation, placed_at DESC, order_id);

INSERT INTO daybook.checkpoints (projection, generation, live) VALUES ('order_summary', 1, true);

GRANT SELECT ON daybook.order_summary TO daybook_read;
GRANT SELECT, INSERT, UPDATE, DELETE ON daybook.order_summary TO daybook_project;

RESET ROLE;
