-- daybook.event_digest: the SHA-256 of an event's immutable fields. Each field is its length (-1 for NULL) and its
-- bytes; numbers and times are as in PostgreSQL's binary format.
SET LOCAL ROLE daybook_owner;

CREATE FUNCTION daybook.event_digest(event daybook.events) RETURNS bytea
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT sha256(string_agg(int4send(coalesce(octet_length(field), -1)) || coalesce(field, ''), '' ORDER BY n))
      FROM unnest(ARRAY[
               (SELECT textsend(name) FROM daybook.categories WHERE id = event.category),
               uuid_send(event.stream_id), uuid_send(event.event_id), textsend(event.event_type),
               int2send(event.schema_version), int2send(event.origin), timestamptz_send(event.occurred_at),
               uuid_send(event.correlation_id), uuid_send(event.causation_id), uuid_send(event.command_id),
               event.fingerprint, textsend(event.actor), textsend(event.traceparent), textsend(event.payload::text)])
           WITH ORDINALITY AS fields(field, n)
$$;
REVOKE ALL ON FUNCTION daybook.event_digest FROM PUBLIC;
GRANT EXECUTE ON FUNCTION daybook.event_digest TO daybook_project, daybook_read;
