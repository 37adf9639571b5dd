//! Documents whose letters were written lately. One that cannot be built, and whose rows change often, fails with each change:
//! its letters say the same, and would push out those of others.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use headwater_schemas::{DeadLetter, Payload};

/// After this a letter is written again: retention may have removed the one before.
const AGAIN_AFTER: Duration = Duration::from_secs(600);

/// Letters that are remembered; with one more all are forgotten.
const TOLD_MAX: usize = 10_000;

/// Model, root and cause of letters.
pub(crate) struct Told {
    since: Instant,
    letters: HashSet<[String; 3]>,
}

impl Default for Told {
    fn default() -> Self {
        Self { since: Instant::now(), letters: HashSet::new() }
    }
}

impl Told {
    /// Whether a letter says what one before it says. One of an event never does: it has a place of its own.
    pub(crate) fn has(&self, letter: &DeadLetter) -> bool {
        self.since.elapsed() < AGAIN_AFTER && about(letter).is_some_and(|about| self.letters.contains(&about))
    }

    /// A letter was written.
    pub(crate) fn add(&mut self, letter: &DeadLetter) {
        let Some(about) = about(letter) else { return };
        if self.since.elapsed() >= AGAIN_AFTER || self.letters.len() >= TOLD_MAX {
            *self = Self::default();
        }
        self.letters.insert(about);
    }
}

fn about(letter: &DeadLetter) -> Option<[String; 3]> {
    match (&letter.payload, &letter.model) {
        (Payload::Root(root), Some(model)) => Some([model.clone(), root.clone(), letter.cause.clone()]),
        _ => None,
    }
}
