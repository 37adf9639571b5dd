//! A server under an address that its certificate does not have.

use std::io::copy;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

/// Hands every connection to an address of its own, 127.0.0.2, on to a port of 127.0.0.1, until the process ends.
pub fn forward_to(port: u16) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.2", 0)).expect("all of 127.0.0.0/8 is this machine");
    let address = listener.local_addr().expect("it listens");
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
            let (Ok(from_client), Ok(from_server)) = (client.try_clone(), server.try_clone()) else { continue };
            for (mut from, mut to) in [(from_client, server), (from_server, client)] {
                std::thread::spawn(move || {
                    copy(&mut from, &mut to).ok();
                    to.shutdown(Shutdown::Both).ok();
                });
            }
        }
    });
    address
}
