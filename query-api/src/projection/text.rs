//! Looking for a text inside a document.

use std::borrow::Cow;

use super::scan::{Torn, elements, members};

/// Whether any text at `path` is as wanted. Arrays on the way are looked into, every element.
pub(crate) fn any_text(json: &[u8], path: &[Vec<u8>], is_met: &impl Fn(&str) -> bool) -> Result<bool, Torn> {
    visit(json, 0, path, is_met)
}

fn visit(json: &[u8], at: usize, path: &[Vec<u8>], is_met: &impl Fn(&str) -> bool) -> Result<bool, Torn> {
    match (json.get(at), path.split_first()) {
        (Some(b'['), _) => {
            let mut elements = elements(json, at)?;
            while let Some(element) = elements.next()? {
                if visit(&json[..element.end], element.start, path, is_met)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        (Some(b'{'), Some((name, rest))) => {
            let mut members = members(json, at)?;
            while let Some(member) = members.next()? {
                if json[member.name.clone()] == **name {
                    return visit(&json[..member.value.end], member.value.start, rest, is_met);
                }
            }
            Ok(false)
        }
        (Some(b'"'), None) => {
            let text: Cow<'_, str> = serde_json::from_slice(&json[at..]).map(Cow::Owned).map_err(|_| Torn)?;
            Ok(is_met(&text))
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
            let found = any_text(json.as_bytes(), &path, &|text: &str| text.contains(part));
            assert_eq!(found, Ok(wanted), "{path:?} {part}");
        }
        assert_eq!(any_text(b"{", &[b"a".to_vec()], &|_: &str| true), Err(Torn));
    }
}
