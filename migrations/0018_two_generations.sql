-- A read model has two generations, each in a partition of its own: one is live, and the other is in the making, or is
-- the one before, kept for an undo. A rebuild empties the other partition, and no row has to be removed.

SET LOCAL ROLE daybook_owner;

ALTER TABLE daybook.checkpoints
    -- of the code that folds: rows of another version are not written by it
    ADD COLUMN version smallint NOT NULL DEFAULT 1,
    -- the generation that was live before the live one, complete up to its position
    ADD COLUMN kept    boolean  NOT NULL DEFAULT false;
DELETE FROM daybook.checkpoints WHERE NOT live;
ALTER TABLE daybook.checkpoints ADD CONSTRAINT checkpoints_generations CHECK (generation IN (1, 2));

CREATE TEMPORARY TABLE live_generation ON COMMIT DROP AS SELECT projection, generation FROM daybook.checkpoints;
UPDATE daybook.checkpoints SET generation = 1;

ALTER TABLE daybook.order_summary RENAME TO order_summary_before;
ALTER TABLE daybook.order_summary_before DROP CONSTRAINT order_summary_order;
DROP INDEX daybook.order_summary_newest;
CREATE TABLE daybook.order_summary (
    LIKE daybook.order_summary_before,
    CONSTRAINT order_summary_order PRIMARY KEY (generation, order_id)
) PARTITION BY LIST (generation);
CREATE TABLE daybook.order_summary_1 PARTITION OF daybook.order_summary FOR VALUES IN (1);
CREATE TABLE daybook.order_summary_2 PARTITION OF daybook.order_summary FOR VALUES IN (2);
CREATE INDEX order_summary_newest ON daybook.order_summary (generation, placed_at DESC, order_id);
INSERT INTO daybook.order_summary
SELECT 1, order_id, customer_id, status, reason, currency, total, authorised, captured, lines, delivered, payments,
       placed_at, changed_at, version
FROM daybook.order_summary_before
WHERE generation = (SELECT generation FROM live_generation WHERE projection = 'order_summary');
DROP TABLE daybook.order_summary_before;

ALTER TABLE daybook.stock_level RENAME TO stock_level_before;
ALTER TABLE daybook.stock_level_before DROP CONSTRAINT stock_level_sku;
CREATE TABLE daybook.stock_level (
    LIKE daybook.stock_level_before,
    CONSTRAINT stock_level_sku PRIMARY KEY (generation, sku)
) PARTITION BY LIST (generation);
CREATE TABLE daybook.stock_level_1 PARTITION OF daybook.stock_level FOR VALUES IN (1);
CREATE TABLE daybook.stock_level_2 PARTITION OF daybook.stock_level FOR VALUES IN (2);
INSERT INTO daybook.stock_level
SELECT 1, sku, on_hand, reserved, changed_at, version
FROM daybook.stock_level_before
WHERE generation = (SELECT generation FROM live_generation WHERE projection = 'stock_level');
DROP TABLE daybook.stock_level_before;

ALTER TABLE daybook.event_index RENAME TO event_index_before;
ALTER TABLE daybook.event_index_before DROP CONSTRAINT event_index_block;
CREATE TABLE daybook.event_index (
    LIKE daybook.event_index_before,
    CONSTRAINT event_index_block PRIMARY KEY (generation, key, base)
) PARTITION BY LIST (generation);
-- A row that grows finds room in its page, and the index has no work with it.
CREATE TABLE daybook.event_index_1 PARTITION OF daybook.event_index FOR VALUES IN (1) WITH (fillfactor = 90);
CREATE TABLE daybook.event_index_2 PARTITION OF daybook.event_index FOR VALUES IN (2) WITH (fillfactor = 90);
INSERT INTO daybook.event_index
SELECT 1, key, base, offsets
FROM daybook.event_index_before
WHERE generation = (SELECT generation FROM live_generation WHERE projection = 'event_index');
DROP TABLE daybook.event_index_before;

GRANT SELECT ON daybook.order_summary, daybook.stock_level, daybook.event_index TO daybook_read;
GRANT SELECT, INSERT, UPDATE, DELETE ON daybook.order_summary, daybook.stock_level, daybook.event_index TO daybook_project;
GRANT SELECT, TRUNCATE
    ON daybook.order_summary_1, daybook.order_summary_2, daybook.stock_level_1, daybook.stock_level_2,
       daybook.event_index_1, daybook.event_index_2
    TO daybook_project;

RESET ROLE;
