-- Orders: the domain's read models, and what its services keep. It is a part of the schema of its own.
SET LOCAL ROLE daybook_owner;

INSERT INTO daybook.schema_parts (name) VALUES ('orders');
