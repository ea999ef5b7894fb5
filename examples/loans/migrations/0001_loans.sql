-- Loans: a library on the log. It is a part of the schema of its own, and numbers its categories from 100 on.
SET LOCAL ROLE daybook_owner;

INSERT INTO daybook.schema_parts (name) VALUES ('loans');
INSERT INTO daybook.categories (id, name, domain) VALUES (100, 'book', 'loans'), (101, 'loan', 'loans');

-- Read model: the books that are out, one row for each loan that has not ended. A read model has two generations, each
-- in a partition: one is live, the other is being built or is kept for an undo.
CREATE TABLE daybook.books_out (
    generation integer     NOT NULL,
    loan_id    uuid        NOT NULL,
    book_id    uuid        NOT NULL,
    reader     text        NOT NULL,
    lent_at    timestamptz NOT NULL,
    due_at     timestamptz NOT NULL,
    CONSTRAINT books_out_loan PRIMARY KEY (generation, loan_id)
) PARTITION BY LIST (generation);
CREATE TABLE daybook.books_out_1 PARTITION OF daybook.books_out FOR VALUES IN (1);
CREATE TABLE daybook.books_out_2 PARTITION OF daybook.books_out FOR VALUES IN (2);

-- How far the read model, the follow-ups and the timers have come.
INSERT INTO daybook.checkpoints (projection, generation, live)
VALUES ('books_out', 1, true), ('loans_follow_ups', 1, true), ('loans_timers', 1, true);

-- The reminders that readers were sent. An effect may be tried twice: its id makes the second time do nothing.
CREATE TABLE daybook.reminders (
    id      uuid        NOT NULL,
    loan_id uuid        NOT NULL,
    reader  text        NOT NULL,
    sent_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT reminders_id PRIMARY KEY (id)
);

GRANT SELECT ON daybook.books_out, daybook.reminders TO daybook_read;
GRANT SELECT, INSERT, UPDATE, DELETE ON daybook.books_out TO daybook_project;
GRANT SELECT, TRUNCATE ON daybook.books_out_1, daybook.books_out_2 TO daybook_project;
GRANT SELECT, INSERT ON daybook.reminders TO daybook_project;
