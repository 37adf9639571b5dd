//! Where in a source's own log an event stands.

use std::fmt;

/// A point in one source's change log. Totally ordered per source by (epoch, commit, ordinal); positions of different
/// sources cannot be compared. Never derived from a clock.
///
/// ```
/// use headwater_schemas::SourcePosition;
///
/// let third = SourcePosition { epoch: 1, commit: 0x32B_B438, ordinal: 3 };
/// assert_eq!(third.to_string(), "1/00000000032BB438/00000003");
/// assert_eq!(SourcePosition::parse(&third.to_string()), Some(third));
/// assert_eq!(SourcePosition::from_bytes(&third.to_bytes()), Some(third));
/// assert!(third < SourcePosition::after_commit(1, third.commit));
/// ```
///
/// * `epoch` rises when the log is no longer a continuation of what was read before: slot re-created, database
///   restored, failed over with divergence.
/// * `commit` is the position of the transaction's commit (PostgreSQL: its commit LSN).
/// * `ordinal` rises with the events of that transaction, from 1 and with gaps; 0 is the state a snapshot saw at `commit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourcePosition {
    /// Incarnation of the source's log.
    pub epoch: u32,
    /// Commit position of the transaction within the log.
    pub commit: u64,
    /// Place of the event within its transaction.
    pub ordinal: u32,
}

impl SourcePosition {
    /// Bytes of [`Self::to_bytes`].
    pub const LEN: usize = 16;

    /// After every event of the transaction that committed at `commit`.
    pub const fn after_commit(epoch: u32, commit: u64) -> Self {
        Self { epoch, commit, ordinal: u32::MAX }
    }

    /// Big-endian, so that the bytes sort as the positions do.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..4].copy_from_slice(&self.epoch.to_be_bytes());
        out[4..12].copy_from_slice(&self.commit.to_be_bytes());
        out[12..].copy_from_slice(&self.ordinal.to_be_bytes());
        out
    }

    /// The inverse of [`Self::to_bytes`]; `None` unless there are exactly [`Self::LEN`] bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        Some(Self {
            epoch: u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
            commit: u64::from_be_bytes([
                bytes[4], bytes[5], bytes[6], bytes[7], bytes[8], bytes[9], bytes[10], bytes[11],
            ]),
            ordinal: u32::from_be_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]),
        })
    }

    /// The inverse of `Display`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let epoch = parts.next()?.parse().ok()?;
        let commit = u64::from_str_radix(parts.next()?, 16).ok()?;
        let ordinal = u32::from_str_radix(parts.next()?, 16).ok()?;
        parts.next().is_none().then_some(Self { epoch, commit, ordinal })
    }
}

/// `epoch/commit/ordinal`, the last two in fixed-width hexadecimal so that texts of one epoch sort as positions do.
impl fmt::Display for SourcePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:016X}/{:08X}", self.epoch, self.commit, self.ordinal)
    }
}
