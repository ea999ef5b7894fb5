//! What the four aggregates have in common, and the macro that makes a list of events into an enum.

use crate::Event;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

/// A consistency boundary: one stream of events, folded into a state that decisions are made on.
///
/// Deciding is not part of the trait: most aggregates decide alone (`state.decide(&command)`), stock decides over
/// several streams at once, and a cancellation over an order and its shipments.
///
/// A state as JSON is for showing it and for snapshots, which are thrown away when the domain changes.
pub trait Aggregate: Default + Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The first part of the stream's name, `order` in `order-0199…`.
    const CATEGORY: &'static str;
    /// What the aggregate's events are.
    type Event: Serialize;
    /// Takes in what happened. It never fails: what is in the log has happened.
    fn evolve(&mut self, event: &Self::Event);
    /// This aggregate's event, if `event` is one.
    fn event_of(event: &Event) -> Option<&Self::Event>;
    /// The event of the stream `id`.
    fn event(id: Uuid, event: Self::Event) -> Event;
}

/// Declares `enum Event` with a variant per stored event type, each with its present schema version.
///
/// The name of the variant is the stored event type: it can never be renamed. A change of shape raises the version and
/// adds an upcaster. `Event` serialises as its payload alone; type and version are stored beside it.
macro_rules! events {
    ($($(#[doc = $doc:literal])* $name:ident = $version:literal,)+) => {
        /// The events of this aggregate; each name is the stored event type.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Event { $($(#[doc = $doc])* $name($name),)+ }

        impl Event {
            /// Every event type with the schema version that this build writes.
            pub const TYPES: &'static [(&'static str, i16)] = &[$((stringify!($name), $version)),+];

            /// Each event type with its present schema version, what its doc comment says, and its JSON Schema.
            #[cfg(test)]
            pub(crate) fn schemas() -> Vec<(&'static str, i16, &'static str, schemars::Schema)> {
                vec![$((stringify!($name), $version, concat!($($doc),*), crate::schemas::of::<$name>())),+]
            }

            /// The stored event type.
            pub fn event_type(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name)),+ }
            }

            /// The schema version of the payload that this build writes.
            pub fn schema_version(&self) -> i16 {
                match self { $(Self::$name(_) => $version),+ }
            }

            /// The event of type `event_type` from its payload in the present schema version; `None` for a type that
            /// this build does not know.
            ///
            /// # Errors
            /// When the payload has not the shape of the type.
            pub fn from_payload<'de, D: serde::Deserializer<'de>>(
                event_type: &str, payload: D,
            ) -> Result<Option<Self>, D::Error> {
                match event_type {
                    $(stringify!($name) => serde::Deserialize::deserialize(payload).map(|e| Some(Self::$name(e))),)+
                    _ => Ok(None),
                }
            }
        }

        impl serde::Serialize for Event {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self { $(Self::$name(e) => e.serialize(serializer)),+ }
            }
        }

        $(impl From<$name> for Event {
            fn from(event: $name) -> Self { Self::$name(event) }
        })+
    };
}
pub(crate) use events;
