//! Seeds of an ascent as bytes, as they lie in the store until their roots are in the log.
//!
//! ```text
//! per version: id (4), number of nodes (4), then per node the keys of `ups`, per node the keys of `overs`, the roots;
//! keys: how many (4), then each with its length (4)
//! ```

use std::collections::BTreeMap;

use headwater_store::VersionId;

use crate::ascend::Seeds;
use crate::keys::KeySet;

/// Appends the seeds of one version.
pub(crate) fn encode(version: VersionId, mut seeds: Seeds, out: &mut Vec<u8>) {
    push(out, version.0 as usize);
    push(out, seeds.ups.len());
    for keys in seeds.ups.iter_mut().chain(&mut seeds.overs).chain([&mut seeds.roots]) {
        let count = keys.settle();
        push(out, count);
        for key in keys.list(0..count).iter() {
            push(out, key.len());
            out.extend_from_slice(key);
        }
    }
}

/// Adds what was encoded to `into`; `None` when the bytes are not what was written.
pub(crate) fn decode(mut bytes: &[u8], into: &mut BTreeMap<VersionId, Seeds>) -> Option<()> {
    while !bytes.is_empty() {
        let version = VersionId(take(&mut bytes)?);
        let nodes = take(&mut bytes)? as usize;
        // Each node has two numbers at least.
        if nodes > bytes.len() / 8 {
            return None;
        }
        let empty = || vec![KeySet::default(); nodes];
        let seeds =
            into.entry(version).or_insert_with(|| Seeds { ups: empty(), overs: empty(), roots: KeySet::default() });
        if seeds.ups.len() != nodes {
            return None;
        }
        for keys in seeds.ups.iter_mut().chain(&mut seeds.overs).chain([&mut seeds.roots]) {
            for _ in 0..take(&mut bytes)? {
                let len = take(&mut bytes)? as usize;
                let (key, rest) = bytes.split_at_checked(len)?;
                keys.push(key);
                bytes = rest;
            }
        }
    }
    Some(())
}

fn push(out: &mut Vec<u8>, n: usize) {
    let n = u32::try_from(n).expect("a micro-batch is bounded far below 4 GiB");
    out.extend_from_slice(&n.to_le_bytes());
}

fn take(bytes: &mut &[u8]) -> Option<u32> {
    let (n, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*n))
}
