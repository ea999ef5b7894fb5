//! Keeps a lease: asks for it, and renews it in time. One way for all who work only while they have one.

use sqlx::PgPool;
use std::time::{Duration, Instant};
use store::lease::{self, Lease};
use uuid::Uuid;

/// How often the lease is renewed: a third of what it holds for.
pub const RENEW: Duration = Duration::from_secs(1);

/// The lease of a name, as one owner sees it.
#[derive(Debug)]
pub struct Keeper {
    name: &'static str,
    owner: Uuid,
    /// With when it was asked for last.
    owned: Option<(Lease, Instant)>,
}

impl Keeper {
    pub fn new(name: &'static str, owner: Uuid) -> Self {
        Self { name, owner, owned: None }
    }

    /// The lease that was owned when it was last asked for.
    pub fn last(&self) -> Option<Lease> {
        self.owned.map(|(lease, _)| lease)
    }

    /// The lease, as long as it need not be renewed.
    pub fn fresh(&self) -> Option<Lease> {
        self.owned.filter(|(_, renewed)| renewed.elapsed() < RENEW).map(|(lease, _)| lease)
    }

    /// Asks for the lease, or renews it; `None`, if another owner has it.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn renew(&mut self, pool: &PgPool) -> Result<Option<Lease>, sqlx::Error> {
        // Its time begins when Postgres has heard of it, which is later than now.
        let now = Instant::now();
        let lease = lease::acquire(pool, self.name, self.owner).await?;
        self.owned = lease.map(|lease| (lease, now));
        Ok(lease)
    }

    /// The lease, renewed when it is time; `None`, if another owner has it.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn keep(&mut self, pool: &PgPool) -> Result<Option<Lease>, sqlx::Error> {
        match self.fresh() {
            Some(lease) => Ok(Some(lease)),
            None => self.renew(pool).await,
        }
    }

    /// Another owner may have the lease: it is asked for anew.
    pub fn forget(&mut self) {
        self.owned = None;
    }

    /// Gives the lease back, if it is owned.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn release(&mut self, pool: &PgPool) -> Result<(), sqlx::Error> {
        match self.owned.take() {
            Some((lease, _)) => lease::release(pool, &lease).await,
            None => Ok(()),
        }
    }
}
