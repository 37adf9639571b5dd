//! Dead letters that a commit finds on its way, passed on a piece at a time: a value that cannot be cast may poison every
//! document of a model, and all their letters at once fit neither into memory nor into one append to the log.

use headwater_schemas::DeadLetter;

use crate::Error;
use crate::fold::Letters;

/// Letters passed on at once.
const PIECE: usize = 1_000;

/// Gathers letters. What was passed on of a commit that fails comes again with the next try.
pub(crate) struct FoundLetters<'f> {
    letters: &'f mut Letters<'f>,
    waiting: Vec<DeadLetter>,
    passed_on: u64,
    /// What the last one says of a document, until somebody takes it.
    pub(crate) example: Option<String>,
}

impl<'f> FoundLetters<'f> {
    pub(crate) fn new(letters: &'f mut Letters<'f>) -> Self {
        Self { letters, waiting: Vec::new(), passed_on: 0, example: None }
    }

    pub(crate) fn add(&mut self, letter: DeadLetter) -> Result<(), Error> {
        self.example = example(&letter).or(self.example.take());
        self.waiting.push(letter);
        if self.waiting.len() < PIECE { Ok(()) } else { self.pass_on() }
    }

    pub(crate) fn add_all(&mut self, letters: Vec<DeadLetter>) -> Result<(), Error> {
        letters.into_iter().try_for_each(|letter| self.add(letter))
    }

    /// Passes on what is left; answers how many letters there were.
    pub(crate) fn finish(mut self) -> Result<u64, Error> {
        if !self.waiting.is_empty() {
            self.pass_on()?;
        }
        Ok(self.passed_on)
    }

    fn pass_on(&mut self) -> Result<(), Error> {
        (self.letters)(&self.waiting)?;
        self.passed_on += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }
}

/// A document that cannot be built, and why, where that is what a letter is about.
pub(crate) fn example(letter: &DeadLetter) -> Option<String> {
    letter.root.as_ref().map(|root| format!("`{root}`: {}", letter.cause))
}
