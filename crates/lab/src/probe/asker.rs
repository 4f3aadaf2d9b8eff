//! The asker: asks a hundred times a second by broadcast ARP who has an address, and writes down
//! who answers: a client that knows nothing. It runs on a thread of its own, as the prober does.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use linux::netlink::Mac;
use linux::packet::{PacketSocket, Traffic};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::frame;
use crate::error::LabError;
use crate::host::Host;

/// Between two questions.
const PERIOD: Duration = Duration::from_millis(10);
/// The last octets of the senders of questions, in turns: an answer says which question it is for.
/// Nobody on a lab's segment has these addresses.
const SENDERS: std::ops::Range<u8> = 224..240;

/// A question, and the answers to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// When it was asked.
    pub at: Instant,
    /// Who answered, and when; who answers twice is there twice.
    pub answers: Vec<(Instant, Mac)>,
}

impl Ask {
    /// Who answered, each once.
    pub fn owners(&self) -> Vec<Mac> {
        let mut owners: Vec<Mac> = self.answers.iter().map(|(_, mac)| *mac).collect();
        owners.sort_unstable();
        owners.dedup();
        owners
    }
}

/// A running asker. Dropping it stops it.
#[derive(Debug)]
pub struct Asker {
    host: String,
    live: Arc<Live>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Debug, Default)]
struct Live {
    asks: Mutex<Vec<Ask>>,
    stop: AtomicBool,
}

impl Live {
    fn asks(&self) -> MutexGuard<'_, Vec<Ask>> {
        self.asks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asker {
    /// Whether the last `count` questions, but for those younger than two periods, were answered by
    /// `owner` and nobody else; `None` means: by one and the same.
    pub fn settled(&self, owner: Option<Mac>, count: usize) -> bool {
        let asks = self.live.asks();
        let old = asks.iter().rev();
        let old = old.skip_while(|ask| ask.at.elapsed() < 2 * PERIOD);
        let mut last = old.take(count).map(Ask::owners);
        let Some(first) = last.next() else {
            return false;
        };
        let is_one = first.len() == 1 && owner.is_none_or(|owner| first == [owner]);
        is_one && asks.len() > count && last.all(|owners| owners == first)
    }

    /// Who answered the last question that was answered.
    pub fn last(&self) -> Option<Mac> {
        let asks = self.live.asks();
        let mut answers = asks.iter().rev().flat_map(|ask| ask.answers.last());
        answers.next().map(|(_, mac)| *mac)
    }

    /// Ends it and gives what it wrote down; call it some periods after what is of interest, as
    /// answers on their way are not waited for.
    pub fn stop(mut self) -> Result<Vec<Ask>, LabError> {
        self.live.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        let ended = ended.unwrap_or(Ok(Ok(())));
        let ended = ended.unwrap_or_else(|_| Err(io::Error::other("the asker's thread panicked")));
        ended.map_err(|e| LabError::io(&self.host, "ask by ARP", e))?;
        Ok(std::mem::take(&mut *self.live.asks()))
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.live.stop.store(true, Ordering::Relaxed);
    }
}

impl Host {
    /// Starts to ask on `device` who has `target`.
    pub async fn ask(&self, device: &str, target: Ipv4Addr) -> Result<Asker, LabError> {
        let interface = self.interface(device).await?;
        let mac = interface
            .mac
            .ok_or_else(|| self.lacks(format!("Ethernet address on {device}")))?;
        let own = interface.addresses.iter().find_map(|(ip, _)| match ip {
            IpAddr::V4(ip) => Some(*ip),
            IpAddr::V6(_) => None,
        });
        let own = own.ok_or_else(|| self.lacks(format!("IPv4 address on {device}")))?;
        let live = Arc::new(Live::default());
        let (ns, of_thread) = (self.netns().clone(), Arc::clone(&live));
        let thread = std::thread::Builder::new().name("asker".to_owned());
        let thread = thread.spawn(move || {
            ns.enter_thread()?;
            let socket = PacketSocket::open(interface.index, Traffic::Arp);
            let socket = socket.map_err(io::Error::other)?;
            run(&socket, mac, own, target, &of_thread)
        });
        Ok(Asker {
            host: self.name().to_owned(),
            live,
            thread: Some(thread.map_err(|e| LabError::io(self.name(), "start an asker", e))?),
        })
    }
}

/// The sender of the question with this number.
fn sender(own: Ipv4Addr, number: usize) -> Ipv4Addr {
    let [a, b, c, _] = own.octets();
    let last = SENDERS.start + (number % SENDERS.len()) as u8;
    Ipv4Addr::new(a, b, c, last)
}

/// The newest question that an answer to this address can be for.
fn answered(asks: &mut [Ask], own: Ipv4Addr, to: Ipv4Addr) -> Option<&mut Ask> {
    let mut newest = asks.iter_mut().enumerate().rev().take(SENDERS.len());
    let found = newest.find(|(number, _)| sender(own, *number) == to);
    found.map(|(_, ask)| ask)
}

fn run(
    socket: &PacketSocket,
    mac: Mac,
    own: Ipv4Addr,
    target: Ipv4Addr,
    live: &Live,
) -> io::Result<()> {
    let mut next = Instant::now();
    let mut buffer = [0; 2048];
    while !live.stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now >= next {
            let mut asks = live.asks();
            let from = sender(own, asks.len());
            asks.push(Ask {
                at: now,
                answers: Vec::new(),
            });
            drop(asks);
            // A link that is down is a kind of silence.
            let _ = socket.send(&frame::arp_request(mac, from, target));
            let due = next + PERIOD;
            next = if due > now { due } else { now + PERIOD };
        }
        let limit = next.saturating_duration_since(Instant::now());
        let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
        poll(
            &mut [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)],
            Some(&limit),
        )?;
        loop {
            let length = match socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            };
            let at = Instant::now();
            let reply = buffer.get(..length).unwrap_or_default();
            let (Some(from), Some(to)) = (frame::arp_reply(reply, target), frame::arp_asker(reply))
            else {
                continue;
            };
            if let Some(ask) = answered(&mut live.asks(), own, to) {
                ask.answers.push((at, from));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_for_the_newest_question_of_its_sender() {
        let own = Ipv4Addr::new(10, 0, 0, 8);
        let ask = Ask {
            at: Instant::now(),
            answers: Vec::new(),
        };
        let mut asks = vec![ask; 40];
        let to = sender(own, 35);
        assert_eq!(to, Ipv4Addr::new(10, 0, 0, 227));
        let found = answered(&mut asks, own, to).expect("it was asked");
        found.answers.push((Instant::now(), [2; 6]));
        let known = |ask: &Ask| !ask.answers.is_empty();
        assert_eq!(asks.iter().position(known), Some(35));
        assert_eq!(answered(&mut asks, own, own), None, "a stranger's address");
    }

    #[test]
    fn settled_is_one_owner_for_long_enough() {
        let live = Arc::new(Live::default());
        let asker = Asker {
            host: "client".to_owned(),
            live: Arc::clone(&live),
            thread: None,
        };
        let old = Instant::now() - Duration::from_secs(1);
        let by = |macs: &[Mac]| Ask {
            at: old,
            answers: macs.iter().map(|mac| (old, *mac)).collect(),
        };
        let (one, two) = ([1; 6], [2; 6]);
        live.asks()
            .extend([by(&[one]), by(&[]), by(&[two]), by(&[two])]);
        assert!(asker.settled(None, 2) && asker.settled(Some(two), 2));
        assert!(!asker.settled(Some(one), 2) && !asker.settled(None, 3));
        live.asks().push(by(&[one, two]));
        assert!(!asker.settled(None, 1), "two answer");
        assert_eq!(asker.last(), Some(two));
    }
}
