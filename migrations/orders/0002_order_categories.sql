-- The categories of the domain's streams. An id never changes: each event of its category stores it.
SET LOCAL ROLE daybook_owner;

INSERT INTO daybook.categories (id, name, domain)
VALUES (1, 'order', 'orders'), (2, 'payment', 'orders'), (3, 'stock', 'orders'), (4, 'shipment', 'orders');
