//! Variable-length integers (LEB128), the lengths and small numbers of the binary codec.

pub(crate) fn write(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push((n as u8) | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

pub(crate) fn write_signed(out: &mut Vec<u8>, n: i64) {
    write(out, ((n << 1) ^ (n >> 63)) as u64);
}

/// Reads one number off the front of `bytes`; `None` when they end too early or the number has over 64 bits.
pub(crate) fn read(bytes: &mut &[u8]) -> Option<u64> {
    let mut n = 0u64;
    let mut shift = 0;
    loop {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if shift == 63 && byte > 1 {
            return None;
        }
        n |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(n);
        }
        shift += 7;
        if shift > 63 {
            return None;
        }
    }
}

pub(crate) fn read_signed(bytes: &mut &[u8]) -> Option<i64> {
    let n = read(bytes)?;
    Some(((n >> 1) as i64) ^ -((n & 1) as i64))
}

/// Takes `len` bytes off the front.
pub(crate) fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    if bytes.len() < len {
        return None;
    }
    let (head, rest) = bytes.split_at(len);
    *bytes = rest;
    Some(head)
}

/// Takes a length-prefixed run of bytes off the front.
pub(crate) fn take_prefixed<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(read(bytes)?).ok()?;
    take(bytes, len)
}

pub(crate) fn write_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    write(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
