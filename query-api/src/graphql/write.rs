//! Copies what a plan wants from stored bytes into the response, range by range.
//!
//! The members of an object stand in the order of the shape. As long as the query asks in that order too, the bytes are
//! walked once; a field that asks for an earlier member goes back to where it began.

use std::io;

use super::error::{Problem, Step};
use super::operation::too_long;
use super::plan::{Content, Object, Slot};
use super::scan::{self, Torn};

/// Writes documents of one response.
pub(super) struct Writer<'a> {
    /// The response.
    pub(super) out: Vec<u8>,
    /// The value of every `first` of the plan.
    pub(super) firsts: &'a [Option<usize>],
    /// Where in the data the writer is.
    pub(super) path: Vec<Step>,
    /// What went wrong at fields.
    pub(super) problems: Vec<Problem>,
    /// Bytes that the response may have.
    pub(super) bytes_max: usize,
    /// Where the values of the walked members begin, of every object that is open.
    starts: Vec<usize>,
}

/// Why a document is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unwritten {
    /// Its bytes are not of the plan's shape.
    Torn,
    /// The response has more bytes than it may have.
    TooLong,
}

impl From<Torn> for Unwritten {
    fn from(_: Torn) -> Self {
        Self::Torn
    }
}

/// Errors about values that are kept of one response.
const PROBLEMS_MAX: usize = 100;

impl<'a> Writer<'a> {
    pub(super) fn new(firsts: &'a [Option<usize>], capacity: usize, bytes_max: usize) -> Self {
        Self {
            out: Vec::with_capacity(capacity),
            firsts,
            path: Vec::new(),
            problems: Vec::new(),
            bytes_max,
            starts: Vec::with_capacity(16),
        }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn is_full(&self) -> bool {
        self.out.len() > self.bytes_max
    }

    /// Whether what was written so far is short enough.
    ///
    /// # Errors
    ///
    /// It is not; the whole request is refused then.
    pub(super) fn check(&self) -> Result<(), Problem> {
        if self.is_full() { Err(too_long(self.bytes_max)) } else { Ok(()) }
    }

    /// Writes the fields of a document. The last value of a response may still be too long for it: see [`Self::check`].
    ///
    /// # Errors
    ///
    /// Why it is not written; nothing of it has been written then.
    pub(super) fn document(&mut self, plan: &Object, json: &[u8]) -> Result<(), Unwritten> {
        let (length, depth) = (self.out.len(), self.path.len());
        let result = self.object(plan, json, 0, false);
        if result.is_err() {
            self.out.truncate(length);
            self.path.truncate(depth);
            self.starts.clear();
        }
        result.map(drop)
    }

    /// Writes the object at `at`; answers the place behind it, or any place when `end` is not wanted.
    fn object(&mut self, plan: &Object, json: &[u8], at: usize, end: bool) -> Result<usize, Unwritten> {
        if json.get(at) != Some(&b'{') {
            return Err(Unwritten::Torn);
        }
        self.out.push(b'{');
        let base = self.starts.len();
        let mut walked = 0;
        let mut place = scan::blank(json, at + 1);
        let mut more = json.get(place) != Some(&b'}');
        if !more {
            place += 1;
        }
        let last = plan.slots.len().wrapping_sub(1);
        for (number, slot) in plan.slots.iter().enumerate() {
            // At every field: one value under many names is long, too.
            if self.is_full() {
                return Err(Unwritten::TooLong);
            }
            self.out.extend_from_slice(&slot.key);
            let member = match &slot.content {
                Content::Constant(bytes) => {
                    self.out.extend_from_slice(bytes);
                    continue;
                }
                Content::Leaf(member) | Content::Float(member) => *member,
                Content::Object(member, _) | Content::Array(member, ..) => *member,
            };
            if let Some(start) = self.starts.get(base + member).copied().filter(|_| member < walked) {
                self.content(slot, json, start, false)?;
                continue;
            }
            while walked < member {
                if !more {
                    return Err(Unwritten::Torn);
                }
                let start = scan::member(json, place, &plan.members[walked])?;
                self.starts.push(start);
                (more, place) = scan::separator(json, scan::value(json, start)?)?;
                walked += 1;
            }
            if !more {
                return Err(Unwritten::Torn);
            }
            let start = scan::member(json, place, &plan.members[member])?;
            self.starts.push(start);
            walked += 1;
            // Behind the last field nothing is read any more, unless the caller goes on behind this object.
            let go_on = end || number != last;
            let behind = self.content(slot, json, start, go_on)?;
            if go_on {
                (more, place) = scan::separator(json, behind)?;
            }
        }
        self.starts.truncate(base);
        self.out.push(b'}');
        Ok(if end && more { scan::closing(json, place)? } else { place })
    }

    /// Writes the value at `at`; answers the place behind it, or any place when `end` is not wanted.
    fn content(&mut self, slot: &Slot, json: &[u8], at: usize, end: bool) -> Result<usize, Unwritten> {
        match &slot.content {
            Content::Constant(_) => Ok(at),
            Content::Leaf(_) => {
                let behind = scan::value(json, at)?;
                self.out.extend_from_slice(&json[at..behind]);
                Ok(behind)
            }
            Content::Float(_) => {
                let behind = scan::value(json, at)?;
                if json[at] == b'"' {
                    self.out.extend_from_slice(b"null");
                    self.not_finite(slot);
                } else {
                    self.out.extend_from_slice(&json[at..behind]);
                }
                Ok(behind)
            }
            Content::Object(_, plan) if json.get(at) == Some(&b'{') => {
                self.path.push(Step::Key(slot.name.clone()));
                let behind = self.object(plan, json, at, end);
                self.path.pop();
                behind
            }
            Content::Object(..) => {
                let behind = scan::value(json, at)?;
                if &json[at..behind] != b"null" {
                    return Err(Unwritten::Torn);
                }
                self.out.extend_from_slice(b"null");
                Ok(behind)
            }
            Content::Array(_, plan, first) => {
                let first = first.and_then(|number| self.firsts.get(number).copied().flatten());
                self.path.push(Step::Key(slot.name.clone()));
                let behind = self.array(plan, json, at, first.unwrap_or(usize::MAX), end);
                self.path.pop();
                behind
            }
        }
    }

    fn array(&mut self, plan: &Object, json: &[u8], at: usize, first: usize, end: bool) -> Result<usize, Unwritten> {
        if json.get(at) != Some(&b'[') {
            return Err(Unwritten::Torn);
        }
        self.out.push(b'[');
        let mut place = scan::blank(json, at + 1);
        let mut more = json.get(place) != Some(&b']');
        if !more {
            place += 1;
        }
        let mut item = 0;
        while more && item < first {
            if item > 0 {
                self.out.push(b',');
            }
            self.path.push(Step::Item(item));
            let behind = self.object(plan, json, place, true);
            self.path.pop();
            (more, place) = scan::separator(json, behind?)?;
            item += 1;
        }
        self.out.push(b']');
        Ok(if end && more { scan::closing(json, place)? } else { place })
    }

    fn not_finite(&mut self, slot: &Slot) {
        if self.problems.len() < PROBLEMS_MAX {
            let message = "the value is NaN or infinite, which a GraphQL Float cannot hold; read the document by REST";
            let mut problem = Problem::new(Problem::DATA, message);
            problem.path.clone_from(&self.path);
            problem.path.push(Step::Key(slot.name.clone()));
            self.problems.push(problem);
        }
    }
}

/// For what is written by others, who stop where there is no room.
impl io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_full() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.put(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
