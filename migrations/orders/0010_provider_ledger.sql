-- The books of the simulated payment provider: what it really did. So it answers the same after a restart, and tests
-- and the demo can compare an order's events with the money that moved.
SET LOCAL ROLE daybook_owner;

CREATE TABLE daybook.provider_ledger (
    -- a call that is made again has the same key: it finds its row, and has no second effect
    idempotency_key uuid        NOT NULL,
    payment_id      uuid        NOT NULL,
    order_id        uuid        NOT NULL,
    operation       text        NOT NULL,
    -- minor units: the amount asked for; of a void, the amount that was authorised until then
    amount          bigint      NOT NULL,
    currency        text        NOT NULL,
    -- why it was declined; NULL if it was done
    declined        text,
    -- of an authorisation: how its token makes the provider behave
    rule            text,
    done_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- of a refund: the idempotency key of the capture that it gives back from. What is given back of each is added up
    capture_id      uuid,
    CONSTRAINT provider_ledger_key PRIMARY KEY (idempotency_key),
    CONSTRAINT provider_ledger_operation CHECK (operation IN ('authorise', 'capture', 'void', 'refund')),
    CONSTRAINT provider_ledger_rule CHECK ((rule IS NOT NULL) = (operation = 'authorise'))
);
-- What a payment has moved is added up before it moves more.
CREATE INDEX provider_ledger_payment ON daybook.provider_ledger (payment_id);
CREATE INDEX provider_ledger_order ON daybook.provider_ledger (order_id);

GRANT SELECT ON daybook.provider_ledger TO daybook_read;
-- Nobody changes the books.
GRANT SELECT, INSERT ON daybook.provider_ledger TO daybook_project;
