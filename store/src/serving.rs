//! Which host of a list takes writes, as far as the process knows: what one of its connections finds, all are told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

pub(crate) struct Serving {
    /// The index of the host that was connected to last, and since when it is that one.
    found: watch::Sender<(usize, Instant)>,
    /// Held by the one that watches the host.
    watched: tokio::sync::Mutex<()>,
}

impl Serving {
    /// One for each list of hosts. A process has many pools, and a pool begins with one host: it is to be the one that another
    /// has found, and not one that is dead.
    pub(crate) fn of(urls: Vec<String>) -> Arc<Self> {
        if urls.len() < 2 {
            return Arc::new(Self::first());
        }
        static SERVING: Mutex<BTreeMap<Vec<String>, Arc<Serving>>> = Mutex::new(BTreeMap::new());
        let mut serving = SERVING.lock().unwrap_or_else(PoisonError::into_inner);
        serving.entry(urls).or_insert_with(|| Arc::new(Self::first())).clone()
    }

    fn first() -> Self {
        Self { found: watch::Sender::new((0, Instant::now())), watched: tokio::sync::Mutex::new(()) }
    }

    pub(crate) fn host(&self) -> usize {
        self.found.borrow().0
    }

    /// It is this one, now.
    pub(crate) fn is(&self, host: usize) {
        self.found.send_if_modified(|found| {
            let is_news = found.0 != host;
            if is_news {
                *found = (host, Instant::now());
            }
            is_news
        });
    }

    /// Whether it was another one when a connection was made that is so old.
    pub(crate) fn has_changed_within(&self, age: Duration) -> bool {
        self.found.borrow().1.elapsed() < age
    }

    pub(crate) fn changes(&self) -> watch::Receiver<(usize, Instant)> {
        self.found.subscribe()
    }

    pub(crate) fn watched(&self) -> &tokio::sync::Mutex<()> {
        &self.watched
    }
}
