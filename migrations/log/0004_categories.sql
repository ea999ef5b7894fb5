-- The categories of streams. Each event stores its category as two bytes, not as a word. A build knows its domains by name:
-- it skips the events of others, and stops at those of a category that its own domain has since gained.
SET LOCAL ROLE daybook_owner;

CREATE TABLE daybook.categories (
    id     smallint NOT NULL,
    name   text     NOT NULL,
    domain text     NOT NULL,
    CONSTRAINT categories_id PRIMARY KEY (id),
    CONSTRAINT categories_name UNIQUE (name),
    CONSTRAINT categories_name_form CHECK (name ~ '^[a-z][a-z_]{0,30}$'),
    CONSTRAINT categories_domain_form CHECK (domain ~ '^[a-z][a-z_]{0,30}$')
);

GRANT SELECT ON daybook.categories TO daybook_project, daybook_read;
