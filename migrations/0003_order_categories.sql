-- The categories of Daybook's own streams. An id, once given, is in every event of its category: it never changes.

SET LOCAL ROLE daybook_owner;

INSERT INTO daybook.categories (id, name) VALUES (1, 'order'), (2, 'payment'), (3, 'stock'), (4, 'shipment');

RESET ROLE;
