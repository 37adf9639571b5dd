//! Key bytes as strings that sort as the bytes do.
//!
//! MongoDB compares binary values by their length first, so they cannot carry an order. Strings it compares byte by byte.
//! Each byte of a key becomes the character of its number, one or two bytes of UTF-8, whose order is that of the numbers:
//! keys are mostly digits and letters, and stay as short as they are.

/// Appends the string form of `key`.
pub(super) fn push(out: &mut Vec<u8>, key: &[u8]) {
    if key.is_ascii() {
        return out.extend_from_slice(key);
    }
    for byte in key {
        if byte.is_ascii() {
            out.push(*byte);
        } else {
            out.extend_from_slice(&[0xc0 | byte >> 6, 0x80 | byte & 0x3f]);
        }
    }
}

/// The string form of a key.
pub(super) fn of(key: &[u8]) -> String {
    key.iter().map(|byte| char::from(*byte)).collect()
}

/// Appends the key of which `text` is the string form; tells whether it is one.
pub(super) fn decode(out: &mut Vec<u8>, text: &str) -> bool {
    for letter in text.chars() {
        let Ok(byte) = u8::try_from(u32::from(letter)) else { return false };
        out.push(byte);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_bytes_are_kept() {
        let mut keys: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
        keys.extend(
            (0..=255).flat_map(|byte| [vec![byte, 0], vec![0x7f, byte], vec![0x80, byte], vec![0xff, byte, 1]]),
        );
        keys.push(vec![]);
        keys.sort();
        let texts: Vec<String> = keys.iter().map(|key| of(key)).collect();
        assert!(texts.is_sorted());
        for (key, text) in keys.iter().zip(&texts) {
            let (mut pushed, mut back) = (Vec::new(), Vec::new());
            push(&mut pushed, key);
            assert_eq!(pushed, text.as_bytes());
            assert!(decode(&mut back, text));
            assert_eq!(back, *key);
        }
        assert!(!decode(&mut Vec::new(), "\u{100}"));
    }
}
