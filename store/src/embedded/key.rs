//! Keys as LMDB takes them: at most 511 bytes.
//!
//! A stored key is a fixed prefix of big-endian numbers and one or two parts. A part that is too long is cut and ends in
//! a hash of the whole; what was cut is kept in the value. So every key can be found, and only the order *among* parts
//! that agree in all bytes kept is the order of their hashes.

/// Longest key LMDB takes.
const KEY_MAX: usize = 511;

const HASH_LEN: usize = 16;

/// Bytes kept of the first of two parts. A longer one takes [`HASH_LEN`] bytes more.
pub(super) const FIRST_MAX: usize = 224;

/// Appends the first of two parts; tells whether it was cut.
///
/// Parts are self-delimiting: none is the beginning of another. A cut part keeps as many bytes as the longest uncut one
/// has, so that this also holds for what is stored, and a scan over one part meets no other's entries.
pub(super) fn push_first(key: &mut Vec<u8>, part: &[u8]) -> bool {
    let cut = part.len() > FIRST_MAX;
    if cut {
        key.extend_from_slice(&part[..FIRST_MAX]);
        push_hash(key, part);
    } else {
        key.extend_from_slice(part);
    }
    cut
}

/// Appends the last part; tells whether it was cut. Only keys with a cut last part have the greatest length, so that
/// none can be mistaken for an uncut one.
pub(super) fn push_last(key: &mut Vec<u8>, part: &[u8]) -> bool {
    let cut = key.len() + part.len() >= KEY_MAX;
    if cut {
        let kept = KEY_MAX - HASH_LEN - key.len();
        key.extend_from_slice(&part[..kept]);
        push_hash(key, part);
    } else {
        key.extend_from_slice(part);
    }
    cut
}

/// The least byte string that is greater than every one beginning with `prefix`, in place; `false` when there is none.
pub(super) fn successor(prefix: &mut Vec<u8>) -> bool {
    while let Some(last) = prefix.last_mut() {
        if *last < 0xff {
            *last += 1;
            return true;
        }
        prefix.pop();
    }
    false
}

fn push_hash(key: &mut Vec<u8>, part: &[u8]) {
    key.extend_from_slice(&blake3::hash(part).as_bytes()[..HASH_LEN]);
}

/// Takes `n` bytes off the front.
pub(super) fn take<'b>(rest: &mut &'b [u8], n: usize) -> Option<&'b [u8]> {
    let (front, behind) = rest.split_at_checked(n)?;
    *rest = behind;
    Some(front)
}

/// Takes a little-endian number off the front.
pub(super) fn take_u16(rest: &mut &[u8]) -> Option<u16> {
    Some(u16::from_le_bytes(take(rest, 2)?.try_into().ok()?))
}

/// Takes a little-endian number off the front.
pub(super) fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(take(rest, 4)?.try_into().ok()?))
}

/// Takes a little-endian number off the front.
pub(super) fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?))
}

/// Takes bytes and their length, as written by [`push_prefixed`], off the front.
pub(super) fn take_prefixed<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let len = take_u32(rest)?;
    take(rest, len as usize)
}

/// Appends bytes behind their length.
pub(super) fn push_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).expect("LMDB refuses values of 4 GiB, and so does everything before it");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes);
}
