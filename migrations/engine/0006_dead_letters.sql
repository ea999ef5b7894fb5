-- Dead letters: follow-ups and events that wait for an operator, or did; and follow-ups that never had to. `since` is
-- when the letter came into its state; NULL for a follow-up that is due.
SET LOCAL ROLE daybook_owner;

CREATE VIEW daybook.dead_letters AS
SELECT f.id, 'follow_up' AS kind, f.state, f.settled_at AS since, f.correlation_id, f.event_id, f.position,
       e.event_type, f.reaction, NULL::text AS projection, f.target, f.reason, f.attempts
FROM daybook.follow_ups AS f JOIN daybook.events AS e USING (position)
UNION ALL
SELECT p.id, 'event', 'parked', p.parked_at, e.correlation_id, e.event_id, p.position, e.event_type,
       NULL, p.projection, p.key, p.cause, NULL
FROM daybook.parked_events AS p
    JOIN daybook.checkpoints AS c ON (c.projection, c.generation) = (p.projection, p.generation) AND c.live
    JOIN daybook.events AS e ON e.position = p.position
WHERE p.cause IS NOT NULL
UNION ALL
-- Events that wait no more: the last decision about each.
SELECT r.dead_letter, 'event', r.outcome, r.resolved_at, e.correlation_id, e.event_id, r.position, e.event_type,
       NULL, r.projection, r.key, r.reason, NULL
FROM daybook.resolutions AS r JOIN daybook.events AS e USING (position)
WHERE NOT EXISTS (SELECT FROM daybook.resolutions AS l
                  WHERE l.dead_letter = r.dead_letter AND l.resolved_at > r.resolved_at)
  AND NOT EXISTS (SELECT FROM daybook.parked_events AS p JOIN daybook.checkpoints AS c USING (projection, generation)
                  WHERE p.id = r.dead_letter AND c.live AND p.cause IS NOT NULL);

GRANT SELECT ON daybook.dead_letters TO daybook_read;
