//! Trusted documents: texts that the operator has chosen, each with an id that callers send in its place.
//!
//! They come from a folder (`*.graphql`, the id is the file's name without its end) or from a manifest: a JSON object of
//! id and text, as code generators write it, or Apollo's, with `operations` of `id` and `body`.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use apollo_compiler::parser::Parser;
use apollo_compiler::response::serde_json_bytes::ByteString;
use parking_lot::Mutex;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::GraphQl;
use crate::Error;

/// Documents there may be.
const DOCUMENTS_MAX: usize = 10_000;

/// Texts by id.
#[derive(Debug)]
pub(crate) struct TrustedTexts {
    /// Whether nothing else is answered.
    pub(crate) only: bool,
    by_id: HashMap<Box<str>, ByteString>,
    hashes: HashSet<[u8; 32]>,
    /// Where each is from, in the order of ids: for messages.
    places: Vec<(Box<str>, PathBuf)>,
    /// What was complained of already.
    told: Mutex<HashSet<String>>,
}

impl TrustedTexts {
    /// Reads a folder or a manifest.
    ///
    /// # Errors
    ///
    /// [`Error::TrustedDocuments`]: what cannot be read, is no GraphQL, or has an id twice.
    pub(crate) fn load(path: &Path, only: bool) -> Result<Self, Error> {
        let found = if path.is_dir() { folder(path)? } else { manifest(path)? };
        if found.is_empty() {
            return Err(wrong(path, "there is no document in it", None));
        }
        if found.len() > DOCUMENTS_MAX {
            return Err(wrong(path, &format!("there are more than {DOCUMENTS_MAX} documents in it"), None));
        }
        for (id, text, place) in &found {
            if let Err(broken) = Parser::new().parse_ast(text, id) {
                return Err(wrong(place, &format!("`{id}` is no GraphQL: {}", first_line(&broken.errors)), None));
            }
        }
        let mut texts = Self::of(found.iter().map(|(id, text, _)| (id.as_str(), text.as_str())), only);
        if texts.places.len() != found.len() {
            return Err(wrong(path, "two documents have the same id", None));
        }
        texts.places = found.into_iter().map(|(id, _, place)| (id.into(), place)).collect();
        Ok(texts)
    }

    /// These texts.
    pub(super) fn of<'t>(texts: impl IntoIterator<Item = (&'t str, &'t str)>, only: bool) -> Self {
        let (mut by_id, mut hashes) = (HashMap::new(), HashSet::new());
        let mut places = Vec::new();
        for (id, text) in texts {
            let hash: [u8; 32] = Sha256::digest(text).into();
            let hexadecimal: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            let text = ByteString::from(text.to_owned());
            if by_id.insert(id.into(), text.clone()).is_none() {
                places.push((id.into(), PathBuf::new()));
            }
            by_id.entry(hexadecimal.into()).or_insert(text);
            hashes.insert(hash);
        }
        Self { only, by_id, hashes, places, told: Mutex::default() }
    }

    /// The text with this id, or with this SHA-256 in hexadecimal digits.
    pub(super) fn by_id(&self, id: &str) -> Option<ByteString> {
        self.by_id.get(id).cloned()
    }

    /// Whether a text with this hash is among them.
    pub(super) fn has(&self, hash: &[u8; 32]) -> bool {
        self.hashes.contains(hash)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Tells the log which fit none of the schemas that are served, each mistake once. They are refused when they are
    /// asked for. What a document is told to lack is what the first schema lacks.
    pub(crate) fn check(&self, schemas: &[&GraphQl]) {
        let [first, others @ ..] = schemas else { return };
        for (id, place) in &self.places {
            let Some(text) = self.by_id.get(id) else { continue };
            if let Err(refused) = first.check(text.as_str())
                && !others.iter().any(|schema| schema.check(text.as_str()).is_ok())
            {
                let message = refused.message();
                if self.told.lock().insert(format!("{id}: {message}")) {
                    tracing::error!(file = %place.display(), id = &**id, message, "a trusted document does not fit");
                }
            }
        }
    }
}

type Found = Vec<(String, String, PathBuf)>;

fn folder(path: &Path) -> Result<Found, Error> {
    let cannot = |error| wrong(path, "it cannot be read", Some(error));
    let mut found = Found::new();
    for entry in std::fs::read_dir(path).map_err(cannot)? {
        let file = entry.map_err(cannot)?.path();
        let is_document = file.extension().is_some_and(|end| end == "graphql" || end == "gql");
        if let (true, Some(id)) = (is_document, file.file_stem().and_then(|id| id.to_str())) {
            let text =
                std::fs::read_to_string(&file).map_err(|error| wrong(&file, "it cannot be read", Some(error)))?;
            found.push((id.to_owned(), text, file.clone()));
        }
    }
    found.sort();
    Ok(found)
}

fn manifest(path: &Path) -> Result<Found, Error> {
    let text = std::fs::read(path).map_err(|error| wrong(path, "it cannot be read", Some(error)))?;
    let manifest: Value =
        serde_json::from_slice(&text).map_err(|error| wrong(path, &format!("it is no JSON: {error}"), None))?;
    let form = "it must be an object of ids and texts, or have `operations` of `id` and `body`";
    let members = manifest.as_object().ok_or_else(|| wrong(path, form, None))?;
    let pair = |id: &Value, text: &Value| Some((id.as_str()?.to_owned(), text.as_str()?.to_owned(), path.to_owned()));
    let found: Option<Found> = match members.get("operations") {
        Some(Value::Array(operations)) => operations.iter().map(|one| pair(one.get("id")?, one.get("body")?)).collect(),
        _ => members.iter().map(|(id, text)| pair(&Value::String(id.clone()), text)).collect(),
    };
    found.ok_or_else(|| wrong(path, form, None))
}

fn first_line(errors: &apollo_compiler::validation::DiagnosticList) -> String {
    let first = errors.iter().next();
    first.map_or_else(String::new, |first| match first.line_column_range() {
        Some(range) => format!("line {}: {}", range.start.line, first.error),
        None => first.error.to_string(),
    })
}

fn wrong(path: &Path, message: &str, source: Option<std::io::Error>) -> Error {
    Error::TrustedDocuments { path: path.to_owned(), message: message.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    fn said(error: &Error) -> String {
        error.to_string()
    }

    #[test]
    fn folders_and_manifests_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| write(folder.path(), name, text);
        let plain = write("plain.json", r#"{"a": "{ x }", "b": "{ y }"}"#);
        let apollo = write(
            "apollo.json",
            r#"{"format": "apollo-persisted-query-manifest", "version": 1,
                "operations": [{"id": "a", "name": "A", "type": "query", "body": "{ x }"}]}"#,
        );
        write("A.graphql", "query A { x }");
        assert_eq!(TrustedTexts::load(&plain, true).expect("read").len(), 2);
        let texts = TrustedTexts::load(&apollo, false).expect("read");
        assert_eq!(texts.by_id("a").expect("there").as_str(), "{ x }");
        let texts = TrustedTexts::load(folder.path(), false).expect("read");
        assert_eq!((texts.len(), texts.by_id("A").expect("there").as_str()), (1, "query A { x }"));
    }

    #[test]
    fn mistakes_name_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| write(folder.path(), name, text);
        for (name, text, words) in [
            ("a.json", "[]", "an object of ids and texts"),
            ("b.json", "{\"a\": 1}", "an object of ids and texts"),
            ("c.json", "{", "no JSON"),
            ("d.json", "{}", "no document"),
            ("e.json", "{\"a\": \"{ x\"}", "`a` is no GraphQL: line 1"),
        ] {
            let said = said(&TrustedTexts::load(&write(name, text), true).expect_err(name));
            assert!(said.contains(name) && said.contains(words), "{said}");
        }
        write("Broken.graphql", "query {\n  x(\n");
        let broken = said(&TrustedTexts::load(folder.path(), true).expect_err("broken"));
        assert!(broken.contains("Broken.graphql"), "{broken}");
        assert!(
            said(&TrustedTexts::load(Path::new("/nowhere.json"), true).expect_err("not there")).contains("/nowhere")
        );
    }
}
