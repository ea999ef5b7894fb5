//! The reader on small files, one untidiness each, and on the 1,000 real orders.

use super::*;
use orders::order;
use std::fs;
use std::path::PathBuf;

const ORDERS: &str = "olist_orders_dataset.csv";
const ITEMS: &str = "olist_order_items_dataset.csv";
const PAYMENTS: &str = "olist_order_payments_dataset.csv";

/// An id of 32 times the digit `n`.
fn id(n: u8) -> String {
    n.to_string().repeat(32)
}

fn uuid(n: u8) -> Uuid {
    id(n).parse().unwrap()
}

/// A folder of the three files, gone with the value.
struct Folder(PathBuf);

impl Folder {
    /// Rows with `#1` for the id of 32 ones, below the headers of the columns that are needed.
    fn of(orders: &[&str], items: &[&str], payments: &[&str]) -> Self {
        let folder = Self(std::env::temp_dir().join(format!("daybook-olist-{}", Uuid::now_v7())));
        fs::create_dir(&folder.0).unwrap();
        folder.write(ORDERS, "order_id,customer_id", orders);
        folder.write(ITEMS, "order_id,order_item_id,product_id,seller_id,price,freight_value", items);
        folder.write(PAYMENTS, "order_id,payment_sequential,payment_type,payment_value", payments);
        folder
    }

    fn write(&self, file: &str, header: &str, rows: &[&str]) {
        let mut text = [&[header], rows].concat().join("\r\n");
        (0..=9).for_each(|n| text = text.replace(&format!("#{n}"), &id(n)));
        fs::write(self.0.join(file), text).unwrap();
    }

    fn read(&self) -> Sample {
        read(&self.0).unwrap()
    }

    /// The error of reading, from the file's name on.
    fn error(&self) -> String {
        read(&self.0).unwrap_err().to_string().replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One order of one item, paid by card.
fn plain() -> Folder {
    Folder::of(&["#1,#2"], &["#1,1,#3,#4,109.90,25.51"], &["#1,1,credit_card,135.41"])
}

/// What was paid, by kind, in order.
fn paid(order: &Order) -> Vec<(&str, i64)> {
    order.place.payments.iter().map(|p| (p.method.kind.as_str(), p.amount.0)).collect()
}

#[test]
fn a_row_of_each_file_makes_an_order_that_can_be_placed() {
    let sample = plain().read();
    let place = PlaceOrder {
        customer_id: CustomerId(uuid(2)),
        currency: "BRL".parse().unwrap(),
        shipping_address_id: AddressId("1cf7948b-2fad-5bb3-8c01-00d4add60d1b".parse().unwrap()),
        billing_address_id: None,
        lines: vec![PlaceLine {
            sku: orders::id::Sku::new(id(3)).unwrap(),
            seller_id: SellerId(uuid(4)),
            quantity: 1,
            unit_price: Amount(10_990),
            discount: Amount(0),
            tax: Amount(0),
        }],
        shipping: vec![SellerShipping { seller_id: SellerId(uuid(4)), amount: Amount(2_551) }],
        payments: vec![PlacePayment {
            method: PaymentMethod { kind: "credit_card".to_owned(), token: "tok_approve_credit_card".to_owned() },
            amount: Amount(13_541),
        }],
        rounding: Default::default(),
        backorder: false,
        approval_within_seconds: None,
    };
    assert_eq!(sample.orders, [Order { olist_id: id(1), order_id: OrderId(uuid(1)), place }]);
    assert_eq!((sample.not_taken, sample.zero_payments, sample.orphans), (vec![], vec![], Orphans::default()));
}

#[test]
fn columns_may_stand_anywhere_and_fields_may_be_quoted() {
    let folder = plain();
    folder.write(ORDERS, "\u{feff}customer_id,note,order_id", &["#2,\"late, \"\"but\r\nsafe\"\"\",\"#1\"", ""]);
    folder.write(PAYMENTS, "payment_value,payment_type,order_id,x,payment_sequential", &["\"135.41\",voucher,#1,,1"]);
    let sample = folder.read();
    assert_eq!(sample.orders[0].place.customer_id, CustomerId(uuid(2)));
    assert_eq!(paid(&sample.orders[0]), [("voucher", 13_541)]);
}

#[test]
fn a_byte_order_mark_before_the_first_column_is_no_part_of_it() {
    let folder = plain();
    folder.write(ORDERS, "\u{feff}order_id,customer_id", &["#1,#2"]);
    assert_eq!(folder.read().orders.len(), 1);
}

#[test]
fn each_seller_ships_for_the_freight_of_its_own_items() {
    // The items stand in the file in another order than in the order.
    let items = ["#1,3,c,#4,1.00,0.30", "#1,1,a,#5,1.00,0.10", "#1,2,b,#4,1.00,0.20"];
    let sample = Folder::of(&["#1,#2"], &items, &["#1,1,boleto,3.60"]).read();
    let place = &sample.orders[0].place;
    assert_eq!(place.lines.iter().map(|l| l.sku.as_str()).collect::<String>(), "abc");
    let shipping: Vec<_> = place.shipping.iter().map(|s| (s.seller_id.0, s.amount.0)).collect();
    assert_eq!(shipping, [(uuid(5), 10), (uuid(4), 50)]);
    let all = sample.expected().all;
    assert_eq!((all.lines, all.sellers, all.shipments), (3, 2, 2));
}

#[test]
fn vouchers_and_a_card_are_paid_in_their_sequence() {
    let payments = ["#1,10,voucher,0.30", "#1,2,voucher,0.20", "#1,1,credit_card,0.50"];
    let sample = Folder::of(&["#1,#2"], &["#1,1,a,#4,1.00,0.00"], &payments).read();
    assert_eq!(paid(&sample.orders[0]), [("credit_card", 50), ("voucher", 20), ("voucher", 30)]);
    let by_type = [("credit_card".to_owned(), Amount(50)), ("voucher".to_owned(), Amount(50))];
    assert_eq!(sample.expected().taken.paid, by_type.into());
}

#[test]
fn a_payment_of_zero_is_left_out_and_said_so() {
    let payments = ["#1,1,voucher,0.00", "#1,2,boleto,1.00"];
    let sample = Folder::of(&["#1,#2"], &["#1,1,a,#4,1.00,0.00"], &payments).read();
    assert_eq!(paid(&sample.orders[0]), [("boleto", 100)]);
    assert_eq!(sample.zero_payments, [ZeroPayment { olist_id: id(1), sequential: 1, kind: "voucher".to_owned() }]);
    let taken = sample.expected().taken;
    assert_eq!((taken.payments, taken.paid.len()), (1, 1));
}

#[test]
fn what_cannot_be_placed_says_why() {
    let orders = ["#1,#9", "#2,#9", "#3,#9", "#4,#9", "#5,#9"];
    let items = ["#1,1,a,#8,1.00,0.10", "#2,1,a,#8,1.00,0.10", "#3,1,a,#8,1.00,0.10", "#5,1,a,#8,1.00,0.10"];
    let payments = ["#1,1,boleto,1.10", "#2,1,boleto,1.09", "#5,1,boleto,1.11", "#4,1,boleto,7.00"];
    let sample = Folder::of(&orders, &items, &payments).read();
    assert_eq!(sample.orders.iter().map(|o| o.order_id.0).collect::<Vec<_>>(), [uuid(1)]);
    let owed = Amount(110);
    let why: Vec<_> = sample.not_taken.iter().map(|n| (n.olist_id.clone(), n.why)).collect();
    let expected = [
        (id(2), Why::PaymentsDiffer { owed, paid: Amount(109) }),
        (id(3), Why::NoPayments { owed }),
        (id(4), Why::NoItems { paid: Amount(700) }),
        (id(5), Why::PaymentsDiffer { owed, paid: Amount(111) }),
    ];
    assert_eq!(why, expected);
    let sentences: Vec<_> = sample.not_taken[..3].iter().map(|n| n.why.to_string()).collect();
    let expected = [
        "1.10 BRL is owed, but 1.09 BRL was paid",
        "has no payments, though 1.10 BRL is owed",
        "has no items, though 7.00 BRL was paid",
    ];
    assert_eq!(sentences, expected);
    let table = sample.expected();
    assert_eq!(table.not_taken, [("no_items", 1), ("no_payments", 1), ("payments_differ", 2)].into());
    assert_eq!((table.all.orders, table.all.items, table.all.paid["boleto"]), (5, Amount(400), Amount(1_030)));
    assert_eq!((table.taken.orders, table.taken.items, table.taken.paid["boleto"]), (1, Amount(100), Amount(110)));
}

#[test]
fn rows_of_an_order_that_is_not_there_are_counted() {
    let items = ["#1,1,a,#4,1.00,0.00", "#7,1,a,#4,1.00,0.00", "#7,2,a,#4,1.00,0.00"];
    let sample = Folder::of(&["#1,#2"], &items, &["#1,1,boleto,1.00", "#8,1,boleto,5.00"]).read();
    assert_eq!(sample.orphans, Orphans { items: 2, payments: 1 });
    let all = sample.expected().all;
    assert_eq!((all.lines, all.paid["boleto"]), (1, Amount(100)));
}

#[test]
fn a_bad_cell_is_named_by_file_line_and_column() {
    let cases = [
        ("#1,2,#3,#4,10.9O,1.00", "price: \"10.9O\" is not an amount such as 109.90"),
        ("#1,2,#3,#4,1.00,-1.00", "freight_value: \"-1.00\" is not an amount such as 109.90"),
        (
            "#1,2,#3,#4,1.00,92233720368547758.00",
            "freight_value: \"92233720368547758.00\" is not small enough for the sum of its file",
        ),
        (
            "1 2,2,#3,#4,1.00,1.00",
            "order_id: \"1 2\" is not an id: 1 to 64 printable ASCII characters without blanks and without @",
        ),
        ("#1,two,#3,#4,1.00,1.00", "order_item_id: \"two\" is not a whole number"),
        ("#1,1,#3,#4,1.00,1.00", "order_item_id: \"1\" is not an item that no line before has"),
        ("#1,2,,#4,1.00,1.00", "product_id: it is empty, and not 1 to 64 printable ASCII characters without blanks"),
        ("#1,2,#3,#4,1.00,\"1,00\"", "freight_value: \"1,00\" is not an amount with a decimal point such as 109.90"),
    ];
    for (row, expected) in cases {
        let error = Folder::of(&["#1,#2"], &["#1,1,#3,#4,1.00,1.00", "", row], &[]).error();
        assert_eq!(error, format!("{ITEMS}, line 4, column {expected}"));
    }
    let kind = Folder::of(&[], &[], &["#1,1,Credit Card,1.00"]).error();
    let expected = "column payment_type: \"Credit Card\" is not 1 to 32 of a-z, 0-9 and underscore";
    assert_eq!(kind, format!("{PAYMENTS}, line 2, {expected}"));
    let twice = Folder::of(&["#1,#2", "#1,#2"], &[], &[]).error();
    assert!(twice.starts_with(&format!("{ORDERS}, line 3, column order_id: ")), "{twice}");
}

#[test]
fn a_missing_column_field_or_file_is_named() {
    let folder = plain();
    folder.write(PAYMENTS, "order_id,payment_sequential,payment_type,value", &[]);
    assert_eq!(folder.error(), format!("{PAYMENTS}, line 1: there is no column payment_value"));
    folder.write(PAYMENTS, "order_id,payment_sequential,payment_type,payment_value", &["#1,1,boleto"]);
    assert_eq!(folder.error(), format!("{PAYMENTS}, line 2: 3 fields, where the header has 4"));
    fs::remove_file(folder.0.join(PAYMENTS)).unwrap();
    assert!(folder.error().starts_with(&format!("cannot read {PAYMENTS}: ")), "{}", folder.error());
}

#[test]
fn an_amount_that_a_spreadsheet_wrote_is_the_one_that_was_meant_and_is_told() {
    let items = ["#1,1,a,#4,274.76,24.650000000000002", "#2,1,a,#4,1.00,0.10"];
    let payments = ["#1,1,voucher,299.40999999999997", "#2,1,voucher,1.105"];
    let folder = Folder::of(&["#1,#3", "#2,#3"], &items, &payments[..1]);
    let sample = folder.read();
    assert_eq!(paid(&sample.orders[0]), [("voucher", 29_941)]);
    let tidied = |file: &str, column, found: &str, amount| TidiedAmount {
        order: id(1),
        file: file.to_owned(),
        line: 2,
        column,
        found: found.to_owned(),
        amount: Amount(amount),
    };
    let expected = [
        tidied(ITEMS, "freight_value", "24.650000000000002", 2_465),
        tidied(PAYMENTS, "payment_value", "299.40999999999997", 29_941),
    ];
    assert_eq!(sample.tidied, expected);
    let folder = Folder::of(&["#1,#3", "#2,#3"], &items, &payments);
    let expected = "\"1.105\" is not an amount of whole minor units such as 109.90";
    assert_eq!(folder.error(), format!("{PAYMENTS}, line 3, column payment_value: {expected}"));
}

#[test]
fn ids_of_any_kind_are_ids() {
    let orders = ["ORD_1,CUST_1", "ORD_2,ORD_1"];
    let sample = Folder::of(&orders, &["ORD_1,1,a,S-7,1.00,0.00"], &["ORD_1,1,boleto,1.00"]).read();
    let [order] = &sample.orders[..] else { panic!("{:?}", sample.orders) };
    assert_eq!((order.olist_id.as_str(), sample.not_taken[0].olist_id.as_str()), ("ORD_1", "ORD_2"));
    let ids = [order.order_id.0, order.place.customer_id.0, order.place.lines[0].seller_id.0];
    assert!(ids.iter().all(|id| id.get_version_num() == 5), "{ids:?}");
}

#[test]
fn a_customers_id_that_is_none_is_not_shown_for_it_may_be_a_person() {
    let error = Folder::of(&["#1,zoe@example.com"], &[], &[]).error();
    let expected = "it is not an id: 1 to 64 printable ASCII characters without blanks and without @";
    assert_eq!(error, format!("{ORDERS}, line 2, column customer_id: {expected}"));
}

#[test]
fn a_file_that_is_not_read_as_it_was_meant_is_refused() {
    let header = "order_id,payment_sequential,payment_type,payment_value";
    let cases = [
        (&header.replace(',', ";"), ", line 1: the columns are separated by ';': save it with commas"),
        (&header.replace(',', "\t"), ", line 1: the columns are separated by '\\t': save it with commas"),
        (&format!("{header},order_id"), ", line 1: there are two columns order_id"),
        (
            &format!("{header},Payment_Currency"),
            ", line 1: there is a column Payment_Currency, but every amount is taken for BRL: if all are, take the column out",
        ),
        // The rest of the file is in a column that is not read.
        (&format!("{header},note\r\n#1,1,boleto,1.00,\"late"), ", line 2: a quote is opened, and never closed"),
    ];
    for (text, expected) in cases {
        let folder = plain();
        folder.write(PAYMENTS, text, &["#1,1,boleto,1.00,x"]);
        assert_eq!(folder.error(), format!("{PAYMENTS}{expected}"));
    }
    let folder = plain();
    let utf_16: Vec<u8> = format!("\u{feff}{header}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(folder.0.join(PAYMENTS), utf_16).unwrap();
    assert_eq!(folder.error(), format!("{PAYMENTS} is UTF-16: save it as UTF-8"));
}

#[test]
fn lines_may_end_as_on_an_old_mac_and_are_counted() {
    let folder = plain();
    let text = format!("order_id,customer_id\r{},{}\r\r{},Zoe Doe\r", id(1), id(2), id(3));
    fs::write(folder.0.join(ORDERS), text).unwrap();
    assert!(folder.error().starts_with(&format!("{ORDERS}, line 4, column customer_id: ")), "{}", folder.error());
}

/// The figures were computed from the files by another program.
#[test]
fn the_real_orders_are_what_is_known_of_them() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/olist-sample");
    if !dir.is_dir() {
        eprintln!("skipped: there is no {}", dir.display());
        return;
    }
    let sample = read(&dir).unwrap();
    assert_eq!(sample.expected(), known());
    let differ = |olist_id: &str, owed, paid| NotTaken {
        olist_id: olist_id.to_owned(),
        why: Why::PaymentsDiffer { owed: Amount(owed), paid: Amount(paid) },
    };
    let not_taken = [
        differ("f04bfdbef5359607d39e66fccc9cc0de", 99_850, 99_849),
        differ("8adafb3466daa5395694d3a906ff9d40", 21_802, 21_800),
        differ("d5211af24819d319c02a285e7bb51750", 18_675, 18_676),
        differ("bb2e64c3040ceb9b7ca2bfc602adca08", 25_736, 25_734),
    ];
    assert_eq!(sample.not_taken, not_taken);
    assert_eq!(sample.orphans, Orphans::default());
    assert_eq!(sample.zero_payments.len(), 1);
    assert_eq!(sample.zero_payments[0].olist_id, "45ed6e85398a87c253db47c2d9f48216");
    let mixed = sample.orders.iter().find(|o| o.olist_id == "83018ec114eee8641c97e08f7b4e926f").unwrap();
    assert_eq!(paid(mixed), [("credit_card", 596), ("voucher", 6_215), ("voucher", 2_486)]);
    assert_commands_say_the_same(&sample);
}

fn known() -> Table {
    let by_type = |boleto, credit_card, debit_card, voucher| {
        let kinds =
            [("boleto", boleto), ("credit_card", credit_card), ("debit_card", debit_card), ("voucher", voucher)];
        kinds.map(|(kind, amount)| (kind.to_owned(), Amount(amount))).into()
    };
    Table {
        all: Figures {
            orders: 1_000,
            lines: 1_149,
            sellers: 528,
            shipments: 1_021,
            items: Amount(13_637_383),
            freight: Amount(2_266_660),
            payments: 1_040,
            paid: by_type(3_047_232, 12_305_263, 226_207, 325_337),
        },
        taken: Figures {
            orders: 996,
            lines: 1_129,
            sellers: 523,
            shipments: 1_015,
            items: Amount(13_507_655),
            freight: Amount(2_230_325),
            payments: 1_036,
            paid: by_type(3_047_232, 12_139_204, 226_207, 325_337),
        },
        not_taken: [("payments_differ", 4)].into(),
    }
}

/// The domain takes every command, and the events add up to the table.
fn assert_commands_say_the_same(sample: &Sample) {
    let placed: Vec<_> = sample.orders.iter().map(placed).collect();
    let taken = sample.expected().taken;
    assert_eq!(placed.len(), taken.orders);
    assert_eq!(placed.iter().map(|p| p.lines.len()).sum::<usize>(), taken.lines);
    assert_eq!(placed.iter().map(|p| p.payments.len()).sum::<usize>(), taken.payments);
    assert_eq!(placed.iter().map(|p| p.shipping.len()).sum::<usize>(), taken.shipments);
    assert_eq!(rows::sum(placed.iter().map(|p| p.totals.goods)), taken.items);
    assert_eq!(rows::sum(placed.iter().map(|p| p.totals.shipping)), taken.freight);
}

fn placed(order: &Order) -> order::OrderPlaced {
    let place = order::Command::Place(order.place.clone());
    match order::Order::default().decide(order.order_id, &place).unwrap().as_slice() {
        [order::Event::OrderPlaced(placed)] => placed.clone(),
        other => panic!("{} became {other:?}", order.olist_id),
    }
}
