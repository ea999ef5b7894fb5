-- daybook.has_marks: whether the log has each of these marks. A mark is a position and the link of its event.
--
-- A process may have several statements under way at once. The history of the log may change between their answers:
-- one shows the log before the change, another the log after it. The later answer must not hide the earlier one. So a
-- process keeps the marks of all answers that no later statement has asked about, and asks about all of them.
--
-- Each mark is one probe. A statement that returns several rows calls this in a subquery of its own; otherwise each
-- row calls it. PL/pgSQL keeps the plan of the probe. As an SQL function it is planned at each call, and takes ten
-- times as long (PostgreSQL 18.6). The setting is for cached plans, as in append_group.
SET LOCAL ROLE daybook_owner;

CREATE FUNCTION daybook.has_marks(positions bigint[], links bytea[]) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
BEGIN
    FOR i IN 1 .. cardinality(positions) LOOP
        IF NOT EXISTS (SELECT FROM daybook.events WHERE position = positions[i] AND link = links[i]) THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END
$$;
REVOKE ALL ON FUNCTION daybook.has_marks FROM PUBLIC;
GRANT EXECUTE ON FUNCTION daybook.has_marks TO daybook_project, daybook_read;
