//! Leases: at most one owner of a name at a time, by Postgres' clock.
//!
//! An owner renews its lease every second or so. A process that is stopped may still believe that it owns one, so what it
//! writes is guarded by the fence: it rises with every owner.
//!
//! ```no_run
//! # use daybook_store::lease;
//! # use sqlx::PgPool;
//! # use uuid::Uuid;
//! # async fn example(pool: PgPool) -> Result<(), sqlx::Error> {
//! let owner = Uuid::now_v7(); // one for each process
//! while let Some(lease) = lease::acquire(&pool, "nightly", owner).await? {
//!     // Work for less than `lease::DURATION`, and write WHERE fence <= lease.fence.
//! #   lease::release(&pool, &lease).await?;
//! }
//! # Ok(())
//! # }
//! ```

use sqlx::PgPool;
use std::time::Duration;
use uuid::Uuid;

/// How long a lease lasts without being renewed, and so how long a take-over waits after a kill -9.
pub const DURATION: Duration = Duration::from_secs(3);

/// A lease as it was when it was acquired or renewed. It may have expired since: guarded transactions check its fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// What is owned.
    pub name: &'static str,
    /// Who owns it: an id of the process's own choice.
    pub owner: Uuid,
    /// Higher for every new owner.
    pub fence: i64,
}

/// Acquires the lease if it is free, expired or already `owner`'s, and renews it. `None` if another owner has it.
///
/// A stored end that is further away than [`DURATION`] comes of a clock that has gone back since, or of another server. Each
/// call brings it down to that: a living owner has the usual time to renew it, and a dead one keeps nobody waiting longer.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn acquire(pool: &PgPool, name: &'static str, owner: Uuid) -> Result<Option<Lease>, sqlx::Error> {
    let row = sqlx::query!(
        "INSERT INTO daybook.leases AS lease (name, owner, fence, expires_at)
         VALUES ($1, $2, 1, clock_timestamp() + make_interval(secs => $3))
         ON CONFLICT ON CONSTRAINT leases_name DO UPDATE
         SET owner = CASE WHEN lease.expires_at < clock_timestamp() THEN $2 ELSE lease.owner END,
             fence = lease.fence + (lease.expires_at < clock_timestamp() AND lease.owner <> $2)::int,
             expires_at = clock_timestamp() + make_interval(secs => $3)
         WHERE lease.owner = $2 OR lease.expires_at < clock_timestamp()
            OR lease.expires_at > clock_timestamp() + make_interval(secs => $3)
         RETURNING owner, fence",
        name,
        owner,
        DURATION.as_secs_f64()
    );
    let ours = row.fetch_optional(pool).await?.filter(|row| row.owner == owner);
    Ok(ours.map(|row| Lease { name, owner, fence: row.fence }))
}

/// Raises the fence of a lease above that of its projection's checkpoint. The checkpoint's can only be higher if its owner
/// acquired the lease in a history that the database has lost since, and the checkpoint in this one. Without this, the
/// present owner of the lease could never acquire the checkpoint.
///
/// # Errors
/// When Postgres cannot be asked.
pub(crate) async fn outrank(pool: &PgPool, lease: &Lease) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE daybook.leases AS l SET fence = c.fence + 1
         FROM daybook.checkpoints AS c
         WHERE l.name = $1 AND l.owner = $2 AND l.fence = $3
           AND c.projection = l.name AND c.live AND c.fence > l.fence",
        lease.name,
        lease.owner,
        lease.fence
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Releases the lease, so that another owner need not wait until it expires.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn release(pool: &PgPool, lease: &Lease) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE daybook.leases SET expires_at = '-infinity' WHERE name = $1 AND owner = $2 AND fence = $3",
        lease.name,
        lease.owner,
        lease.fence
    )
    .execute(pool)
    .await?;
    Ok(())
}
