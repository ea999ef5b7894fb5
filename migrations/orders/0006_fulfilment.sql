-- Read model: what has to be shipped, and what became of it, one row for each shipment.
SET LOCAL ROLE daybook_owner;

CREATE TABLE daybook.fulfilment (
    generation  integer     NOT NULL,
    shipment_id uuid        NOT NULL,
    -- NULL as long as the shipment has no plan: it may be held, released or cancelled before
    order_id    uuid,
    seller_id   uuid,
    customer_id uuid,
    address_id  uuid,
    status      text        NOT NULL,
    -- of its last plan; 0 if it has none
    revision    bigint      NOT NULL,
    -- [{line, sku, quantity}]
    lines       jsonb       NOT NULL,
    tracking    text,
    planned_at  timestamptz,
    changed_at  timestamptz NOT NULL,
    -- of the shipment's stream
    version     bigint      NOT NULL,
    -- whether it is packed by its last plan
    packed      boolean     NOT NULL,
    -- the number of its last hold, and of the last hold that was released: either may become known before the other
    held        bigint      NOT NULL,
    released    bigint      NOT NULL,
    CONSTRAINT fulfilment_shipment PRIMARY KEY (generation, shipment_id)
) PARTITION BY LIST (generation);
CREATE TABLE daybook.fulfilment_1 PARTITION OF daybook.fulfilment FOR VALUES IN (1);
CREATE TABLE daybook.fulfilment_2 PARTITION OF daybook.fulfilment FOR VALUES IN (2);
-- Few of all shipments are still to be shipped. They are listed for one seller, and for all.
CREATE INDEX fulfilment_of_seller ON daybook.fulfilment (generation, seller_id, status, planned_at, shipment_id);
CREATE INDEX fulfilment_of_status ON daybook.fulfilment (generation, status, planned_at, shipment_id);

INSERT INTO daybook.checkpoints (projection, generation, live) VALUES ('fulfilment', 1, true);

GRANT SELECT ON daybook.fulfilment TO daybook_read;
GRANT SELECT, INSERT, UPDATE, DELETE ON daybook.fulfilment TO daybook_project;
GRANT SELECT, TRUNCATE ON daybook.fulfilment_1, daybook.fulfilment_2 TO daybook_project;
