//! Echoes on threads of their own: what the bench does besides must not delay an answer.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use lab::Host;

use super::Fault;
use super::clients::PORT;

/// Echoes UDP and TCP on an address of a host, as long as the bench runs.
pub(crate) fn serve(host: &Host, address: Ipv4Addr) -> Result<(), Fault> {
    let at = SocketAddr::from((address, PORT));
    let datagrams = host.run(|| UdpSocket::bind(at))??;
    let connections = host.run(|| TcpListener::bind(at))??;
    let thread = std::thread::Builder::new();
    thread.name("echo".to_owned()).spawn(move || {
        let mut buffer = [0; 2048];
        loop {
            // An error is an ICMP message about an earlier answer.
            if let Ok((length, from)) = datagrams.recv_from(&mut buffer) {
                let _ = datagrams.send_to(buffer.get(..length).unwrap_or_default(), from);
            }
        }
    })?;
    let thread = std::thread::Builder::new();
    thread.name("accept".to_owned()).spawn(move || {
        for stream in connections.incoming().flatten() {
            std::thread::spawn(move || echo(stream));
        }
    })?;
    Ok(())
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 2048];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(buffer.get(..length).unwrap_or_default())?;
    }
}
