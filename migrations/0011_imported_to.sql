-- How much of the log came out of an archive. It is history to this log, whatever it was where it happened: nothing
-- follows from it here, or a copy would take payments and send notices a second time.

SET LOCAL ROLE daybook_owner;

-- 0: nothing was imported. An import sets it in the transaction that brings the events, and nothing ever changes it.
ALTER TABLE daybook.log ADD COLUMN imported_to bigint NOT NULL DEFAULT 0;

RESET ROLE;
