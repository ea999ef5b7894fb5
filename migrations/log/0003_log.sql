-- Which log this is: one row, which every append locks and none updates.
SET LOCAL ROLE daybook_owner;

CREATE TABLE daybook.log (
    only_row    boolean     NOT NULL DEFAULT true,
    log_id      uuid        NOT NULL DEFAULT gen_random_uuid(),
    -- rises when the log continues from an older state, after a restore: what was distributed in the earlier epoch, and
    -- is not in the log, is void
    epoch       bigint      NOT NULL DEFAULT 1,
    created_at  timestamptz NOT NULL DEFAULT now(),
    -- the last position that came from an archive; 0 if none did. An import sets it in the transaction that brings the
    -- events, and nothing ever changes it. Imported events are history: nothing follows from them here, or a copy of a
    -- log would take payments and send notices a second time
    imported_to bigint      NOT NULL DEFAULT 0,
    CONSTRAINT log_only_row PRIMARY KEY (only_row),
    CONSTRAINT log_only_row_true CHECK (only_row)
);
INSERT INTO daybook.log DEFAULT VALUES;

GRANT SELECT ON daybook.log TO daybook_project, daybook_read;
