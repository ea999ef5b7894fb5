-- Read model: what happened to each order, one row for each event.
SET LOCAL ROLE daybook_owner;

CREATE TABLE daybook.order_history (
    generation  integer     NOT NULL,
    order_id    uuid        NOT NULL,
    -- of the event, like all columns that follow
    position    bigint      NOT NULL,
    recorded_at timestamptz NOT NULL,
    occurred_at timestamptz NOT NULL,
    category    text        NOT NULL,
    stream_id   uuid        NOT NULL,
    version     bigint      NOT NULL,
    event_type  text        NOT NULL,
    actor       text        NOT NULL,
    -- the part of its payload that is shown; never a payment method's token
    detail      jsonb       NOT NULL,
    CONSTRAINT order_history_entry PRIMARY KEY (generation, order_id, position)
) PARTITION BY LIST (generation);
CREATE TABLE daybook.order_history_1 PARTITION OF daybook.order_history FOR VALUES IN (1);
CREATE TABLE daybook.order_history_2 PARTITION OF daybook.order_history FOR VALUES IN (2);

INSERT INTO daybook.checkpoints (projection, generation, live) VALUES ('order_history', 1, true);

GRANT SELECT ON daybook.order_history TO daybook_read;
GRANT SELECT, INSERT, UPDATE, DELETE ON daybook.order_history TO daybook_project;
GRANT SELECT, TRUNCATE ON daybook.order_history_1, daybook.order_history_2 TO daybook_project;
