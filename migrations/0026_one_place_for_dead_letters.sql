-- An event that cannot be taken in is a dead letter, like a follow-up that cannot be done: it has an id, it is listed
-- with the others, and it can be given up.

SET LOCAL ROLE daybook_owner;

-- What is parked belongs to a generation of the rows, as the rows do: a rebuild parks by itself. Until now it was told by
-- the name of the rebuild's lease; so rebuilds, and what is kept for an undo, begin anew (see below).
DELETE FROM daybook.parked_events WHERE projection NOT IN (SELECT projection FROM daybook.checkpoints);
ALTER TABLE daybook.parked_events
    -- what the log says, the log says
    DROP COLUMN correlation_id,
    DROP COLUMN event_type,
    ADD COLUMN generation integer,
    -- derived from the event and the projection; of those from before, any
    ADD COLUMN id         uuid NOT NULL DEFAULT gen_random_uuid(),
    DROP CONSTRAINT parked_events_position;
UPDATE daybook.parked_events AS p SET generation = c.generation
FROM daybook.checkpoints AS c WHERE c.projection = p.projection AND c.live;
ALTER TABLE daybook.parked_events
    ALTER COLUMN generation SET NOT NULL,
    ALTER COLUMN id DROP DEFAULT,
    ADD CONSTRAINT parked_events_position PRIMARY KEY (projection, generation, position);
DROP INDEX daybook.parked_events_key;
CREATE INDEX parked_events_key ON daybook.parked_events (projection, generation, key, position);
-- Of each key, the first: the others wait for it.
CREATE INDEX parked_events_first ON daybook.parked_events (parked_at, id) WHERE cause IS NOT NULL;

-- A generation that is not live is void at position 0 and of version 0, which no code has.
UPDATE daybook.checkpoints SET position = 0, version = 0, kept = false WHERE NOT live;

-- Of an event, where it stands: whoever folds the log goes on without one that was discarded, now and in every rebuild.
ALTER TABLE daybook.resolutions
    ADD COLUMN projection text,
    ADD COLUMN position   bigint,
    ADD COLUMN key        uuid,
    ADD CONSTRAINT resolutions_event CHECK (num_nulls(projection, position, key) IN (0, 3));
CREATE UNIQUE INDEX resolutions_discarded_once ON daybook.resolutions (projection, position)
    WHERE outcome = 'discarded' AND projection IS NOT NULL;
-- Those that were given up are listed like those that wait.
CREATE INDEX follow_ups_discarded ON daybook.follow_ups (settled_at, id) WHERE state = 'discarded';

-- All that waits for somebody, or did, of both kinds; and follow-ups that never had to. `since` is when it came to be in
-- its state; null, of a follow-up that is due.
CREATE VIEW daybook.dead_letters AS
SELECT f.id, 'follow_up' AS kind, f.state, f.settled_at AS since, f.correlation_id, f.event_id, f.position, e.event_type,
       f.reaction, NULL::text AS projection, f.target, f.reason, f.attempts
FROM daybook.follow_ups AS f JOIN daybook.events AS e USING (position)
UNION ALL
SELECT p.id, 'event', 'parked', p.parked_at, e.correlation_id, e.event_id, p.position, e.event_type,
       NULL, p.projection, p.key, p.cause, NULL
FROM daybook.parked_events AS p
    JOIN daybook.checkpoints AS c ON (c.projection, c.generation) = (p.projection, p.generation) AND c.live
    JOIN daybook.events AS e ON e.position = p.position
WHERE p.cause IS NOT NULL
UNION ALL
-- What was decided last of an event that waits no more.
SELECT r.dead_letter, 'event', r.outcome, r.resolved_at, e.correlation_id, e.event_id, r.position, e.event_type,
       NULL, r.projection, r.key, r.reason, NULL
FROM daybook.resolutions AS r JOIN daybook.events AS e USING (position)
WHERE NOT EXISTS (SELECT FROM daybook.resolutions AS l
                  WHERE l.dead_letter = r.dead_letter AND l.resolved_at > r.resolved_at)
  AND NOT EXISTS (SELECT FROM daybook.parked_events AS p JOIN daybook.checkpoints AS c USING (projection, generation)
                  WHERE p.id = r.dead_letter AND c.live AND p.cause IS NOT NULL);

GRANT SELECT ON daybook.dead_letters TO daybook_read;
-- Of an event that waited behind one that was taken in or given up, why it cannot be taken in itself.
GRANT UPDATE (cause) ON daybook.parked_events TO daybook_project;

RESET ROLE;
