-- daybook.register_event_types: the one way into event_types. The arrays have the same length. One that is too
-- short is filled up with NULLs, which the table refuses.
SET LOCAL ROLE daybook_owner;

CREATE FUNCTION daybook.register_event_types(categories smallint[], event_types text[], schema_versions smallint[])
RETURNS void LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $function$
    -- All callers insert in the same order: two that register the same types wait in turn, and never for each other.
    INSERT INTO daybook.event_types (category, event_type, schema_version)
    SELECT t.category, t.event_type, t.schema_version
      FROM unnest(categories, event_types, schema_versions) AS t(category, event_type, schema_version)
     ORDER BY 1, 2, 3
        ON CONFLICT ON CONSTRAINT event_types_type_version DO NOTHING
$function$;

REVOKE ALL ON FUNCTION daybook.register_event_types FROM PUBLIC;
GRANT EXECUTE ON FUNCTION daybook.register_event_types TO daybook_append;
