//! Whether a history is linearizable: the search of Wing and Gong ("Testing and verifying concurrent objects", 1993),
//! which Lowe ("Testing for linearizability", 2017) has remember where it was already.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};

/// What answers one call after the other.
pub(super) trait Sequential: Clone + Eq + Hash {
    type Op: Debug;
    type Answer: Debug;

    /// Does `op`, and says whether it may be answered so. `None`: the answer is not known.
    fn explains(&mut self, op: &Self::Op, answer: Option<&Self::Answer>) -> bool;
}

/// A call and its answer, and when they were: on one clock, that of [`Clock`].
#[derive(Debug)]
pub(super) struct Call<Op, Answer> {
    op: Op,
    asked: u64,
    /// Without an answer, it may be done at any time, or never.
    answered: Option<(u64, Answer)>,
}

impl<Op, Answer> Call<Op, Answer> {
    pub(super) fn op(&self) -> &Op {
        &self.op
    }

    pub(super) fn answer(&self) -> Option<&Answer> {
        self.answered.as_ref().map(|(_, answer)| answer)
    }

    pub(super) fn is_answered(&self) -> bool {
        self.answered.is_some()
    }
}

/// What one client asked for, one call after the other. After one without an answer, it is another client.
pub(super) type Client<S> = Vec<Call<<S as Sequential>::Op, <S as Sequential>::Answer>>;

/// Counts the moments at which calls begin and end.
#[derive(Debug, Default)]
pub(super) struct Clock(AtomicU64);

impl Clock {
    pub(super) async fn call<Op, Answer>(
        &self,
        op: Op,
        answer: impl AsyncFnOnce(&Op) -> Option<Answer>,
    ) -> Call<Op, Answer> {
        let asked = self.now();
        let answered = answer(&op).await.map(|answer| (self.now(), answer));
        Call { op, asked, answered }
    }

    fn now(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// Whether `system` explains all answers of the history.
pub(super) fn is_linearizable<S: Sequential>(system: S, history: &[Client<S>]) -> bool {
    // How far each client is, and what the calls until then have made of the system.
    let mut open = vec![(vec![0_usize; history.len()], system)];
    let mut seen: HashSet<(Vec<usize>, S)> = HashSet::new();
    while let Some((done, system)) = open.pop() {
        let next =
            || history.iter().zip(&done).enumerate().filter_map(|(n, (calls, done))| Some((n, calls.get(*done)?)));
        let Some(first_answer) = next().filter_map(|(_, call)| call.answered.as_ref().map(|(at, _)| *at)).min() else {
            // Who is left was not answered.
            return true;
        };
        for (n, call) in next().filter(|(_, call)| call.asked < first_answer) {
            let mut system = system.clone();
            if system.explains(&call.op, call.answer()) {
                let mut done = done.clone();
                done[n] += 1;
                if seen.insert((done.clone(), system.clone())) {
                    open.push((done, system));
                }
            }
        }
    }
    false
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Register(u8);

#[derive(Debug)]
enum OnRegister {
    Write(u8),
    Read,
}

impl Sequential for Register {
    type Op = OnRegister;
    type Answer = u8;

    fn explains(&mut self, op: &OnRegister, answer: Option<&u8>) -> bool {
        if let OnRegister::Write(value) = op {
            self.0 = *value;
        }
        answer.is_none_or(|answer| *answer == self.0)
    }
}

#[test]
fn a_history_that_no_order_explains_is_found() {
    use OnRegister::{Read, Write};
    let call = |op, asked, answered| Call { op, asked, answered };
    let is = |history: &[Client<Register>]| is_linearizable(Register(0), history);
    // Two reads beside a write may see it or not, but not first the new and then the old.
    let write = || vec![call(Write(1), 0, Some((9, 1)))];
    for (first, second, explained) in [(0, 0, true), (0, 1, true), (1, 1, true), (1, 0, false)] {
        let reads = vec![call(Read, 1, Some((2, first))), call(Read, 3, Some((4, second)))];
        assert_eq!(is(&[write(), reads]), explained, "{first} {second}");
    }
    // After its answer, it is seen by all.
    assert!(!is(&[write(), vec![call(Read, 10, Some((11, 0)))]]));
    assert!(is(&[write(), vec![call(Read, 8, Some((11, 0)))]]));
    // Without an answer, it may be seen at any time, or never; but what was seen remains.
    let lost = || vec![call(Write(1), 0, None)];
    for (first, second, explained) in [(0, 0, true), (0, 1, true), (1, 0, false)] {
        let reads = vec![call(Read, 10, Some((11, first))), call(Read, 12, Some((13, second)))];
        assert_eq!(is(&[lost(), reads]), explained, "{first} {second}");
    }
    // Nor before it was asked for.
    let early = vec![call(Read, 0, Some((1, 1)))];
    assert!(!is(&[early, vec![call(Write(1), 2, None)]]));
}
