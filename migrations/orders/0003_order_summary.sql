-- Read model: each order as it stands, one row for each.
--
-- A read model has two generations, each in a partition of its own. One is live. The other is being built, or is the
-- one before, kept for an undo. A rebuild truncates the other partition, so no row has to be deleted.
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
    -- [{payment_id, kind, amount, status, captured}], in the order's own order
    payments    jsonb       NOT NULL,
    placed_at   timestamptz NOT NULL,
    changed_at  timestamptz NOT NULL,
    -- of the order's stream
    version     bigint      NOT NULL,
    -- of each line that it has now, in the order of the lines: lines that were cancelled or edited away are gone
    skus        text[]      NOT NULL DEFAULT '{}',
    -- the numbers of these lines
    line_nos    bigint[]    NOT NULL DEFAULT '{}',
    -- {remove, add}: what the open edit would do to the lines, if there is one
    edit        jsonb,
    CONSTRAINT order_summary_order PRIMARY KEY (generation, order_id)
) PARTITION BY LIST (generation);
CREATE TABLE daybook.order_summary_1 PARTITION OF daybook.order_summary FOR VALUES IN (1);
CREATE TABLE daybook.order_summary_2 PARTITION OF daybook.order_summary FOR VALUES IN (2);
-- Orders are found by when they were placed, by customer, by status, and by what is in them.
CREATE INDEX order_summary_newest ON daybook.order_summary (generation, placed_at DESC, order_id);
CREATE INDEX order_summary_of_customer ON daybook.order_summary (generation, customer_id, placed_at DESC, order_id);
CREATE INDEX order_summary_of_status ON daybook.order_summary (generation, status, placed_at DESC, order_id);
-- Without the generation: each partition has an index of its own.
CREATE INDEX order_summary_with_sku ON daybook.order_summary USING gin (skus);

INSERT INTO daybook.checkpoints (projection, generation, live, version) VALUES ('order_summary', 1, true, 2);

GRANT SELECT ON daybook.order_summary TO daybook_read;
GRANT SELECT, INSERT, UPDATE, DELETE ON daybook.order_summary TO daybook_project;
GRANT SELECT, TRUNCATE ON daybook.order_summary_1, daybook.order_summary_2 TO daybook_project;
