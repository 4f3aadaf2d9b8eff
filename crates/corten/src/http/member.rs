//! What failure detection counts (docs/failure-detection.md).

use std::iter::zip;

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};
use proto::member::{Counters, KINDS, State};

/// All of them, whatever happened: nothing appears later.
#[derive(Clone, Debug)]
pub struct Counts {
    sent: IntCounterVec,
    received: IntCounterVec,
    dropped: IntCounterVec,
    /// Datagrams that the kernel did not take.
    pub unsent: IntCounter,
    probed: IntCounter,
    votes: IntCounter,
    obituaries: IntCounter,
    healed: IntCounter,
    silences: IntCounterVec,
    peers: IntGaugeVec,
}

impl Counts {
    /// In this registry.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(format!("corten_member_{name}"), help);
        let counter = |name: &str, help: &str| {
            let metric = IntCounter::with_opts(opts(name, help))?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let by = |name: &str, help: &str, label: &str| {
            let metric = IntCounterVec::new(opts(name, help), &[label])?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let peers = opts("peers", "Other nodes, by what is known of them");
        let peers = IntGaugeVec::new(peers, &["state"])?;
        registry.register(Box::new(peers.clone()))?;
        let dropped = by(
            "datagrams_dropped_total",
            "Datagrams of failure detection that were not taken or not sent, by reason",
            "reason",
        )?;
        let counts = Self {
            sent: by(
                "datagrams_sent_total",
                "Datagrams of failure detection sent, by kind",
                "kind",
            )?,
            received: by(
                "datagrams_received_total",
                "Datagrams of failure detection taken, by kind",
                "kind",
            )?,
            unsent: dropped.with_label_values(&["unsent"]),
            dropped,
            probed: counter(
                "probed_total",
                "Times that a node missed three beats and was probed",
            )?,
            votes: counter("votes_total", "Times that it did not answer the probes")?,
            obituaries: counter(
                "obituaries_total",
                "Deaths that this node found with the other guardians",
            )?,
            healed: counter(
                "false_deaths_healed_total",
                "Nodes that were held for dead here, lived, and are back",
            )?,
            silences: by(
                "silences_total",
                "Times that this node answered for no address, by cause",
                "cause",
            )?,
            peers,
        };
        counts.add(&Counters::default(), &Counters::default());
        counts.set_peers([]);
        Ok(counts)
    }

    /// What happened between two looks.
    pub fn add(&self, old: &Counters, new: &Counters) {
        for (metric, old, new) in [
            (&self.sent, old.sent, new.sent),
            (&self.received, old.received, new.received),
        ] {
            for (kind, (old, new)) in zip(KINDS, zip(old, new)) {
                metric.with_label_values(&[kind]).inc_by(new - old);
            }
        }
        for (reason, old, new) in [
            ("unauthenticated", old.bad_tag, new.bad_tag),
            ("replayed", old.replayed, new.replayed),
            ("stranger", old.stranger, new.stranger),
            ("malformed", old.malformed, new.malformed),
            ("overflow", old.overflowed, new.overflowed),
        ] {
            let dropped = self.dropped.with_label_values(&[reason]);
            dropped.inc_by(new - old);
        }
        for (cause, old, new) in [
            ("paused", old.paused, new.paused),
            ("deaf", old.deaf, new.deaf),
            ("buried", old.buried, new.buried),
        ] {
            self.silences.with_label_values(&[cause]).inc_by(new - old);
        }
        self.probed.inc_by(new.probed - old.probed);
        self.votes.inc_by(new.voted - old.voted);
        self.obituaries.inc_by(new.obituaries - old.obituaries);
        self.healed.inc_by(new.revived - old.revived);
    }

    /// How the other nodes are.
    pub fn set_peers(&self, states: impl IntoIterator<Item = State>) {
        let mut counts = [
            (State::Unknown, "unknown", 0),
            (State::Alive, "alive", 0),
            (State::Dead, "dead", 0),
            (State::Left, "left", 0),
        ];
        for found in states {
            for (state, _, count) in &mut counts {
                *count += i64::from(*state == found);
            }
        }
        for (_, name, count) in counts {
            self.peers.with_label_values(&[name]).set(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Metrics;

    /// As docs/failure-detection.md lists them.
    #[test]
    fn all_of_them_are_told_from_the_start() {
        let metrics = Metrics::new().expect("metrics");
        let counters = Counters {
            sent: [1, 2, 3, 4, 5, 6, 7, 8],
            received: [8, 7, 6, 5, 4, 3, 2, 1],
            bad_tag: 9,
            replayed: 10,
            stranger: 11,
            malformed: 12,
            overflowed: 13,
            paused: 14,
            deaf: 15,
            buried: 16,
            probed: 17,
            voted: 18,
            obituaries: 19,
            revived: 20,
            ..Counters::default()
        };
        metrics.member.add(&Counters::default(), &counters);
        metrics.member.add(&counters, &counters);
        metrics.member.unsent.inc();
        let (alive, dead) = (State::Alive, State::Dead);
        metrics.member.set_peers([alive, dead, alive]);
        let text = String::from_utf8(metrics.encode().expect("encoded")).expect("UTF-8");
        let lines = text.lines();
        let told: Vec<&str> = lines
            .filter_map(|line| line.strip_prefix("corten_member_"))
            .collect();
        assert_eq!(
            told,
            [
                "datagrams_dropped_total{reason=\"malformed\"} 12",
                "datagrams_dropped_total{reason=\"overflow\"} 13",
                "datagrams_dropped_total{reason=\"replayed\"} 10",
                "datagrams_dropped_total{reason=\"stranger\"} 11",
                "datagrams_dropped_total{reason=\"unauthenticated\"} 9",
                "datagrams_dropped_total{reason=\"unsent\"} 1",
                "datagrams_received_total{kind=\"ack\"} 7",
                "datagrams_received_total{kind=\"beat\"} 8",
                "datagrams_received_total{kind=\"follow\"} 1",
                "datagrams_received_total{kind=\"hello\"} 3",
                "datagrams_received_total{kind=\"leave\"} 2",
                "datagrams_received_total{kind=\"obituary\"} 4",
                "datagrams_received_total{kind=\"probe\"} 6",
                "datagrams_received_total{kind=\"vote\"} 5",
                "datagrams_sent_total{kind=\"ack\"} 2",
                "datagrams_sent_total{kind=\"beat\"} 1",
                "datagrams_sent_total{kind=\"follow\"} 8",
                "datagrams_sent_total{kind=\"hello\"} 6",
                "datagrams_sent_total{kind=\"leave\"} 7",
                "datagrams_sent_total{kind=\"obituary\"} 5",
                "datagrams_sent_total{kind=\"probe\"} 3",
                "datagrams_sent_total{kind=\"vote\"} 4",
                "false_deaths_healed_total 20",
                "obituaries_total 19",
                "peers{state=\"alive\"} 2",
                "peers{state=\"dead\"} 1",
                "peers{state=\"left\"} 0",
                "peers{state=\"unknown\"} 0",
                "probed_total 17",
                "silences_total{cause=\"buried\"} 16",
                "silences_total{cause=\"deaf\"} 15",
                "silences_total{cause=\"paused\"} 14",
                "votes_total 18",
            ],
            "\n{text}"
        );
    }
}
