-- The engine: what projects the log into rows, and does what follows from events. It is a part of the schema of its
-- own.
SET LOCAL ROLE daybook_owner;

INSERT INTO daybook.schema_parts (name) VALUES ('engine');
