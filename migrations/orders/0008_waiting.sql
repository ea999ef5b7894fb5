-- Read model: what each order waits for. An order that waits for nothing has no row.
SET LOCAL ROLE daybook_owner;

CREATE TABLE daybook.waiting (
    generation integer     NOT NULL,
    order_id   uuid        NOT NULL,
    -- [{for, since, …}], the longest wait first
    waits      jsonb       NOT NULL,
    -- of the first of them
    since      timestamptz NOT NULL,
    CONSTRAINT waiting_order PRIMARY KEY (generation, order_id)
) PARTITION BY LIST (generation);
CREATE TABLE daybook.waiting_1 PARTITION OF daybook.waiting FOR VALUES IN (1);
CREATE TABLE daybook.waiting_2 PARTITION OF daybook.waiting FOR VALUES IN (2);
CREATE INDEX waiting_longest ON daybook.waiting (generation, since, order_id);

INSERT INTO daybook.checkpoints (projection, generation, live) VALUES ('waiting', 1, true);

GRANT SELECT ON daybook.waiting TO daybook_read;
GRANT SELECT, INSERT, UPDATE, DELETE ON daybook.waiting TO daybook_project;
GRANT SELECT, TRUNCATE ON daybook.waiting_1, daybook.waiting_2 TO daybook_project;
