//! Places in a list, as readers hold them: sealed, and good for one query of one caller only. A place holds the value and
//! the id of a document, which the caller may not be meant to see: so it is encrypted too.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// First byte of every cursor: its format.
const FORMAT: u8 = 2;
/// Bytes of the signature that are kept.
const SIGNATURE_LEN: usize = 16;
/// Bytes of a query's fingerprint.
pub(crate) const FINGERPRINT_LEN: usize = 16;
/// Bytes of a name.
const NAME_LEN: usize = 12;

/// Seals and opens cursors. The signature of a place is also what its encryption starts from (a synthetic IV): equal
/// places of equal queries give equal cursors, and nothing else is told.
#[derive(Clone)]
pub(crate) struct CursorKey {
    signing: Hmac<Sha256>,
    covering: Hmac<Sha256>,
}

impl fmt::Debug for CursorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CursorKey")
    }
}

/// What a cursor is good for: everything of the query that decides which places there are.
pub(crate) type Fingerprint = [u8; FINGERPRINT_LEN];

impl CursorKey {
    /// Longest cursor looked at, in characters: what fits into the head of a request, beside the rest of it.
    pub(crate) const TEXT_LEN_MAX: usize = 60 * 1024;

    /// A key made of a secret of any length.
    pub(crate) fn new(secret: &[u8]) -> Self {
        let mac = |key: &[u8]| Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
        let derived = |word: &[u8]| mac(&mac(secret).chain_update(word).finalize().into_bytes());
        Self { signing: derived(b"cursor signature"), covering: derived(b"cursor cover") }
    }

    /// A cursor that holds `place` and is good for the query with this fingerprint.
    pub(crate) fn seal(&self, fingerprint: &Fingerprint, place: &[u8]) -> String {
        let mut bytes = Vec::with_capacity(1 + SIGNATURE_LEN + place.len());
        bytes.push(FORMAT);
        bytes.extend_from_slice(&self.signed(fingerprint, place).finalize().into_bytes()[..SIGNATURE_LEN]);
        bytes.extend_from_slice(place);
        let (head, place) = bytes.split_at_mut(1 + SIGNATURE_LEN);
        self.cover(&head[1..], place);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The place of a cursor; `None` when it was not made by [`Self::seal`] with this key and fingerprint, or is
    /// longer than [`Self::TEXT_LEN_MAX`].
    pub(crate) fn open(&self, fingerprint: &Fingerprint, text: &str) -> Option<Vec<u8>> {
        if text.len() > Self::TEXT_LEN_MAX {
            return None;
        }
        let mut bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (format, rest) = bytes.split_first_mut()?;
        let (signature, place) = rest.split_at_mut_checked(SIGNATURE_LEN)?;
        if *format != FORMAT {
            return None;
        }
        self.cover(signature, place);
        self.signed(fingerprint, place).verify_truncated_left(&*signature).ok()?;
        Some(place.to_vec())
    }

    /// A short name for `bytes` within the query with this fingerprint, which says nothing of them.
    pub(crate) fn name(&self, fingerprint: &Fingerprint, bytes: &[u8]) -> String {
        let named = self.signing.clone().chain_update(b"name").chain_update(fingerprint).chain_update(bytes);
        URL_SAFE_NO_PAD.encode(&named.finalize().into_bytes()[..NAME_LEN])
    }

    fn signed(&self, fingerprint: &Fingerprint, place: &[u8]) -> Hmac<Sha256> {
        self.signing.clone().chain_update([FORMAT]).chain_update(fingerprint).chain_update(place)
    }

    /// Encrypts, or decrypts what was encrypted.
    fn cover(&self, signature: &[u8], place: &mut [u8]) {
        for (number, block) in place.chunks_mut(32).enumerate() {
            let number = (number as u32).to_be_bytes();
            let key = self.covering.clone().chain_update(signature).chain_update(number).finalize().into_bytes();
            block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn long_places_are_opened_as_far_as_they_fit_into_a_request() {
        let key = CursorKey::new(b"secret");
        let opened = |place: &[u8]| key.open(&[7; 16], &key.seal(&[7; 16], place));
        assert_eq!(opened(&[1; 45_000]), Some(vec![1; 45_000]));
        assert_eq!(opened(&[1; 50_000]), None);
    }

    proptest! {
        #[test]
        fn only_what_was_sealed_is_opened(place in prop::collection::vec(any::<u8>(), 0..60), at in 0usize..200, other in any::<u8>()) {
            let key = CursorKey::new(b"secret");
            let sealed = key.seal(&[7; 16], &place);
            let bytes = URL_SAFE_NO_PAD.decode(&sealed).expect("base64");
            prop_assert!(place.len() < 4 || !bytes.windows(place.len()).any(|part| part == place), "a place can be read");
            prop_assert_eq!(key.open(&[7; 16], &sealed), Some(place));
            prop_assert_eq!(key.open(&[8; 16], &sealed), None);
            prop_assert_eq!(CursorKey::new(b"other").open(&[7; 16], &sealed), None);
            let mut torn = sealed.clone().into_bytes();
            let at = at % torn.len();
            torn[at] = other;
            if let Ok(torn) = String::from_utf8(torn) && torn != sealed {
                prop_assert_eq!(key.open(&[7; 16], &torn), None);
            }
        }

        #[test]
        fn anything_else_is_refused(text in ".*") {
            prop_assert_eq!(CursorKey::new(b"secret").open(&[0; 16], &text), None);
        }
    }
}
