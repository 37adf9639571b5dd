//! Ports for servers whose number must be known before they start.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports that systems give to outgoing connections and to whoever binds port 0 (from 32768 on Linux, from 49152
/// elsewhere): one of those could go to somebody else before the server binds it, and while it is stopped for a while.
const FIRST: u16 = 10_000;
const COUNT: u16 = 22_000;

/// A loopback port that nobody listens on. Never the same one twice in a process; other processes begin elsewhere.
///
/// # Panics
///
/// When there is none.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test binaries that run side by side have neighbouring process ids.
    let begin = std::process::id().wrapping_mul(997) % u32::from(COUNT);
    for _ in 0..COUNT {
        let turn = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + ((begin + u32::from(turn)) % u32::from(COUNT)) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("there is no free loopback port from {FIRST} to {}", FIRST + COUNT - 1)
}
