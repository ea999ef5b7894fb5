-- The event types that the log may hold, with their schema versions. A build asks before it starts whether it can
-- read all of them. The log itself has no index by type: each index costs every append.
--
-- The appender registers a type before it first writes it, mostly in a transaction of its own. So everything that the
-- log holds is registered; and perhaps a type that was registered for an append that then failed.
SET LOCAL ROLE daybook_owner;

CREATE TABLE daybook.event_types (
    category       smallint NOT NULL,
    event_type     text     NOT NULL,
    schema_version smallint NOT NULL,
    CONSTRAINT event_types_type_version PRIMARY KEY (category, event_type, schema_version)
);

-- Only register_event_types writes, and nothing is removed. But no trigger stops the owner: an operator may remove a
-- type that was registered and never written, once no process runs that would write it.
GRANT SELECT ON daybook.event_types TO daybook_project, daybook_read;
