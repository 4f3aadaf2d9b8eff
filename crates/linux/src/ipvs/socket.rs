//! The socket: finds IPVS among the generic netlink families, asks and changes.

use std::io;
use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket as Raw, SocketAddr};

use super::error::Error;
use super::message::{self, Destination, Request, Server, ServerKey, command};
use super::timeouts::{self, Timeouts};
use crate::nft::DecodeError;
use crate::nft::attr::{Attrs, Reader};
use crate::nft::socket::{NLMSG_DONE, NLMSG_ERROR, answer, messages};

/// The family that knows the others.
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
/// Attributes of its answers.
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const NAME: &str = "IPVS";
const VERSION: u8 = 1;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
/// Bytes of `struct nlmsghdr`, and of `struct genlmsghdr`.
const NLMSGHDR: usize = 16;
const GENLMSGHDR: usize = 4;
/// Requests in one datagram: their answers fit in the smallest receive buffer.
const TOGETHER: usize = 64;

/// A netlink socket for IPVS in the network namespace of the thread that opened it. Its calls wait
/// for the kernel, which answers at once.
#[derive(Debug)]
pub struct Socket {
    raw: Raw,
    family: u16,
    seq: u32,
}

fn failed(action: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Socket { action, source }
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace. The kernel loads IPVS if it can.
    pub fn open() -> Result<Self, Error> {
        let mut raw = Raw::new(NETLINK_GENERIC).map_err(failed("open"))?;
        raw.bind_auto().map_err(failed("bind"))?;
        raw.connect(&SocketAddr::new(0, 0))
            .map_err(failed("connect"))?;
        // Short answers. Kernels without these still work.
        let _ = (raw.set_cap_ack(true), raw.set_ext_ack(true));
        let mut socket = Self {
            raw,
            family: CONTROL,
            seq: 0,
        };
        let mut family = None;
        let asked = socket.ask(
            "look for IPVS",
            GET_FAMILY,
            0,
            |attrs| attrs.string(FAMILY_NAME, NAME),
            &mut |body| {
                if let Some(attr) = Reader::new(body).find(FAMILY_ID)? {
                    family = attr.value.try_into().ok().map(u16::from_ne_bytes);
                }
                Ok(())
            },
        );
        match asked {
            Err(error) if error.errno() == Some(libc::ENOENT) => return Err(Error::Missing),
            asked => asked?,
        }
        socket.family = family.ok_or(DecodeError::Missing { kind: FAMILY_ID })?;
        Ok(socket)
    }

    /// All virtual servers that have an address.
    pub fn servers(&mut self) -> Result<Vec<Server>, Error> {
        let mut found = Vec::new();
        let what = "list virtual servers";
        self.ask(
            what,
            command::GET_SERVICE,
            NLM_F_DUMP,
            |_| {},
            &mut |body| {
                found.extend(message::server(body)?);
                Ok(())
            },
        )?;
        Ok(found)
    }

    /// One virtual server, if it is there.
    pub fn server(&mut self, key: &ServerKey) -> Result<Option<Server>, Error> {
        let mut found = None;
        let what = "show a virtual server";
        let asked = self.ask(
            what,
            command::GET_SERVICE,
            0,
            |attrs| message::about(key, attrs),
            &mut |body| {
                found = message::server(body)?;
                Ok(())
            },
        );
        match asked {
            Err(error) if error.errno() == Some(libc::ESRCH) => Ok(None),
            asked => asked.map(|()| found),
        }
    }

    /// Its destinations; none where it is not there.
    pub fn destinations(&mut self, key: &ServerKey) -> Result<Vec<Destination>, Error> {
        let mut found = Vec::new();
        let of: IpAddr = key.address;
        self.ask(
            "list destinations",
            command::GET_DEST,
            NLM_F_DUMP,
            |attrs| message::about(key, attrs),
            &mut |body| {
                found.push(message::destination(of, body)?);
                Ok(())
            },
        )?;
        Ok(found)
    }

    /// Makes changes, in order; each takes effect by itself. The answer has one place for each:
    /// why it was refused, if it was.
    pub fn change(&mut self, requests: &[Request]) -> Result<Vec<Option<io::Error>>, Error> {
        let mut refused = Vec::with_capacity(requests.len());
        for together in requests.chunks(TOGETHER) {
            let first = self.seq.wrapping_add(1);
            let mut bytes = Vec::with_capacity(together.len() * 128);
            for request in together {
                let attrs = |attrs: &mut Attrs<'_>| request.encode(attrs);
                self.write(&mut bytes, request.command(), NLM_F_ACK, attrs);
            }
            self.send(&bytes)?;
            let mut answers: Vec<Option<Option<io::Error>>> = Vec::new();
            answers.resize_with(together.len(), || None);
            while answers.iter().any(Option::is_none) {
                let (datagram, _) = self.raw.recv_from_full().map_err(failed("receive"))?;
                for message in messages(&datagram) {
                    let message = message?;
                    let place = message.seq.wrapping_sub(first) as usize;
                    // Anything else is the rest of an earlier exchange that broke off.
                    if let Some(place) = answers.get_mut(place)
                        && message.kind == NLMSG_ERROR
                    {
                        let error = answer(&message)?;
                        *place = Some(error.map(|it| io::Error::from_raw_os_error(it.errno)));
                    }
                }
            }
            refused.extend(answers.into_iter().map(Option::flatten));
        }
        Ok(refused)
    }

    /// For how long connections are known.
    pub fn timeouts(&mut self) -> Result<Timeouts, Error> {
        let mut found = Timeouts::default();
        self.ask(
            "show timeouts",
            timeouts::GET_CONFIG,
            0,
            |_| {},
            &mut |body| {
                found = Timeouts::decode(body)?;
                Ok(())
            },
        )?;
        Ok(found)
    }

    /// Changes them; those that are 0 stay as they are.
    pub fn set_timeouts(&mut self, wanted: Timeouts) -> Result<(), Error> {
        self.ask(
            "set timeouts",
            timeouts::SET_CONFIG,
            0,
            |attrs| wanted.encode(attrs),
            &mut |_| Ok(()),
        )
    }

    fn ask(
        &mut self,
        what: &'static str,
        command: u8,
        flags: u16,
        attrs: impl FnOnce(&mut Attrs<'_>),
        each: &mut dyn FnMut(&[u8]) -> Result<(), DecodeError>,
    ) -> Result<(), Error> {
        let mut bytes = Vec::with_capacity(128);
        self.write(&mut bytes, command, NLM_F_ACK | flags, attrs);
        let seq = self.seq;
        self.send(&bytes)?;
        let refused = |errno| Error::Refused {
            what,
            source: io::Error::from_raw_os_error(errno),
        };
        loop {
            let (datagram, _) = self.raw.recv_from_full().map_err(failed("receive"))?;
            for message in messages(&datagram) {
                let message = message?;
                match message.kind {
                    _ if message.seq != seq => {}
                    NLMSG_DONE => {
                        let code = message.body.first_chunk();
                        return match code.map_or(0, |code| i32::from_ne_bytes(*code)) {
                            code @ ..0 => Err(refused(-code)),
                            _ => Ok(()),
                        };
                    }
                    NLMSG_ERROR => {
                        return match answer(&message)? {
                            Some(error) => Err(refused(error.errno)),
                            None => Ok(()),
                        };
                    }
                    _ => each(message.body.get(GENLMSGHDR..).unwrap_or(&[]))?,
                }
            }
        }
    }

    /// Appends a message with the next number.
    fn write(
        &mut self,
        bytes: &mut Vec<u8>,
        command: u8,
        flags: u16,
        attrs: impl FnOnce(&mut Attrs<'_>),
    ) {
        self.seq = self.seq.wrapping_add(1);
        let start = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.family.to_ne_bytes());
        bytes.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend_from_slice(&self.seq.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        debug_assert_eq!(bytes.len() - start, NLMSGHDR);
        bytes.extend_from_slice(&[command, VERSION, 0, 0]);
        attrs(&mut Attrs::new(bytes));
        let length = (bytes.len() - start) as u32;
        if let Some(field) = bytes.get_mut(start..start + 4) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        match self.raw.send(bytes, 0) {
            Ok(_) => Ok(()),
            Err(source) => Err(failed("send")(source)),
        }
    }
}
