-- A refund is of one capture, and the provider adds up what is given back of each.

SET LOCAL ROLE daybook_owner;

-- of a refund: the capture that it is given back from; the idempotency key of that capture's row
ALTER TABLE daybook.provider_ledger ADD COLUMN capture_id uuid;

RESET ROLE;
