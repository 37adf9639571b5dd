//! Looking for a text inside a document.

use std::borrow::Cow;

use super::scan::{Torn, elements, members};

/// Whether a text at `path` has `part` in it. Arrays on the way are looked into, every element.
pub(crate) fn contains_text(json: &[u8], path: &[Vec<u8>], part: &str) -> Result<bool, Torn> {
    visit(json, 0, path, part)
}

fn visit(json: &[u8], at: usize, path: &[Vec<u8>], part: &str) -> Result<bool, Torn> {
    match (json.get(at), path.split_first()) {
        (Some(b'['), _) => {
            let mut elements = elements(json, at)?;
            while let Some(element) = elements.next()? {
                if visit(&json[..element.end], element.start, path, part)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        (Some(b'{'), Some((name, rest))) => {
            let mut members = members(json, at)?;
            while let Some(member) = members.next()? {
                if json[member.name.clone()] == **name {
                    return visit(&json[..member.value.end], member.value.start, rest, part);
                }
            }
            Ok(false)
        }
        (Some(b'"'), None) => {
            let text: Cow<'_, str> = serde_json::from_slice(&json[at..]).map(Cow::Owned).map_err(|_| Torn)?;
            Ok(text.contains(part))
        }
        (Some(_), _) => Ok(false),
        (None, _) => Err(Torn),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_wherever_the_path_leads() {
        let json = r#"{"name":"O\"Neil","invoices":[{"status":"open"},{"status":null},{"status":"paid"}],"one":null}"#;
        for (path, part, wanted) in [
            ("name", "O\"N", true),
            ("name", "x", false),
            ("invoices.status", "ai", true),
            ("invoices.status", "null", false),
            ("one.status", "a", false),
            ("missing", "a", false),
        ] {
            let path: Vec<Vec<u8>> = path.split('.').map(|part| part.as_bytes().to_vec()).collect();
            assert_eq!(contains_text(json.as_bytes(), &path, part), Ok(wanted), "{path:?} {part}");
        }
        assert_eq!(contains_text(b"{", &[b"a".to_vec()], "a"), Err(Torn));
    }
}
