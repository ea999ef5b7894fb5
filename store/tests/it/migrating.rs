//! A database is prepared for a log, by every process at its start.

use crate::bank::CATEGORIES;
use crate::harness::{empty_database, log};
use daybook_store::{Category, MigrateError, migrate};
use sqlx::{PgPool, query_as};

/// The categories as the database names them.
async fn named(url: &str) -> Vec<(i16, String)> {
    let names = "SELECT id, name FROM daybook.categories WHERE id > 10 ORDER BY id";
    query_as(names).fetch_all(&PgPool::connect(url).await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn what_is_there_stays_and_new_categories_are_added() {
    let url = empty_database().await;
    migrate(&url, &CATEGORIES[..1]).await.unwrap();
    let first = log(&url).identity().await.unwrap_err();
    assert!(first.to_string().contains("category 12"), "{first}");
    for _ in 0..2 {
        migrate(&url, CATEGORIES).await.unwrap();
    }
    assert_eq!(named(&url).await, [(11, "account".to_owned()), (12, "vault".to_owned())]);
    log(&url).identity().await.unwrap();
}

/// Every event is stored with the id of its category: what one means may never change.
#[tokio::test]
async fn another_programs_categories_are_refused() {
    let url = empty_database().await;
    migrate(&url, CATEGORIES).await.unwrap();
    let before = named(&url).await;
    let with = |id, name, domain| Category { id, name, domain };
    for taken in [with(11, "cart", "bank"), with(31, "vault", "bank"), with(12, "vault", "shop")] {
        let refused = migrate(&url, &[with(41, "shelf", "bank"), taken]).await.unwrap_err();
        let MigrateError::OtherCategory(category) = refused else { panic!("{refused}") };
        assert_eq!(category, taken);
        assert_eq!(named(&url).await, before, "nothing is added beside it");
    }
}
