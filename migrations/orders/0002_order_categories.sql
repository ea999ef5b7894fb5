-- The categories of the domain's streams. An id never changes: each event of its category stores it.
SET LOCAL ROLE daybook_owner;

INSERT INTO daybook.categories (id, name) VALUES (1, 'order'), (2, 'payment'), (3, 'stock'), (4, 'shipment');
