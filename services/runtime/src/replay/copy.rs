//! A copy of a read model: what it was at some time, or what a part of the log alone makes of it. It is a table of its own,
//! beside the live rows, to be asked by SQL.

use super::{Owner, Replay, ReplayError, begin};
use chrono::{DateTime, Utc};
use engine::ReadModel;
use engine::rebuild::Rebuild;
use serde::Serialize;
use sqlx::PgPool;
use std::str::FromStr;
use std::time::Instant;
use store::{Filter, Log, Position};

/// The events that are folded.
#[derive(Debug, Clone, Default)]
pub struct Part {
    pub filter: Filter,
    /// The first position; of what began before it there are no rows.
    pub from: Option<Position>,
    /// The last position.
    pub to: Option<Position>,
    /// The latest `recorded_at`.
    pub as_of: Option<DateTime<Utc>>,
}

/// The name of a copy: small letters, digits and underscores, a letter first, 63 at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyName(String);

impl FromStr for CopyName {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        match name.starts_with(|c: char| c.is_ascii_lowercase()) && name.len() <= 63 && name.chars().all(is_plain) {
            true => Ok(Self(name.to_owned())),
            false => Err("a name is of small letters, digits and underscores, with a letter first, and 63 at most"),
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Copied {
    pub projection: &'static str,
    /// `daybook_copies.november`
    pub table: String,
    /// The last position that was looked at.
    pub position: Position,
    /// How many events were read.
    pub events: Position,
    pub rows: u64,
    /// How many keys have events that could not be applied. Their rows are not as they should be.
    pub left_out: usize,
    pub seconds: f64,
}

/// Folds `part` of the log into the rows that `model` has of it, and keeps them as the table `daybook_copies.{name}`.
/// `progress` is told each position, and the last one.
///
/// The generation beside the live one is used for that: what was kept there for an undo is gone.
///
/// # Errors
/// When there is a copy of that name, another process replays the model, the log cannot be read or the rows cannot be
/// written: then there is no copy.
pub async fn copy<M: ReadModel>(
    log: &Log,
    pool: &PgPool,
    model: M,
    part: &Part,
    name: &CopyName,
    mut progress: impl FnMut(Position, Position),
) -> Result<Copied, ReplayError> {
    if Rebuild::<M>::is_copied(pool, &name.0).await? {
        return Err(ReplayError::NameTaken(name.0.clone()));
    }
    let mut owner = Owner::new(pool, model);
    owner.hold().await?;
    let copied = run(log, &mut owner, part, name, &mut progress).await;
    owner.release().await?;
    copied
}

async fn run<M: ReadModel>(
    log: &Log,
    owner: &mut Owner<'_, M>,
    part: &Part,
    name: &CopyName,
    progress: &mut impl FnMut(Position, Position),
) -> Result<Copied, ReplayError> {
    let (begun, pool, model, fence) = (Instant::now(), owner.pool, owner.model, owner.hold().await?.fence);
    let mut to = log.head().await?.min(part.to.unwrap_or(Position::MAX));
    if let Some(time) = part.as_of {
        to = to.min(log.position_at(time).await?);
    }
    let after = part.from.unwrap_or(1).saturating_sub(1).min(to);
    let rebuild = Rebuild::of_part(pool, model, fence).await?;
    let mut replay = Replay { log, owner, rebuild, written: Instant::now(), filter: part.filter.clone(), after };
    match replay.build(to, progress).await {
        Err(ReplayError::Advance(refused)) => {
            replay.rebuild.look_closely(refused)?;
            replay.build(to, progress).await?;
        }
        built => built?,
    }
    let mut transaction = begin(pool).await?;
    let copied = replay.rebuild.copy(&mut transaction, &name.0).await?;
    let (rows, left_out) = copied.ok_or_else(|| ReplayError::NameTaken(name.0.clone()))?;
    transaction.commit().await?;
    replay.rebuild.discard(pool).await?;
    Ok(Copied {
        projection: model.name(),
        table: format!("daybook_copies.{}", name.0),
        position: to,
        events: to - after,
        rows,
        left_out,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

impl<M: ReadModel> Replay<'_, '_, M> {
    /// Takes in what is to be of the log up to `target`, and writes it.
    async fn build(
        &mut self,
        target: Position,
        progress: &mut impl FnMut(Position, Position),
    ) -> Result<(), ReplayError> {
        self.build_to(target, progress).await?;
        Ok(self.rebuild.write(self.owner.pool).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_needs_no_quotes() {
        assert_eq!("november_2026".parse(), Ok(CopyName("november_2026".to_owned())));
        for bad in ["", "2026", "_x", "a-b", "A", "a b", "a;drop", "ä", &"a".repeat(64)] {
            assert!(bad.parse::<CopyName>().is_err(), "{bad}");
        }
    }
}
