-- Read model: the money that moved, one row for each payment and day. A query adds up days and months. One row for a
-- whole day would be written by every batch, and no event that moves money says how it was paid.
SET LOCAL ROLE daybook_owner;

CREATE TABLE daybook.revenue (
    generation integer NOT NULL,
    payment_id uuid    NOT NULL,
    -- in UTC
    day        date    NOT NULL,
    currency   text    NOT NULL,
    -- how it is paid; only the row of the day on which the payment was requested has it
    kind       text,
    -- minor units of the currency, and how often
    captured   bigint  NOT NULL,
    captures   bigint  NOT NULL,
    refunded   bigint  NOT NULL,
    refunds    bigint  NOT NULL,
    CONSTRAINT revenue_payment PRIMARY KEY (generation, payment_id, day)
) PARTITION BY LIST (generation);
CREATE TABLE daybook.revenue_1 PARTITION OF daybook.revenue FOR VALUES IN (1);
CREATE TABLE daybook.revenue_2 PARTITION OF daybook.revenue FOR VALUES IN (2);
CREATE INDEX revenue_day ON daybook.revenue (generation, day);

INSERT INTO daybook.checkpoints (projection, generation, live) VALUES ('revenue', 1, true);

GRANT SELECT ON daybook.revenue TO daybook_read;
GRANT SELECT, INSERT, UPDATE, DELETE ON daybook.revenue TO daybook_project;
GRANT SELECT, TRUNCATE ON daybook.revenue_1, daybook.revenue_2 TO daybook_project;
