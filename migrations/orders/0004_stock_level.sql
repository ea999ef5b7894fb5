-- Read model: how much is on hand and reserved, one row for each SKU.
SET LOCAL ROLE daybook_owner;

CREATE TABLE daybook.stock_level (
    generation integer     NOT NULL,
    sku        text        NOT NULL,
    on_hand    bigint      NOT NULL,
    reserved   bigint      NOT NULL,
    changed_at timestamptz NOT NULL,
    -- of the SKU's stream
    version    bigint      NOT NULL,
    CONSTRAINT stock_level_sku PRIMARY KEY (generation, sku)
) PARTITION BY LIST (generation);
CREATE TABLE daybook.stock_level_1 PARTITION OF daybook.stock_level FOR VALUES IN (1);
CREATE TABLE daybook.stock_level_2 PARTITION OF daybook.stock_level FOR VALUES IN (2);

INSERT INTO daybook.checkpoints (projection, generation, live) VALUES ('stock_level', 1, true);

GRANT SELECT ON daybook.stock_level TO daybook_read;
GRANT SELECT, INSERT, UPDATE, DELETE ON daybook.stock_level TO daybook_project;
GRANT SELECT, TRUNCATE ON daybook.stock_level_1, daybook.stock_level_2 TO daybook_project;
