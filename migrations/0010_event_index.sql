-- Read model: where in the log the events of a category, of an event type and of a correlation id are. The log itself
-- has no index by them, for each would cost every append; this costs a projector some 2 µs an event.

SET LOCAL ROLE daybook_owner;

-- A row is a part of a list of positions: those within one block of the log. So a batch of events touches a row for
-- each list, not one for each event, and adding to a row rewrites little: 1,024 positions are 2 KB.
CREATE TABLE daybook.event_index (
    generation integer     NOT NULL,
    -- what the positions are of: order, order/OrderPlaced, or a correlation id. In bytewise order, which costs least
    key        text        COLLATE "C" NOT NULL,
    -- where the block begins. A block is 1,024 positions; of a correlation id, which has few of them, 32,768: that
    -- takes a third of the space, and no more time
    base       bigint      NOT NULL,
    -- rising; a position is the base and an offset
    offsets    smallint[]  NOT NULL,
    CONSTRAINT event_index_block PRIMARY KEY (generation, key, base)
-- A row that grows finds room in its page, and the index has no work with it.
) WITH (fillfactor = 90);

INSERT INTO daybook.checkpoints (projection, generation, live) VALUES ('event_index', 1, true);

GRANT SELECT ON daybook.event_index TO daybook_read;
GRANT SELECT, INSERT, UPDATE, DELETE ON daybook.event_index TO daybook_project;

RESET ROLE;
