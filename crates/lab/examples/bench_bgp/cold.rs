//! All prefixes to peers that come up at once; and one change after another.

use std::time::{Duration, Instant};

use lab::{Lab, wait_for};

use super::Fault;
use super::sink::{Counts, PEERS, Sinks, Told};
use super::speakers::{Hosts, Speaker, Who};
use super::usage;

/// The longest until a speaker has read its prefixes and dialled all peers.
const DIALLED: Duration = Duration::from_secs(300);
/// A change that has not arrived by then is lost.
const CHANGE: Duration = Duration::from_secs(30);
/// Between two changes.
const PAUSE: Duration = Duration::from_millis(5);

/// One speaker's peers came up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cold {
    /// From Established until the last byte of the last peer.
    pub(crate) took: Duration,
    /// Processor time of the speaker meanwhile.
    pub(crate) cpu: Duration,
    /// Its memory afterwards, in MiB.
    pub(crate) rss: f64,
}

/// Hosts and ports for one part after another.
pub(crate) struct Theatre {
    lab: Lab,
    hosts: Hosts,
    parts: u16,
}

impl Theatre {
    pub(crate) async fn build(lab: &Lab) -> Result<Self, Fault> {
        let lan = lab.segment("wire").await?;
        let speaker = lab.router("speaker").await?;
        let peers = lab.host("peers").await?;
        lan.attach(&speaker, &["10.0.0.11/24"]).await?;
        let addresses: Vec<String> = (1..=10).map(|n| format!("10.0.0.{n}/24")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        lan.attach(&peers, &addresses).await?;
        // What it would cost is nobody's.
        lan.stop_capture();
        Ok(Self {
            lab: lab.clone(),
            hosts: Hosts { speaker, peers },
            parts: 0,
        })
    }

    /// Starts a speaker and has all its peers come up at once.
    async fn begin(&mut self, who: Who, count: u32) -> Result<(Speaker, Sinks, Cold), Fault> {
        self.parts += 1;
        let begun = Instant::now();
        let sinks = Sinks::listen(&self.hosts.peers, count as usize)?;
        let mut speaker = Speaker::start(who, &self.hosts, count, 8000 + self.parts).await?;
        let mut opened = 0;
        wait_for(DIALLED, "the sessions", async || {
            while let Ok(Some(told)) = sinks.try_next() {
                opened += u8::from(matches!(told, Told::Opened));
            }
            if opened == PEERS { Ok(()) } else { Err(opened) }
        })
        .await?;
        speaker.loaded().await?;
        let loaded = begun.elapsed();
        let pids = speaker.pids();
        let before = usage::cpu(&pids);
        let (first, last, Counts { messages, bytes }) = sinks.release()?;
        let cold = Cold {
            took: last.saturating_duration_since(first),
            cpu: usage::cpu(&pids).saturating_sub(before),
            rss: usage::resident(&pids),
        };
        self.lab.say(format!(
            "{who:?}: {count} to {PEERS} peers in {:.1} ms ({messages} messages, {bytes} bytes, \
             CPU {:.1} ms, {:.1} MiB); loaded in {:.1} s",
            millis(cold.took),
            millis(cold.cpu),
            cold.rss,
            loaded.as_secs_f64()
        ));
        Ok((speaker, sinks, cold))
    }

    /// [`Theatre::begin`], and the end.
    pub(crate) async fn cold(&mut self, who: Who, count: u32) -> Result<Cold, Fault> {
        let (speaker, sinks, cold) = self.begin(who, count).await?;
        drop(speaker);
        drop(sinks);
        Ok(cold)
    }

    /// A pod of one Service after another goes and comes back: how long until every peer has read
    /// the UPDATE, each time, sorted.
    pub(crate) async fn changes(
        &mut self,
        services: u32,
        changes: u32,
    ) -> Result<Vec<Duration>, Fault> {
        let (mut speaker, sinks, _) = self.begin(Who::Corten, services).await?;
        speaker.loaded().await?;
        while sinks.try_next()?.is_some() {}
        let Speaker::Corten(_, api) = &mut speaker else {
            return Err("another speaker than was started".into());
        };
        let mut pause = tokio::time::interval(PAUSE);
        pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut times = Vec::new();
        for number in 0..changes {
            pause.tick().await;
            // Withdrawn, then announced again.
            let sent = api.change(number / 2 % services, number % 2 == 1)?;
            let mut last = sent;
            for _ in 0..PEERS {
                if let Told::Update(at) = sinks.next(CHANGE)? {
                    last = last.max(at);
                }
            }
            times.push(last.saturating_duration_since(sent));
        }
        times.sort_unstable();
        Ok(times)
    }
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
