-- Read model: where in the log the events of a category, of an event type and of a correlation id are. The log itself
-- has no such index, because each would cost every append; this one costs a projector some 2 µs for each event.
SET LOCAL ROLE daybook_owner;

-- A row is a part of a list of positions: those within one block of the log. So a batch of events changes one row for
-- each list, not one for each event, and adding to a row rewrites little: 1,024 positions are 2 KB.
CREATE TABLE daybook.event_index (
    generation integer     NOT NULL,
    -- what the list is of: order, order/OrderPlaced, or a correlation id. In bytewise order, which costs least
    key        text        COLLATE "C" NOT NULL,
    -- where the block begins. A block is 1,024 positions. A correlation id has few positions, so its blocks are of
    -- 32,768: that takes a third of the space, and no more time
    base       bigint      NOT NULL,
    -- rising; a position is the base plus an offset
    offsets    smallint[]  NOT NULL,
    CONSTRAINT event_index_block PRIMARY KEY (generation, key, base)
) PARTITION BY LIST (generation);
-- A row that grows finds room in its page, so that the index need not change.
CREATE TABLE daybook.event_index_1 PARTITION OF daybook.event_index FOR VALUES IN (1) WITH (fillfactor = 90);
CREATE TABLE daybook.event_index_2 PARTITION OF daybook.event_index FOR VALUES IN (2) WITH (fillfactor = 90);

INSERT INTO daybook.checkpoints (projection, generation, live) VALUES ('event_index', 1, true);

GRANT SELECT ON daybook.event_index TO daybook_read;
GRANT SELECT, INSERT, UPDATE, DELETE ON daybook.event_index TO daybook_project;
GRANT SELECT, TRUNCATE ON daybook.event_index_1, daybook.event_index_2 TO daybook_project;
