-- The books of the simulated payment provider: what it really did, so that it answers the same after a restart, and so
-- that tests and demo can hold an order's events against the money that moved.

SET LOCAL ROLE daybook_owner;

CREATE TABLE daybook.provider_ledger (
    -- the same key, the same effect: a call that comes again finds its row
    idempotency_key uuid        NOT NULL,
    payment_id      uuid        NOT NULL,
    order_id        uuid        NOT NULL,
    operation       text        NOT NULL,
    -- minor units: what was asked for; of a void, what was held until then
    amount          bigint      NOT NULL,
    currency        text        NOT NULL,
    -- why it was declined; null if it was done
    declined        text,
    -- of an authorisation: how its token makes the provider behave
    rule            text,
    done_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT provider_ledger_key PRIMARY KEY (idempotency_key),
    CONSTRAINT provider_ledger_operation CHECK (operation IN ('authorise', 'capture', 'void', 'refund')),
    CONSTRAINT provider_ledger_rule CHECK ((rule IS NOT NULL) = (operation = 'authorise'))
);
-- What a payment has moved is added up before it moves more.
CREATE INDEX provider_ledger_payment ON daybook.provider_ledger (payment_id);
CREATE INDEX provider_ledger_order ON daybook.provider_ledger (order_id);

-- The calls that the provider was deaf to once, as their token asked for: the next time it does them.
CREATE TABLE daybook.provider_ignored (
    idempotency_key uuid        NOT NULL,
    ignored_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT provider_ignored_key PRIMARY KEY (idempotency_key)
);

GRANT SELECT ON daybook.provider_ledger, daybook.provider_ignored TO daybook_read;
-- Nobody changes what is in the books.
GRANT SELECT, INSERT ON daybook.provider_ledger, daybook.provider_ignored TO daybook_project;

RESET ROLE;
