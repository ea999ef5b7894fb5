//! The doors to NATS: where the servers are and who this process is there (`settings.rs`), the connection
//! (`connect.rs`), the subjects that answers may go to (`replies.rs`), and what `daybook doctor` asks (`check.rs`).

mod check;
mod connect;
mod replies;
mod settings;

pub use check::check;
pub use connect::NatsError;
pub use replies::Replies;
pub use settings::{Args, Connection, Login, Nats, Secret, SettingsError, help};
