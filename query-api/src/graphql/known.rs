//! Texts of operations that callers name instead of sending: trusted documents, which the operator has chosen, and
//! persisted queries, which callers have sent once (the protocol of Apollo's clients: by SHA-256).

use std::collections::HashMap;

use apollo_compiler::response::serde_json_bytes::ByteString;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::operation::Refused;
use super::trusted::TrustedTexts;
use crate::problem::shown;

/// The word and the code by which clients know that they have to send the text, too.
const NOT_FOUND: &str = "PersistedQueryNotFound";
const NOT_FOUND_CODE: &str = "PERSISTED_QUERY_NOT_FOUND";

type Hash = [u8; 32];

/// What a request says of its text.
#[derive(Clone, Debug, Default)]
pub(crate) struct GivenText {
    /// The text itself.
    pub(crate) query: Option<ByteString>,
    /// The id of a trusted document.
    pub(crate) document_id: Option<ByteString>,
    /// SHA-256 of the text in hexadecimal digits, or the id of a trusted document.
    pub(crate) sha256: Option<ByteString>,
}

/// Which texts are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// Every one: whoever asks is an operator.
    Any,
    /// Every one, unless it is configured that trusted documents alone are.
    Usual,
    /// Trusted documents alone; where there are none, nothing.
    Trusted,
}

/// The text of a request.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    /// The text.
    pub(crate) query: ByteString,
    /// Its hash, when the caller wants it to be known by it from now on.
    persist: Option<Hash>,
}

/// Every text that is known.
#[derive(Debug)]
pub(crate) struct KnownTexts {
    trusted: Option<TrustedTexts>,
    persisted: Mutex<Persisted>,
}

impl KnownTexts {
    /// `persisted_bytes_max`: bytes of persisted queries that are kept; with 0 there are none.
    pub(crate) fn new(trusted: Option<TrustedTexts>, persisted_bytes_max: usize) -> Self {
        Self { trusted, persisted: Mutex::new(Persisted { bytes_max: persisted_bytes_max, ..Persisted::default() }) }
    }

    /// The trusted documents, where there are some.
    pub(crate) fn trusted(&self) -> Option<&TrustedTexts> {
        self.trusted.as_ref()
    }

    /// The text of a request.
    ///
    /// # Errors
    ///
    /// A text that is not known, does not have its hash, or is not trusted where only such are; none at all.
    pub(crate) fn resolve(&self, given: GivenText, answered: Answered) -> Result<Resolved, Refused> {
        let GivenText { query, document_id, sha256 } = given;
        if let Some(id) = document_id {
            if query.is_some() || sha256.is_some() {
                let message = "`documentId` stands alone: it names the text";
                return Err(Refused::new("graphql_request", 400, message));
            }
            let found = self.trusted.as_ref().and_then(|trusted| trusted.by_id(id.as_str()));
            return found.map(known).ok_or_else(|| unknown(id.as_str()));
        }
        let only = match answered {
            Answered::Any => false,
            Answered::Usual => self.trusted.as_ref().is_some_and(|trusted| trusted.only),
            Answered::Trusted => true,
        };
        match (query, sha256) {
            (None, None) => {
                let message = "`query` is missing; to look around, open /graphiql on the admin port";
                Err(Refused::new("graphql_request", 400, message))
            }
            (None, Some(name)) => {
                if let Some(text) = self.trusted.as_ref().and_then(|trusted| trusted.by_id(name.as_str())) {
                    return Ok(known(text));
                }
                if only {
                    return Err(unknown(name.as_str()));
                }
                let hash = digits(name.as_str())?;
                let found = self.persisted.lock().get(&hash).map(known);
                found.ok_or_else(|| Refused::new(NOT_FOUND_CODE, 404, NOT_FOUND))
            }
            (Some(query), name) => {
                let mut persist = None;
                if name.is_some() || only {
                    let hash: Hash = Sha256::digest(query.as_str()).into();
                    if let Some(name) = name {
                        if digits(name.as_str())? != hash {
                            let message = "`sha256Hash` is not the SHA-256 of `query`";
                            return Err(Refused::new("persisted_query_mismatch", 400, message));
                        }
                        persist = Some(hash);
                    }
                    if only && !self.trusted.as_ref().is_some_and(|trusted| trusted.has(&hash)) {
                        let message = "only documents that were registered are answered here: send the id of one as \
                                       `documentId`";
                        return Err(Refused::new("untrusted_document", 403, message));
                    }
                    persist = persist.filter(|_| !only);
                }
                Ok(Resolved { query, persist })
            }
        }
    }

    /// Keeps a text that was found to be valid, if its caller wants that.
    pub(crate) fn keep(&self, text: Resolved) {
        if let Some(hash) = text.persist {
            self.persisted.lock().put(hash, text.query.as_str());
        }
    }
}

fn known(query: ByteString) -> Resolved {
    Resolved { query, persist: None }
}

fn unknown(id: &str) -> Refused {
    Refused::new("unknown_document", 404, format!("there is no document `{}` here", shown(id)))
}

fn digits(text: &str) -> Result<Hash, Refused> {
    let bytes = text.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut hash = [0; 32];
    let is_hash = bytes.len() == 64
        && hash.iter_mut().zip(bytes.chunks_exact(2)).all(|(byte, pair)| match (digit(pair[0]), digit(pair[1])) {
            (Some(high), Some(low)) => {
                *byte = high << 4 | low;
                true
            }
            _ => false,
        });
    is_hash.then_some(hash).ok_or_else(|| {
        let message = "`extensions.persistedQuery.sha256Hash` must be 64 hexadecimal digits";
        Refused::new("graphql_request", 400, message)
    })
}

/// Texts by their hash: the ones used most recently, up to a number of bytes.
#[derive(Debug, Default)]
struct Persisted {
    bytes_max: usize,
    bytes: usize,
    clock: u64,
    texts: HashMap<Hash, (u64, ByteString)>,
}

/// Bytes that a text costs beside its own.
const ENTRY_BYTES: usize = 128;

impl Persisted {
    fn get(&mut self, hash: &Hash) -> Option<ByteString> {
        self.clock += 1;
        let (used, text) = self.texts.get_mut(hash)?;
        *used = self.clock;
        Some(text.clone())
    }

    fn put(&mut self, hash: Hash, text: &str) {
        let bytes = text.len() + ENTRY_BYTES;
        if bytes > self.bytes_max || self.texts.contains_key(&hash) {
            return;
        }
        if self.bytes + bytes > self.bytes_max {
            // Half of the room at once, so that the search for the oldest is paid once in many insertions.
            let mut by_use: Vec<(u64, Hash)> = self.texts.iter().map(|(hash, (used, _))| (*used, *hash)).collect();
            by_use.sort_unstable();
            for (_, old) in by_use {
                if self.bytes + bytes <= self.bytes_max / 2 {
                    break;
                }
                let freed = self.texts.remove(&old).map_or(0, |(_, text)| text.as_str().len() + ENTRY_BYTES);
                self.bytes -= freed;
            }
        }
        self.clock += 1;
        self.bytes += bytes;
        // Copied: the text is a part of its request's body, which would be kept whole.
        self.texts.insert(hash, (self.clock, text.to_owned().into()));
    }
}

#[cfg(test)]
mod tests {
    use super::Answered::{Trusted, Usual};
    use super::*;

    fn hex(text: &str) -> ByteString {
        Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
    }

    fn code(refused: Result<Resolved, Refused>) -> &'static str {
        refused.map_or_else(|refused| refused.0[0].code, |_| "")
    }

    #[test]
    fn a_text_is_known_by_its_hash_once_it_was_valid() {
        let texts = KnownTexts::new(None, 10_000);
        let by_hash = || GivenText { sha256: Some(hex("{ a }")), ..GivenText::default() };
        assert_eq!(code(texts.resolve(by_hash(), Usual)), NOT_FOUND_CODE);
        let both = GivenText { query: Some("{ a }".into()), ..by_hash() };
        let resolved = texts.resolve(both, Usual).expect("the hash is right");
        assert_eq!(code(texts.resolve(by_hash(), Usual)), NOT_FOUND_CODE, "nobody has found it valid yet");
        texts.keep(resolved);
        assert_eq!(texts.resolve(by_hash(), Usual).expect("known").query.as_str(), "{ a }");
        let other = GivenText { query: Some("{ b }".into()), ..by_hash() };
        assert_eq!(code(texts.resolve(other, Usual)), "persisted_query_mismatch");
        let torn = GivenText { sha256: Some("abc".into()), ..GivenText::default() };
        assert_eq!(code(texts.resolve(torn, Usual)), "graphql_request");
    }

    #[test]
    fn a_flood_of_texts_is_kept_within_its_bytes() {
        let texts = KnownTexts::new(None, 4_000);
        let keep = |text: String| {
            let given = GivenText { sha256: Some(hex(&text)), query: Some(text.into()), ..GivenText::default() };
            texts.keep(texts.resolve(given, Usual).expect("right"));
        };
        let hot = || GivenText { sha256: Some(hex("{ hot }")), ..GivenText::default() };
        keep("{ hot }".into());
        for n in 0..1_000 {
            keep(format!("{{ a{n} }}"));
            assert!(texts.resolve(hot(), Usual).is_ok(), "what is used stays");
            assert!(texts.persisted.lock().bytes <= 4_000);
        }
        keep("x".repeat(5_000));
        let state = texts.persisted.lock();
        let sum: usize = state.texts.values().map(|(_, text)| text.as_str().len() + ENTRY_BYTES).sum();
        assert_eq!(sum, state.bytes);
    }

    #[test]
    fn only_trusted_texts_by_a_channel_that_wants_it() {
        let query = |text: &'static str| GivenText { query: Some(text.into()), ..GivenText::default() };
        let trusted = TrustedTexts::of([("one", "{ one }")], false);
        let texts = KnownTexts::new(Some(trusted), 10_000);
        let both = GivenText { sha256: Some(hex("{ two }")), ..query("{ two }") };
        texts.keep(texts.resolve(both.clone(), Usual).expect("right"));
        let by_hash = || GivenText { sha256: Some(hex("{ two }")), ..GivenText::default() };
        assert!(texts.resolve(by_hash(), Usual).is_ok());
        assert_eq!(code(texts.resolve(by_hash(), Trusted)), "unknown_document", "what others have sent is not trusted");
        assert_eq!(code(texts.resolve(both, Trusted)), "untrusted_document");
        assert!(texts.resolve(query("{ one }"), Trusted).is_ok());
        let none = KnownTexts::new(None, 10_000);
        assert_eq!(code(none.resolve(query("{ one }"), Trusted)), "untrusted_document");
        assert_eq!(code(none.resolve(by_hash(), Trusted)), "unknown_document");
    }

    #[test]
    fn only_trusted_texts_where_only_they_are() {
        let trusted = TrustedTexts::of([("one", "{ one }")], true);
        let texts = KnownTexts::new(Some(trusted), 10_000);
        let query = |text: &'static str| GivenText { query: Some(text.into()), ..GivenText::default() };
        let id = |id: &'static str| GivenText { document_id: Some(id.into()), ..GivenText::default() };
        let by_hash = |id: ByteString| GivenText { sha256: Some(id), ..GivenText::default() };
        assert_eq!(texts.resolve(id("one"), Usual).expect("trusted").query.as_str(), "{ one }");
        assert!(texts.resolve(by_hash("one".into()), Usual).is_ok());
        assert!(texts.resolve(by_hash(hex("{ one }")), Usual).is_ok());
        assert!(texts.resolve(query("{ one }"), Usual).is_ok(), "word for word");
        assert_eq!(code(texts.resolve(query("{ one  }"), Usual)), "untrusted_document");
        assert!(texts.resolve(query("{ two }"), Answered::Any).is_ok(), "an operator's");
        assert_eq!(code(texts.resolve(id("two"), Usual)), "unknown_document");
        assert_eq!(code(texts.resolve(by_hash(hex("{ two }")), Usual)), "unknown_document");
        let both = GivenText { query: Some("{ two }".into()), ..by_hash(hex("{ two }")) };
        assert_eq!(code(texts.resolve(both, Usual)), "untrusted_document", "nothing gets in by registering itself");
    }
}
