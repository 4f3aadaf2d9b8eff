//! The netlink socket: sends batches, reads answers and dumps.
//!
//! nfnetlink works through a batch inside `sendmsg`, so when that returns, every answer is in the
//! receive buffer already: nothing here waits.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::attr::{Attrs, Reader};
use super::batch::{Batch, Family, NLM_F_ACK, NLM_F_REQUEST, SUBSYSTEM, close, header, message};
use super::dump::{self, ChainInfo, ElementInfo, RuleInfo, TableInfo};
use super::error::{DecodeError, Error, Refused};

/// Bytes that one batch may have; the kernel copies it as one buffer.
const SEND_BUFFER: libc::c_int = 64 << 20;
/// Room for the errors of a batch that is wrong throughout.
const RECEIVE_BUFFER: libc::c_int = 16 << 20;
/// A dump's messages come in pieces up to this long.
const PIECE: usize = 64 * 1024;
pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_ACK_TLVS: u16 = 0x200;
/// Length of `struct nlmsghdr`, and of that with `struct nfgenmsg`.
const NLMSGHDR: usize = 16;
const NFGENMSG: usize = 4;

/// A netlink socket for nf_tables in the network namespace of the thread that opened it.
///
/// A table with an owner flag belongs to the socket that claimed it.
#[derive(Debug)]
pub struct Socket {
    family: Family,
    fd: OwnedFd,
    buffer: Vec<u8>,
    dump_seq: u32,
}

/// One message in the receive buffer.
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    flags: u16,
    pub(crate) seq: u32,
    pub(crate) body: &'a [u8],
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace; it lists what is of family
    /// `inet`.
    pub fn open() -> Result<Self, Error> {
        Self::open_for(Family::Inet)
    }

    /// Opens a socket that lists what is of this family.
    pub fn open_for(family: Family) -> Result<Self, Error> {
        // SAFETY: no pointers are passed; the result is checked before use.
        let fd = unsafe {
            libc::socket(
                libc::AF_NETLINK,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                libc::NETLINK_NETFILTER,
            )
        };
        if fd < 0 {
            return Err(Error::socket("open"));
        }
        // SAFETY: `fd` was just opened and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: sockaddr_nl is plain data for which zeroes are valid.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        // SAFETY: `address` is a sockaddr_nl of the length given, alive during the call.
        let bound = unsafe {
            libc::bind(
                fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        if bound < 0 {
            return Err(Error::socket("bind"));
        }
        let socket = Self {
            family,
            fd,
            buffer: vec![0; PIECE],
            dump_seq: 0,
        };
        // Short errors with the kernel's own words. Kernels without these still work.
        let _ = socket.option(libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1);
        let _ = socket.option(libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1);
        for (option, size) in [
            (libc::SO_SNDBUFFORCE, SEND_BUFFER),
            (libc::SO_RCVBUFFORCE, RECEIVE_BUFFER),
        ] {
            // EPERM here is the first sign of a missing NET_ADMIN.
            let enlarged = socket.option(libc::SOL_SOCKET, option, size);
            enlarged.map_err(|source| Error::Socket {
                action: "enlarge its buffers",
                source,
            })?;
        }
        Ok(socket)
    }

    fn option(&self, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
        // SAFETY: `value` is a c_int of the length given, alive during the call.
        let done = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                level,
                name,
                (&raw const value).cast(),
                size_of_val(&value) as libc::socklen_t,
            )
        };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// The socket's netlink port: the owner that tables made by it have.
    pub fn port(&self) -> Result<u32, Error> {
        // SAFETY: sockaddr_nl is plain data for which zeroes are valid.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        let mut length = size_of_val(&address) as libc::socklen_t;
        // SAFETY: both pointers are to live values of the right types and length.
        let done = unsafe {
            libc::getsockname(
                self.fd.as_raw_fd(),
                (&raw mut address).cast(),
                &raw mut length,
            )
        };
        if done < 0 {
            return Err(Error::socket("read its address"));
        }
        Ok(address.nl_pid)
    }

    /// Applies a batch: all of it, or nothing and the error says which messages were refused.
    pub fn commit(&mut self, batch: Batch) -> Result<(), Error> {
        self.transact(batch, true)
    }

    /// Has the kernel check a batch without applying it.
    pub fn check(&mut self, batch: Batch) -> Result<(), Error> {
        self.transact(batch, false)
    }

    fn transact(&mut self, batch: Batch, commit: bool) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let last = batch.next_number() - 1;
        let bytes = batch.finish(commit);
        self.send(&bytes)?;
        let mut confirmed = false;
        let mut refused = Vec::new();
        loop {
            let length = match self.receive() {
                Ok(0) => break,
                Ok(length) => length,
                Err(Error::Socket { source, .. })
                    if source.raw_os_error() == Some(libc::ENOBUFS) =>
                {
                    // Errors were dropped. Read on, so that the next batch finds none of them.
                    while matches!(self.receive(), Ok(1..)) {}
                    return Err(Error::Overrun);
                }
                Err(error) => return Err(error),
            };
            for message in messages(self.buffer.get(..length).unwrap_or(&[])) {
                let message = message?;
                if message.kind != NLMSG_ERROR {
                    continue;
                }
                match answer(&message)? {
                    None => confirmed |= message.seq == last,
                    Some(error) => refused.push(error),
                }
            }
        }
        if !refused.is_empty() {
            return Err(Error::Refused(refused));
        }
        if !confirmed {
            return Err(Error::NoAnswer { bytes: bytes.len() });
        }
        Ok(())
    }

    /// The number of the rule set's state, all tables' together: each transaction that changes
    /// something makes it the next.
    pub fn generation(&mut self) -> Result<u32, Error> {
        self.dump_seq = self.dump_seq.wrapping_add(1);
        let seq = self.dump_seq;
        let mut request = Vec::with_capacity(32);
        let kind = SUBSYSTEM << 8 | message::GET_GENERATION;
        header(&mut request, kind, NLM_F_REQUEST, seq, 0, 0);
        close(&mut request, 0);
        self.send(&request)?;
        let failed = |errno| Error::Dump {
            what: "the state's number",
            source: io::Error::from_raw_os_error(errno),
        };
        loop {
            let length = self.receive()?;
            if length == 0 {
                return Err(Error::NoAnswer {
                    bytes: request.len(),
                });
            }
            for message in messages(self.buffer.get(..length).unwrap_or(&[])) {
                let message = message?;
                if message.seq != seq {
                    continue;
                }
                if message.kind == NLMSG_ERROR {
                    let errno = answer(&message)?.map_or(libc::ENODATA, |error| error.errno);
                    return Err(failed(errno));
                }
                let body = message.body.get(NFGENMSG..).unwrap_or(&[]);
                let number = Reader::new(body).find(1)?;
                return number.map_or_else(|| Err(failed(libc::ENODATA)), |it| Ok(it.u32()?));
            }
        }
    }

    /// All tables of the socket's family.
    pub fn tables(&mut self) -> Result<Vec<TableInfo>, Error> {
        let mut found = Vec::new();
        self.dump("tables", message::GET_TABLE, |_| {}, &mut |body| {
            found.push(TableInfo::decode(body)?);
            Ok(())
        })?;
        Ok(found)
    }

    /// The chains of `table`.
    pub fn chains(&mut self, table: &str) -> Result<Vec<ChainInfo>, Error> {
        let mut found = Vec::new();
        self.dump("chains", message::GET_CHAIN, |_| {}, &mut |body| {
            let chain = ChainInfo::decode(body)?;
            if chain.table == table {
                found.push(chain);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// The rules of `table`, each chain's in order.
    pub fn rules(&mut self, table: &str) -> Result<Vec<RuleInfo>, Error> {
        let mut found = Vec::new();
        let filter = |attrs: &mut Attrs<'_>| attrs.string(1, table);
        self.dump("rules", message::GET_RULE, filter, &mut |body| {
            found.push(RuleInfo::decode(body)?);
            Ok(())
        })?;
        Ok(found)
    }

    /// The packets that the counters in a chain have seen; 0 where there is no such chain.
    pub fn counted(&mut self, table: &str, chain: &str) -> Result<u64, Error> {
        let mut packets = 0;
        let filter = |attrs: &mut Attrs<'_>| {
            attrs.string(1, table);
            attrs.string(2, chain);
        };
        self.dump("counters", message::GET_RULE, filter, &mut |body| {
            packets += dump::counted(body)?;
            Ok(())
        })?;
        Ok(packets)
    }

    /// The names of the sets of `table`.
    pub fn sets(&mut self, table: &str) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        let filter = |attrs: &mut Attrs<'_>| attrs.string(1, table);
        self.dump("sets", message::GET_SET, filter, &mut |body| {
            let (of, name) = dump::set_name(body)?;
            if of == table {
                found.push(name);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Calls `each` for every element of a set; nothing is kept.
    pub fn elements(
        &mut self,
        table: &str,
        set: &str,
        each: &mut dyn FnMut(ElementInfo<'_>),
    ) -> Result<(), Error> {
        let filter = |attrs: &mut Attrs<'_>| {
            attrs.string(1, table);
            attrs.string(2, set);
        };
        self.dump("elements", message::GET_ELEMENTS, filter, &mut |body| {
            dump::elements(body, each)
        })
    }

    fn dump(
        &mut self,
        what: &'static str,
        kind: u16,
        filter: impl FnOnce(&mut Attrs<'_>),
        each: &mut dyn FnMut(&[u8]) -> Result<(), DecodeError>,
    ) -> Result<(), Error> {
        self.dump_of(what, SUBSYSTEM << 8 | kind, self.family as u8, filter, each)
    }

    /// Sends messages outside a batch, each for itself; says the error number of each, 0 for those
    /// that were carried out.
    pub(crate) fn request(
        &mut self,
        requests: impl IntoIterator<Item = (u16, u8, impl FnOnce(&mut Attrs<'_>))>,
    ) -> Result<Vec<i32>, Error> {
        let mut bytes = Vec::with_capacity(4096);
        let mut count: u32 = 0;
        for (kind, family, body) in requests {
            let start = bytes.len();
            count += 1;
            header(
                &mut bytes,
                kind,
                NLM_F_REQUEST | NLM_F_ACK,
                count,
                family,
                0,
            );
            body(&mut Attrs::new(&mut bytes));
            close(&mut bytes, start);
        }
        let mut answers = Vec::with_capacity(count as usize);
        if count == 0 {
            return Ok(answers);
        }
        self.send(&bytes)?;
        loop {
            let length = self.receive()?;
            if length == 0 {
                break;
            }
            for message in messages(self.buffer.get(..length).unwrap_or(&[])) {
                let message = message?;
                if message.kind == NLMSG_ERROR {
                    answers.push(answer(&message)?.map_or(0, |refused| refused.errno));
                }
            }
        }
        match answers.len() == count as usize {
            true => Ok(answers),
            false => Err(Error::NoAnswer { bytes: bytes.len() }),
        }
    }

    /// A dump of any subsystem of netfilter's.
    pub(crate) fn dump_of(
        &mut self,
        what: &'static str,
        kind: u16,
        family: u8,
        filter: impl FnOnce(&mut Attrs<'_>),
        each: &mut dyn FnMut(&[u8]) -> Result<(), DecodeError>,
    ) -> Result<(), Error> {
        self.dump_seq = self.dump_seq.wrapping_add(1);
        let seq = self.dump_seq;
        let mut request = Vec::with_capacity(128);
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        header(&mut request, kind, flags, seq, family, 0);
        filter(&mut Attrs::new(&mut request));
        close(&mut request, 0);
        self.send(&request)?;
        let failed = |errno| Error::Dump {
            what,
            source: io::Error::from_raw_os_error(errno),
        };
        let mut interrupted = false;
        loop {
            let length = self.receive()?;
            if length == 0 {
                return Err(Error::NoAnswer {
                    bytes: request.len(),
                });
            }
            for message in messages(self.buffer.get(..length).unwrap_or(&[])) {
                let message = message?;
                if message.seq != seq {
                    continue;
                }
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    NLMSG_DONE => {
                        let code = message
                            .body
                            .first_chunk()
                            .map_or(0, |c| i32::from_ne_bytes(*c));
                        return match code {
                            ..0 => Err(failed(-code)),
                            _ if interrupted => Err(failed(libc::EINTR)),
                            _ => Ok(()),
                        };
                    }
                    NLMSG_ERROR => {
                        if let Some(error) = answer(&message)? {
                            return Err(failed(error.errno));
                        }
                    }
                    _ => each(message.body.get(NFGENMSG..).unwrap_or(&[]))?,
                }
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        loop {
            // SAFETY: the pointer and length are those of a live slice.
            let sent = unsafe {
                libc::send(
                    self.fd.as_raw_fd(),
                    bytes.as_ptr().cast(),
                    bytes.len(),
                    libc::MSG_NOSIGNAL,
                )
            };
            if sent >= 0 {
                return Ok(());
            }
            if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                return Err(Error::socket("send"));
            }
        }
    }

    /// Reads one datagram into the buffer; 0 when none is there.
    fn receive(&mut self) -> Result<usize, Error> {
        loop {
            // SAFETY: the pointer and length are those of a live, writable buffer.
            let length = unsafe {
                libc::recv(
                    self.fd.as_raw_fd(),
                    self.buffer.as_mut_ptr().cast(),
                    self.buffer.len(),
                    libc::MSG_DONTWAIT,
                )
            };
            if length >= 0 {
                return Ok(length as usize);
            }
            match io::Error::last_os_error().kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => return Ok(0),
                _ => return Err(Error::socket("receive")),
            }
        }
    }
}

/// The messages in one datagram.
pub(crate) fn messages(bytes: &[u8]) -> impl Iterator<Item = Result<Message<'_>, DecodeError>> {
    let mut offset = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(offset..).filter(|rest| !rest.is_empty())?;
        let message = split(rest, offset);
        match &message {
            Ok((_, length)) => offset += length.next_multiple_of(4),
            Err(_) => offset = bytes.len(),
        }
        Some(message.map(|(message, _)| message))
    })
}

fn split(rest: &[u8], offset: usize) -> Result<(Message<'_>, usize), DecodeError> {
    let truncated = || DecodeError::Truncated {
        offset,
        left: rest.len(),
    };
    let head: &[u8; NLMSGHDR] = rest.first_chunk().ok_or_else(truncated)?;
    let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *head;
    let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
    let body = rest.get(NLMSGHDR..length).ok_or_else(truncated)?;
    let message = Message {
        kind: u16::from_ne_bytes([k0, k1]),
        flags: u16::from_ne_bytes([f0, f1]),
        seq: u32::from_ne_bytes([s0, s1, s2, s3]),
        body,
    };
    Ok((message, length))
}

/// Reads an error message: `None` is a confirmation.
pub(crate) fn answer(message: &Message<'_>) -> Result<Option<Refused>, DecodeError> {
    let code: &[u8; 4] = message.body.first_chunk().ok_or(DecodeError::Truncated {
        offset: NLMSGHDR,
        left: message.body.len(),
    })?;
    let errno = -i32::from_ne_bytes(*code);
    if errno == 0 {
        return Ok(None);
    }
    let mut refused = Refused {
        seq: message.seq,
        errno,
        text: None,
        offset: None,
    };
    // With NETLINK_CAP_ACK only the refused message's header is repeated before the attributes.
    if message.flags & NLM_F_ACK_TLVS != 0 {
        for attr in Reader::new(message.body.get(4 + NLMSGHDR..).unwrap_or(&[])) {
            let attr = attr?;
            match attr.kind {
                1 => refused.text = Some(attr.string()?.to_owned()),
                2 => refused.offset = attr.value.try_into().ok().map(u32::from_ne_bytes),
                _ => {}
            }
        }
    }
    Ok(Some(refused))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_carries_number_and_words() {
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&NLMSG_ERROR.to_ne_bytes());
        bytes.extend_from_slice(&NLM_F_ACK_TLVS.to_ne_bytes());
        bytes.extend_from_slice(&7u32.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(-libc::EEXIST).to_ne_bytes());
        bytes.extend_from_slice(&[0; NLMSGHDR]);
        Attrs::new(&mut bytes).string(1, "element exists");
        close(&mut bytes, 0);
        let found: Vec<_> = messages(&bytes).collect::<Result<_, _>>().unwrap();
        let refused = answer(&found[0]).unwrap().unwrap();
        assert_eq!((refused.seq, refused.errno), (7, libc::EEXIST));
        assert_eq!(refused.text.as_deref(), Some("element exists"));
    }

    #[test]
    fn cut_requestsare_refused() {
        for bytes in [
            &[20u8, 0, 0, 0, 2][..],
            &[200, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert!(messages(bytes).next().unwrap().is_err());
        }
    }
}
