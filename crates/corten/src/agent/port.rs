//! One interface's share of layer 2: its sockets, its responders and the addresses they answer for.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use linux::packet::{AsyncPacketSocket, MulticastGroups, PacketError, PacketSocket, Traffic};
use proto::arp;
use proto::ethernet::Mac;
use proto::ndp::{self, Change, Groups};
use proto::responder::Outcome;
use proto::trial::{Trial, Verdict};
use tokio::sync::{mpsc, oneshot};

use super::member::Silence;
use crate::http::Metrics;

/// Commands that may wait.
const QUEUE: usize = 1024;
/// Longest frame that is of interest.
const MAX_FRAME: usize = 2048;
/// Between two questions whether the network carries a MAC address.
const TRIAL: Duration = Duration::from_millis(500);
/// So many MAC addresses are asked about at once.
const TRIALS: usize = 32;

/// What the manager asks of a port.
#[derive(Debug)]
pub(super) enum Command {
    /// Answer for this address, with a MAC address of its own or else with the interface's.
    Announce(IpAddr, Option<Mac>),
    /// Stop answering for it.
    Withdraw(IpAddr),
    /// Tell everybody that it is here, and ask whether somebody else has it.
    Gratuitous(IpAddr),
    /// Ask whether somebody has it; who says so is told of until it is announced or withdrawn.
    Probe(IpAddr),
    /// Who can be asked whether the network carries a MAC address: other nodes on the link.
    Neighbours(Vec<Ipv4Addr>),
    /// Ask another node where it is, from an address of this interface.
    Ask(Question),
    /// All commands before this one have been carried out.
    Barrier(oneshot::Sender<()>),
}

/// A host's question where another is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    /// Who asks.
    pub(super) own: IpAddr,
    /// Who is asked for.
    pub(super) peer: IpAddr,
    /// Where it was.
    pub(super) at: Option<Mac>,
}

/// What a port is made with.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) mac: Mac,
}

/// Another station says that it has an address which is announced here, or asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    /// The interface that it was heard at.
    pub(super) index: u32,
    pub(super) ip: IpAddr,
    /// The station.
    pub(super) mac: Mac,
}

/// Why an interface cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum PortError {
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error("cannot wait for a packet socket")]
    Wait(#[from] std::io::Error),
}

impl PortError {
    /// The interface is not there any more.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Packet(error) if error.is_missing())
    }
}

/// What all ports share.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) silence: Silence,
    /// Told of announced addresses that another station claims.
    pub(super) claims: mpsc::Sender<Claim>,
    /// Told of addresses whose own MAC address the network at this interface does not carry.
    pub(super) refusals: mpsc::Sender<(u32, IpAddr)>,
    pub(super) metrics: Metrics,
}

/// Opens the sockets and starts the port.
pub(super) fn start(
    identity: Identity,
    context: Context,
) -> Result<mpsc::Sender<Command>, PortError> {
    let arp = PacketSocket::open(identity.index, Traffic::Arp)?;
    let ndp = PacketSocket::open(identity.index, Traffic::Ndp)?;
    let (commands_in, commands) = mpsc::channel(QUEUE);
    let port = Port {
        arp_responder: arp::Responder::new(identity.mac),
        ndp_responder: ndp::Responder::new(identity.mac),
        groups: Groups::default(),
        memberships: MulticastGroups::new(identity.index),
        context,
        own: HashMap::new(),
        neighbours: Vec::new(),
        trials: BTreeMap::new(),
        asking: None,
        identity,
    };
    let arp = AsyncPacketSocket::new(arp)?;
    let ndp = AsyncPacketSocket::new(ndp)?;
    tokio::spawn(port.run(arp, ndp, commands));
    Ok(commands_in)
}

struct Port {
    identity: Identity,
    arp_responder: arp::Responder,
    ndp_responder: ndp::Responder,
    groups: Groups,
    memberships: MulticastGroups,
    context: Context,
    /// Addresses with a MAC address of their own.
    own: HashMap<IpAddr, Mac>,
    neighbours: Vec<Ipv4Addr>,
    /// MAC addresses of which it is not known yet whether the network carries them.
    trials: BTreeMap<Mac, (IpAddr, Trial)>,
    /// When the next question is due.
    asking: Option<Instant>,
}

impl Port {
    async fn run(
        mut self,
        arp: AsyncPacketSocket,
        ndp: AsyncPacketSocket,
        mut commands: mpsc::Receiver<Command>,
    ) {
        let mut arp_frame = [0; MAX_FRAME];
        let mut ndp_frame = [0; MAX_FRAME];
        loop {
            let asking = self.asking;
            let due = async move {
                match asking {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => self.ask(&arp),
                command = commands.recv() => match command {
                    None => return,
                    Some(command) => self.command(command, &arp, &ndp),
                },
                received = arp.recv(&mut arp_frame) => {
                    let Ok(length) = received else { return };
                    self.arp(&arp, arp_frame.get(..length).unwrap_or_default());
                }
                received = ndp.recv(&mut ndp_frame) => {
                    let Ok(length) = received else { return };
                    self.ndp(&ndp, ndp_frame.get(..length).unwrap_or_default());
                }
            }
        }
    }

    fn arp(&mut self, socket: &AsyncPacketSocket, frame: &[u8]) {
        self.judge(frame);
        let outcome = self.arp_responder.on_frame(frame);
        self.answer(socket, outcome, |reply| {
            arp::Packet::parse(reply)
                .ok()
                .map(|packet| packet.sender_ip.into())
        });
    }

    fn ndp(&mut self, socket: &AsyncPacketSocket, frame: &[u8]) {
        let outcome = self.ndp_responder.on_frame(frame);
        self.answer(socket, outcome, advertised);
    }

    fn command(&mut self, command: Command, arp: &AsyncPacketSocket, ndp: &AsyncPacketSocket) {
        match command {
            Command::Announce(ip, mac) => self.announce(ip, mac),
            Command::Withdraw(ip) => {
                self.try_out(ip, None);
                match ip {
                    IpAddr::V4(ip) => {
                        self.arp_responder.withdraw(ip);
                    }
                    IpAddr::V6(ip) => {
                        if self.ndp_responder.withdraw(ip) {
                            let change = self.groups.remove(ip);
                            self.regroup(change);
                        }
                    }
                }
            }
            Command::Gratuitous(ip) => {
                self.gratuitous(ip, arp, ndp);
                self.probe(ip, arp, ndp);
            }
            Command::Probe(ip) => {
                match ip {
                    IpAddr::V4(ip) => self.arp_responder.watch(ip),
                    IpAddr::V6(ip) => self.ndp_responder.watch(ip),
                }
                self.probe(ip, arp, ndp);
            }
            Command::Neighbours(neighbours) => self.neighbours = neighbours,
            Command::Ask(question) => self.ask_for(question, arp, ndp),
            Command::Barrier(done) => {
                let _ = done.send(());
            }
        }
    }

    fn announce(&mut self, ip: IpAddr, mac: Option<Mac>) {
        self.try_out(ip, mac);
        match ip {
            IpAddr::V4(ip) => {
                self.arp_responder.announce(ip, mac);
            }
            IpAddr::V6(ip) => {
                if self.ndp_responder.announce(ip, mac) {
                    let change = self.groups.add(ip);
                    self.regroup(change);
                }
            }
        }
    }

    /// Begins the trial of an address's own MAC address, in the place of what it had before.
    fn try_out(&mut self, ip: IpAddr, mac: Option<Mac>) {
        let old = match mac {
            Some(mac) => self.own.insert(ip, mac),
            None => self.own.remove(&ip),
        };
        if old != mac {
            if let Some(old) = old {
                self.trials.remove(&old);
            }
            if let Some(mac) = mac {
                let trial = Trial::new(mac, self.identity.mac);
                self.trials.insert(mac, (ip, trial));
                self.asking.get_or_insert_with(|| Instant::now() + TRIAL);
            }
        }
    }

    /// Asks neighbours, from the MAC addresses on trial and from the interface's own.
    fn ask(&mut self, arp: &AsyncPacketSocket) {
        let mut over = Vec::new();
        let asks = !self.context.silence.holds() && !self.neighbours.is_empty();
        for (mac, (ip, trial)) in self.trials.iter_mut().filter(|_| asks).take(TRIALS) {
            let Some(frames) = trial.ask(&self.neighbours) else {
                over.push(*mac);
                continue;
            };
            if let Err(error) = frames.iter().try_for_each(|frame| arp.send(frame)) {
                tracing::debug!(interface = self.identity.name, %ip, %error, "not tried");
            }
        }
        for mac in over {
            self.trials.remove(&mac);
        }
        self.asking = (!self.trials.is_empty()).then(|| Instant::now() + TRIAL);
    }

    /// Takes a frame as an answer to [`Self::ask`], if it is one.
    fn judge(&mut self, frame: &[u8]) {
        if self.trials.is_empty() {
            return;
        }
        let Ok(packet) = arp::Packet::parse(frame) else {
            return;
        };
        let mut over = Vec::new();
        for (mac, (ip, trial)) in &mut self.trials {
            match trial.on_frame(&packet) {
                Some(Verdict::Carried) => over.push(*mac),
                Some(Verdict::Refused) => {
                    over.push(*mac);
                    let refused = (self.identity.index, *ip);
                    if self.context.refusals.try_send(refused).is_err() {
                        tracing::warn!(%ip, "a refusal is not told");
                    }
                }
                None => {}
            }
        }
        for mac in over {
            self.trials.remove(&mac);
        }
    }

    fn regroup(&mut self, change: Option<Change>) {
        let result = match change {
            Some(Change::Join(group)) => self.memberships.join(group),
            Some(Change::Leave(group)) => self.memberships.leave(group),
            None => return,
        };
        if let Err(error) = result {
            tracing::warn!(
                interface = self.identity.name,
                error = &error as &dyn std::error::Error,
                "solicitations may not arrive"
            );
        }
    }

    fn gratuitous(&self, ip: IpAddr, arp: &AsyncPacketSocket, ndp: &AsyncPacketSocket) {
        if self.context.silence.holds() {
            return;
        }
        let station = self.identity.mac;
        let mac = self.own.get(&ip).copied().unwrap_or(station);
        let sent = match ip {
            IpAddr::V4(ip) => arp::gratuitous(mac, ip, station)
                .iter()
                .try_for_each(|frame| arp.send(frame)),
            IpAddr::V6(ip) => ndp.send(&ndp::unsolicited(mac, ip, station)),
        };
        match sent {
            Ok(()) => {
                self.context
                    .metrics
                    .gratuitous
                    .with_label_values(&[&ip.to_string()])
                    .inc();
            }
            Err(error) => {
                tracing::debug!(interface = self.identity.name, %ip, %error, "not announced");
            }
        }
    }

    fn probe(&self, ip: IpAddr, arp: &AsyncPacketSocket, ndp: &AsyncPacketSocket) {
        if self.context.silence.holds() {
            return;
        }
        let station = self.identity.mac;
        let sent = match ip {
            IpAddr::V4(ip) => arp.send(&arp::probe(station, ip)),
            IpAddr::V6(ip) => ndp.send(&ndp::probe(station, ip)),
        };
        if let Err(error) = sent {
            tracing::debug!(interface = self.identity.name, %ip, %error, "not asked for");
        }
    }

    /// As this host, silent or not: its kernel asks likewise, only seldom.
    fn ask_for(&self, question: Question, arp: &AsyncPacketSocket, ndp: &AsyncPacketSocket) {
        let station = self.identity.mac;
        let sent = match (question.own, question.peer) {
            (IpAddr::V4(own), IpAddr::V4(peer)) => {
                arp.send(&arp::request(station, own, peer, question.at))
            }
            (IpAddr::V6(own), IpAddr::V6(peer)) => {
                ndp.send(&ndp::solicitation(station, own, peer, question.at))
            }
            _ => return,
        };
        if let Err(error) = sent {
            tracing::debug!(interface = self.identity.name, ?question, %error, "not asked for");
        }
    }

    fn answer<Ip: Into<IpAddr>, Frame: AsRef<[u8]>>(
        &mut self,
        socket: &AsyncPacketSocket,
        outcome: Outcome<Ip, Frame>,
        address: impl FnOnce(&[u8]) -> Option<IpAddr>,
    ) {
        match outcome {
            Outcome::Reply(reply) => {
                let ip = address(reply.as_ref())
                    .map(|ip| ip.to_string())
                    .unwrap_or_default();
                self.context
                    .metrics
                    .requests
                    .with_label_values(&[&ip])
                    .inc();
                if self.context.silence.holds() {
                    return;
                }
                match socket.send(reply.as_ref()) {
                    Ok(()) => self
                        .context
                        .metrics
                        .responses
                        .with_label_values(&[&ip])
                        .inc(),
                    Err(error) => {
                        tracing::debug!(interface = self.identity.name, ip, %error, "not answered");
                    }
                }
            }
            Outcome::Ignored(reason) => {
                self.context
                    .metrics
                    .frames_dropped
                    .with_label_values(&[reason.as_str()])
                    .inc();
            }
            Outcome::Conflict { ip, mac } => {
                let index = self.identity.index;
                let ip = ip.into();
                tracing::debug!(interface = self.identity.name, %ip, %mac, "claimed by another station");
                // A claim that does not fit is told again: gratuitous frames are repeated.
                let _ = self.context.claims.try_send(Claim { index, ip, mac });
            }
        }
    }
}

/// The address that a neighbour advertisement speaks of.
fn advertised(frame: &[u8]) -> Option<IpAddr> {
    match ndp::Packet::parse(frame).ok()?.message {
        ndp::Message::Advertisement { target, .. } => Some(target.into()),
        ndp::Message::Solicitation { .. } => None,
    }
}
