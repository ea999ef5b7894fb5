//! Finds the events that a filter lets through: by the event index as far as that has come, and by looking through the
//! log beyond. So an answer is complete up to where the log ends, however far behind the index is.

use chrono::{DateTime, TimeDelta, Utc};
use engine::event_index;
use sqlx::PgPool;
use store::{Category, Filter, Log, Position, ReadError, RecordedEvent, StreamId, Version};

/// How many events of the log are looked through at a time.
const PAGE: i64 = 500;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    #[default]
    OldestFirst,
    NewestFirst,
}

/// What to look for.
#[derive(Debug, Clone, Default)]
pub struct Query {
    pub filter: Filter,
    pub direction: Direction,
    /// The position to begin with; if the filter names a stream, the version in it.
    pub from: Option<i64>,
    /// The earliest `recorded_at`.
    pub since: Option<DateTime<Utc>>,
    /// The latest.
    pub until: Option<DateTime<Utc>>,
    /// Only events of the categories that the log was opened with. These are in the event index: a search through all
    /// domains of a log that has several reads the log.
    pub own: bool,
}

/// A search that goes on from page to page, as far as the log went when it began.
pub struct Search {
    log: Log,
    pool: PgPool,
    filter: Filter,
    own: bool,
    direction: Direction,
    /// What is left of the log to look for them in: the positions above `after`, up to `to`.
    after: Position,
    to: Position,
    /// What is left of the stream: the versions beyond this one.
    version: Version,
    /// Up to this position the index has them.
    indexed: Position,
}

impl Search {
    /// Begins a search in `log`, whose database is `pool`'s.
    ///
    /// # Errors
    /// When Postgres fails.
    pub async fn begin(log: Log, pool: PgPool, query: Query) -> Result<Self, ReadError> {
        let Query { filter, direction, from, since, until, own } = query;
        let mut to = log.head().await?;
        if let Some(until) = until {
            to = to.min(log.position_at(until).await?);
        }
        let mut after = match since {
            // The last moment before it.
            Some(since) => match since.checked_sub_signed(TimeDelta::nanoseconds(1)) {
                Some(before) => log.position_at(before).await?,
                None => 0,
            },
            None => 0,
        };
        let version = match direction {
            Direction::OldestFirst => from.unwrap_or(1).saturating_sub(1),
            Direction::NewestFirst => from.unwrap_or(Version::MAX).saturating_add(1),
        };
        if let (None, Some(from)) = (filter.stream, from) {
            match direction {
                Direction::OldestFirst => after = after.max(from.saturating_sub(1)),
                Direction::NewestFirst => to = to.min(from),
            }
        }
        // The index has the events of the categories that the log was opened with.
        log.learn_categories().await?;
        let is_ours = |category: &Category| log.categories().contains(category);
        let all_indexed = match filter.category {
            Some(category) => is_ours(&category),
            None => own || log.all_categories().iter().all(is_ours),
        };
        let indexed = match all_indexed && !event_index::keys(&filter, log.categories()).is_empty() {
            true => event_index::complete_to(&pool).await?,
            false => 0,
        };
        Ok(Self { log, pool, filter, own, direction, after, to, version, indexed })
    }

    /// The next events, up to `limit`; none if there are no more.
    ///
    /// # Errors
    /// When Postgres fails.
    pub async fn next(&mut self, limit: i64) -> Result<Vec<RecordedEvent>, ReadError> {
        while self.after < self.to {
            let in_index = match self.direction {
                Direction::OldestFirst => self.after < self.indexed,
                Direction::NewestFirst => self.to <= self.indexed,
            };
            let events = match self.filter.stream {
                Some(stream) => self.in_stream(stream, limit).await?,
                None if in_index => self.in_index(limit).await?,
                None => self.in_log(limit).await?,
            };
            if !events.is_empty() {
                return Ok(events);
            }
        }
        Ok(vec![])
    }

    async fn in_stream(&mut self, stream: StreamId, limit: i64) -> Result<Vec<RecordedEvent>, ReadError> {
        let page = match self.direction {
            Direction::OldestFirst => self.log.read_stream(stream, self.version, PAGE).await?,
            Direction::NewestFirst => self.log.read_stream_backward(stream, self.version, PAGE).await?,
        };
        Ok(self.keep(page, limit))
    }

    async fn in_log(&mut self, limit: i64) -> Result<Vec<RecordedEvent>, ReadError> {
        // Where every event is let through, none is looked at in vain.
        let page = if self.filter == Filter::default() { limit } else { PAGE };
        let page = match self.direction {
            Direction::OldestFirst => self.log.read_all(self.after, page.min(self.to - self.after)).await?,
            Direction::NewestFirst => {
                let left = self.to - self.after.max(self.indexed);
                self.log.read_all_backward(self.to + 1, page.min(left)).await?
            }
        };
        Ok(self.keep(page, limit))
    }

    async fn in_index(&mut self, limit: i64) -> Result<Vec<RecordedEvent>, ReadError> {
        let keys = event_index::keys(&self.filter, self.log.categories());
        // Most of what the index names is looked for.
        let count = limit.clamp(50, PAGE);
        let (pool, after, to) = (&self.pool, self.after, self.to.min(self.indexed));
        let positions = match self.direction {
            Direction::OldestFirst => event_index::positions(pool, &keys, after, to, count).await?,
            Direction::NewestFirst => event_index::positions_backward(pool, &keys, after, to, count).await?,
        };
        let mut page = self.log.read_positions(&positions).await?;
        match self.direction {
            // What is not in the index yet is in the log.
            Direction::OldestFirst if page.is_empty() => {
                self.pass(to);
                return Ok(page);
            }
            Direction::OldestFirst => {}
            Direction::NewestFirst => page.reverse(),
        }
        Ok(self.keep(page, limit))
    }

    /// Keeps of a page what is looked for, up to `limit`, and leaves behind what was looked at for it.
    fn keep(&mut self, mut page: Vec<RecordedEvent>, limit: i64) -> Vec<RecordedEvent> {
        let Some(mut last) = page.last().map(|event| (event.position, event.version)) else {
            self.end();
            return page;
        };
        let is_wanted = |e: &RecordedEvent| !self.own || self.log.categories().contains(&e.stream.category);
        page.retain(|e| self.after < e.position && e.position <= self.to && self.filter.matches(e) && is_wanted(e));
        if page.len() > limit as usize {
            page.truncate(limit as usize);
            last = page.last().map_or(last, |event| (event.position, event.version));
        }
        let (position, version) = last;
        self.version = version;
        self.pass(position);
        page
    }

    /// Leaves this position behind, and what comes before it in the search's direction.
    fn pass(&mut self, position: Position) {
        match self.direction {
            Direction::OldestFirst => self.after = self.after.max(position),
            Direction::NewestFirst => self.to = self.to.min(position - 1),
        }
    }

    /// There is nothing more to look at.
    fn end(&mut self) {
        self.after = self.to;
    }
}
