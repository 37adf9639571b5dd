//! Bytes of answers that are on their way to clients.
//!
//! An answer lies in one buffer, which is held until the client has taken the last byte of it, however slowly it does. That
//! is long after the request had its place among those being answered. So these bytes are counted: an answer takes its
//! share of them, and is not sent where there is none left. The share belongs to the buffer and not to the body: the server
//! drops a body when it takes the buffer out of it, before a byte is written.
//!
//! A buffer that several answers send, as one that the cache keeps, is counted once.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use hyper::Response;
use parking_lot::Mutex;

use crate::access::Caller;
use crate::http::Body;
use crate::problem::Problem;

/// Buffers of up to so many bytes are not counted: a connection has others of that size.
const UNCOUNTED_MAX: usize = 64 * 1024;
/// Part of all bytes that is kept from a caller who has that part.
const OF_CALLER: usize = 4;
/// Seconds after which an answer that was not sent may be asked for again.
const RETRY_SECONDS: u32 = 1;

/// Counts the bytes on their way.
pub(crate) struct Sending {
    bytes_max: usize,
    held: Arc<Mutex<Held>>,
}

#[derive(Default)]
struct Held {
    bytes: usize,
    of_callers: HashMap<Caller, usize>,
    buffers: HashMap<Place, Buffer>,
}

/// Where a buffer lies, and how long it is: while it is held nothing else has that place.
type Place = (usize, usize);

/// A buffer that is being sent.
struct Buffer {
    answers: usize,
    /// Who had it sent first, where that is known.
    caller: Option<Caller>,
}

/// A buffer with its share, which is free again when this is dropped.
struct Sent {
    // In this order: what is freed first could lie in a new buffer while it is counted yet.
    _share: Share,
    bytes: Bytes,
}

struct Share {
    place: Place,
    held: Arc<Mutex<Held>>,
}

/// Whether an answer of so many bytes is sent in any case.
pub(crate) fn is_free(bytes: usize) -> bool {
    bytes <= UNCOUNTED_MAX
}

impl Sending {
    /// At most so many bytes; a single answer is sent whatever its size.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, held: Arc::default() }
    }

    /// Takes an answer's share. The last quarter is kept from a caller who has a quarter; `None`: it is not known that it
    /// is one caller.
    ///
    /// # Errors
    ///
    /// There is none left: the answer is not to be sent.
    pub(crate) fn take(
        &self,
        response: &mut Response<Body>,
        caller: impl FnOnce() -> Option<Caller>,
    ) -> Result<(), Problem> {
        match response.body_mut() {
            Body::Whole(bytes) if !is_free(bytes.len()) => {
                *bytes = self.share_of(std::mem::take(bytes), caller()).ok_or_else(|| full(self.bytes_max))?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn share_of(&self, bytes: Bytes, caller: Option<Caller>) -> Option<Bytes> {
        let place = (bytes.as_ptr() as usize, bytes.len());
        self.held.lock().add(place, caller, self.bytes_max)?;
        Some(Bytes::from_owner(Sent { _share: Share { place, held: self.held.clone() }, bytes }))
    }

    /// Bytes that are on their way.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.held.lock().bytes
    }
}

impl Held {
    /// Counts one more answer that sends a buffer; `None`: there is no room for it.
    fn add(&mut self, place: Place, caller: Option<Caller>, bytes_max: usize) -> Option<()> {
        if let Some(buffer) = self.buffers.get_mut(&place) {
            buffer.answers += 1;
            return Some(());
        }
        let (_, len) = place;
        let after = self.bytes.saturating_add(len);
        let quarter = bytes_max / OF_CALLER;
        let has = caller.map_or(0, |caller| self.of_callers.get(&caller).copied().unwrap_or(0));
        let is_last_quarter = after > bytes_max - quarter;
        if self.bytes > 0 && (after > bytes_max || (is_last_quarter && has >= quarter)) {
            return None;
        }
        self.bytes = after;
        if let Some(caller) = caller {
            self.of_callers.insert(caller, has + len);
        }
        self.buffers.insert(place, Buffer { answers: 1, caller });
        Some(())
    }

    /// One answer less sends it.
    fn remove(&mut self, place: Place) {
        let Some(buffer) = self.buffers.get_mut(&place) else { return };
        buffer.answers -= 1;
        if buffer.answers > 0 {
            return;
        }
        let (caller, (_, len)) = (buffer.caller, place);
        self.buffers.remove(&place);
        self.bytes -= len;
        let Some(caller) = caller else { return };
        let left = self.of_callers.get(&caller).map_or(0, |has| has.saturating_sub(len));
        if left == 0 {
            self.of_callers.remove(&caller);
        } else {
            self.of_callers.insert(caller, left);
        }
    }
}

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.lock().remove(self.place);
    }
}

fn full(bytes_max: usize) -> Problem {
    let detail = format!(
        "answers of {bytes_max} bytes (`api.limits.sending_bytes_max`), or as many of them as one caller may have, are on \
         their way to clients that have not taken them yet: take those first, or ask for less"
    );
    Problem::unavailable("sending_full", detail, RETRY_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Option<Caller> = Some(Caller::At(1));
    const OTHER: Option<Caller> = Some(Caller::At(2));
    const MIB: usize = 1 << 20;

    fn buffer(bytes: usize) -> Bytes {
        vec![b' '; bytes].into()
    }

    #[test]
    fn the_last_quarter_is_kept_from_who_has_one() {
        let sending = Sending::new(8 * MIB);
        let first = sending.share_of(buffer(5 * MIB), ONE).expect("there is room");
        let second = sending.share_of(buffer(MIB), ONE).expect("two of eight are left");
        assert!(sending.share_of(buffer(MIB), ONE).is_none(), "these are for others");
        let of_other = sending.share_of(buffer(MIB), OTHER).expect("as these are");
        assert!(sending.share_of(buffer(2 * MIB), None).is_none(), "there are eight");
        let of_nobody = sending.share_of(buffer(MIB), None).expect("there is one left");
        assert_eq!((sending.bytes(), of_nobody.len()), (8 * MIB, MIB));
        drop((first, second));
        let first = sending.share_of(buffer(MIB), ONE).expect("what was taken is free again");
        drop((first, of_other, of_nobody));
        let held = sending.held.lock();
        assert!(held.bytes == 0 && held.of_callers.is_empty() && held.buffers.is_empty(), "nothing is kept");
    }

    #[test]
    fn a_buffer_is_counted_once_until_the_last_answer_is_sent() {
        let sending = Sending::new(2 * MIB);
        let kept = buffer(MIB);
        let mut answers: Vec<Bytes> =
            (0..10).map(|_| sending.share_of(kept.clone(), ONE).expect("it is held already")).collect();
        assert_eq!(sending.bytes(), MIB);
        let part = answers.pop().expect("there are ten").slice(100..200);
        drop(answers);
        assert_eq!((sending.bytes(), &part[..]), (MIB, &kept[100..200]));
        drop(part);
        assert_eq!(sending.bytes(), 0);
    }

    #[test]
    fn one_answer_is_sent_whatever_its_size() {
        let sending = Sending::new(MIB);
        let large = sending.share_of(buffer(3 * MIB), ONE).expect("nothing else is on its way");
        assert!(sending.share_of(buffer(MIB / 8), OTHER).is_none());
        drop(large);
        assert!(sending.share_of(buffer(MIB / 8), OTHER).is_some());
    }

    #[test]
    fn what_is_small_is_not_counted() {
        let sending = Sending::new(1);
        let small = || Response::new(Body::from(buffer(UNCOUNTED_MAX)));
        let mut all: Vec<_> = (0..10).map(|_| small()).collect();
        assert!(all.iter_mut().all(|response| sending.take(response, || ONE).is_ok()));
        assert_eq!(sending.bytes(), 0);
    }
}
