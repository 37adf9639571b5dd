//! Lists of files with `*` in their names.

use std::io;
use std::path::{Path, PathBuf};

/// The files a pattern names, by name. `*` stands for any characters within the last part of the path; hidden files are
/// not matched. A pattern without `*` is one file, whether it exists or not.
pub(super) fn matching(folder: &Path, pattern: &str) -> io::Result<Vec<PathBuf>> {
    let path = folder.join(pattern);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_string();
    if !name.contains('*') {
        return Ok(vec![path]);
    }
    let parent = path.parent().unwrap_or(folder);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|file| !file.starts_with('.') && fits(&name, file)) {
            files.push(parent.join(entry.file_name()));
        }
    }
    files.sort();
    Ok(files)
}

/// Whether `name` fits `pattern`, in which `*` stands for any characters.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name
            .strip_prefix(before)
            .is_some_and(|rest| (0..=rest.len()).any(|at| rest.is_char_boundary(at) && fits(after, &rest[at..]))),
    }
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_is_any_characters() {
        for (pattern, name, expected) in [
            ("*.yaml", "a.yaml", true),
            ("*.yaml", "a.yml", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "ac", false),
            ("*", "", true),
            ("*é", "caché", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }
}
