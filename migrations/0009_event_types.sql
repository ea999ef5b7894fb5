-- Which event types the log may hold, in which schema versions. A build asks before it starts whether it can read them
-- all: the log itself has no index by type, and gets none, for each costs every append.
--
-- The appender registers a type before it writes it for the first time, mostly in a transaction of its own. So all that
-- the log holds is here; and perhaps a type that an append which then failed would have written.

SET LOCAL ROLE daybook_owner;

CREATE TABLE daybook.event_types (
    category       smallint NOT NULL,
    event_type     text     NOT NULL,
    schema_version smallint NOT NULL,
    CONSTRAINT event_types_type_version PRIMARY KEY (category, event_type, schema_version)
);

-- Builds before this migration do not register, and may go on for a while: but what they write, every build reads.
INSERT INTO daybook.event_types (category, event_type, schema_version)
SELECT DISTINCT category, event_type, schema_version FROM daybook.events;

-- The one way in. Arrays of the same length; one that is too short leaves a NULL, which is refused.
CREATE FUNCTION daybook.register_event_types(categories smallint[], event_types text[], schema_versions smallint[])
RETURNS void LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
    -- In one order, whoever calls: of two that register the same, one waits for the other, and never each for the other.
    INSERT INTO daybook.event_types (category, event_type, schema_version)
    SELECT t.category, t.event_type, t.schema_version
      FROM unnest(categories, event_types, schema_versions) AS t(category, event_type, schema_version)
     ORDER BY 1, 2, 3
        ON CONFLICT ON CONSTRAINT event_types_type_version DO NOTHING
$function$;

-- Nobody else writes, and nothing is taken back: but no trigger stops the owner, who may remove a type that was
-- registered and never written, once nothing runs that would write it.
GRANT SELECT ON daybook.event_types TO daybook_project, daybook_read;
REVOKE ALL ON FUNCTION daybook.register_event_types FROM PUBLIC;
GRANT EXECUTE ON FUNCTION daybook.register_event_types TO daybook_append;

RESET ROLE;
