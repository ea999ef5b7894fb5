-- Orders are found by customer, by what is in them, by status and by when they were placed.

SET LOCAL ROLE daybook_owner;

-- Filled by version 2 of the fold; a build of version 1 that writes its own rows leaves them empty.
ALTER TABLE daybook.order_summary
    -- of each line that it has now, in the order of the lines: those cancelled or edited away are gone
    ADD COLUMN skus     text[]   NOT NULL DEFAULT '{}',
    -- the numbers of these lines
    ADD COLUMN line_nos bigint[] NOT NULL DEFAULT '{}',
    -- {remove, add}: what the edit that is open does to them, if one is
    ADD COLUMN edit     jsonb;

CREATE INDEX order_summary_of_customer ON daybook.order_summary (generation, customer_id, placed_at DESC, order_id);
CREATE INDEX order_summary_of_status ON daybook.order_summary (generation, status, placed_at DESC, order_id);
-- Of one generation, for each has a partition of its own.
CREATE INDEX order_summary_with_sku ON daybook.order_summary USING gin (skus);

-- Where nothing was projected yet, there is nothing to rebuild. Whoever has taken the checkpoint to write rows of version
-- 1 finds that it has moved on.
UPDATE daybook.checkpoints SET version = 2, edits = edits + 1
WHERE projection = 'order_summary' AND live AND position = 0;

RESET ROLE;
