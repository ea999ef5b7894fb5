//! Ids of the files as the UUIDs that they are here.

use serde::Serialize;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use uuid::Uuid;

/// The namespace of ids that are derived from the files' (RFC 9562, section 5.5). Never changes: they are stream ids.
const NAMESPACE: Uuid = Uuid::from_u128(0x9c3f_5a1e_27d4_4b86_8e0b_d1f6_40a7_c259);

/// What an id of the files is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IdOf {
    Order,
    Customer,
    Seller,
}

impl IdOf {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Customer => "customer",
            Self::Seller => "seller",
        }
    }
}

/// An id of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileId {
    pub(super) uuid: Uuid,
    /// As the files write it, if the UUID is derived from that.
    pub(super) name: Option<String>,
}

impl FileId {
    /// As the files write it; a UUID as Olist does, in 32 hex digits.
    pub(super) fn written(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.uuid.simple().to_string())
    }
}

/// Why a text is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoId {
    Malformed,
    /// Another id of the files gives the same UUID.
    SameUuid,
}

/// The ids that were met so far.
#[derive(Debug, Default)]
pub(super) struct Ids(HashMap<(IdOf, Uuid), Option<String>>);

impl Ids {
    /// A UUID is itself, with or without hyphens and in whatever case. Anything else is the name that one is derived from.
    pub(super) fn take(&mut self, of: IdOf, text: &str) -> Result<FileId, NoId> {
        let id = match Uuid::try_parse(text) {
            Ok(uuid) if matches!(text.len(), 32 | 36) => FileId { uuid, name: None },
            _ if is_name(text) => FileId { uuid: derive(of, text), name: Some(text.to_owned()) },
            _ => return Err(NoId::Malformed),
        };
        match self.0.entry((of, id.uuid)) {
            Entry::Vacant(entry) => _ = entry.insert(id.name.clone()),
            Entry::Occupied(entry) if *entry.get() == id.name => {}
            Entry::Occupied(_) => return Err(NoId::SameUuid),
        }
        Ok(id)
    }
}

/// Names are kept for ever, so an e-mail address is none.
fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b'@')
}

fn derive(of: IdOf, name: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("{} {name}", of.as_str()).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e481f51cbdc54678b7cc49136f2d6af7";

    #[test]
    fn a_uuid_is_itself_however_it_is_written() {
        let mut ids = Ids::default();
        for text in [HEX, &HEX.to_uppercase(), "e481f51c-bdc5-4678-b7cc-49136f2d6af7"] {
            let id = ids.take(IdOf::Order, text).unwrap();
            assert_eq!((id.uuid, id.written()), (HEX.parse().unwrap(), HEX.to_owned()));
        }
    }

    /// They are ids of streams: these never change.
    #[test]
    fn another_id_gives_a_uuid_that_is_always_the_same() {
        let mut ids = Ids::default();
        let mut derived = |of, text: &str| {
            let id = ids.take(of, text).unwrap();
            assert_eq!((id.name.as_deref(), id.written()), (Some(text), text.to_owned()));
            id.uuid.to_string()
        };
        assert_eq!(derived(IdOf::Order, "ORD_000001"), "b0883e62-d8fa-55df-bbd6-db6cba7d73c1");
        assert_eq!(derived(IdOf::Customer, "ORD_000001"), "25e26314-d792-5029-8447-c83fd9e3279f");
        assert_eq!(derived(IdOf::Seller, "ORD_000001"), "9c92bc0f-f016-549b-96e9-232ab14cf9c3");
        // In another case it is another id.
        assert_ne!(derived(IdOf::Order, "ord_000001"), derived(IdOf::Order, "ORD_000001"));
    }

    #[test]
    fn two_ids_that_give_the_same_uuid_are_refused_and_so_is_what_is_no_id() {
        let derived = derive(IdOf::Order, "ORD_000001").simple().to_string();
        for texts in [["ORD_000001", &derived], [&derived, "ORD_000001"]] {
            let mut ids = Ids::default();
            ids.take(IdOf::Order, texts[0]).unwrap();
            assert_eq!(ids.take(IdOf::Order, texts[1]), Err(NoId::SameUuid));
            // Of something else it is no clash.
            ids.take(IdOf::Seller, texts[1]).unwrap();
        }
        for text in ["", "ORD 1", "zoë@example.com", "a@b", "ORD\u{e9}", &"x".repeat(65)] {
            assert_eq!(Ids::default().take(IdOf::Order, text), Err(NoId::Malformed), "{text}");
        }
    }
}
