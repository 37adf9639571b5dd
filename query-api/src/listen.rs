//! Addresses that are listened on.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use crate::Error;

/// Connections that the operating system keeps for us until they are accepted.
const BACKLOG: u32 = 1024;

/// An address that is ours, where nobody is let in yet: connections are refused until it is listened on. Who starts learns at
/// once that an address is taken, and readers do not wait for somebody who has nothing to serve yet.
#[derive(Debug)]
pub struct BoundPort {
    setting: &'static str,
    address: SocketAddr,
    socket: TcpSocket,
}

impl BoundPort {
    /// Takes an address, which `setting` names. Port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`] when it is taken or not ours.
    pub fn bind(setting: &'static str, address: SocketAddr) -> Result<Self, Error> {
        let socket = bound(address).map_err(|source| Error::Listen { setting, address, source })?;
        Ok(Self { setting, address, socket })
    }

    /// Lets clients in; at this address.
    pub(crate) fn listen(self) -> Result<(TcpListener, SocketAddr), Error> {
        let Self { setting, address, socket } = self;
        listening(socket).map_err(|source| Error::Listen { setting, address, source })
    }
}

fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections left over from a process that has just ended are in nobody's way.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

fn listening(socket: TcpSocket) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = socket.listen(BACKLOG)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
