//! What happens to the owner of an address, and what the clients see of it.

use std::time::{Duration, Instant};

use super::Fault;
use super::clients::Seen;
use super::field::{Field, Harm, until};
use super::figures::{Figures, Times};

/// A process is stopped for so long.
const PAUSE: Duration = Duration::from_secs(10);

/// What came of the owner's returns.
#[derive(Default)]
pub(crate) struct Returns {
    /// Questions of the warm client without an answer.
    lost: u64,
    /// Connections that broke.
    broken: u64,
    /// Questions of the cold client that two nodes answered, and the latest after the return.
    doubles: u64,
    double: Times,
    /// Times that it had no answer, and the longest silences to the warm one.
    dark: Times,
    silent: Times,
}

impl Returns {
    pub(crate) fn add(&mut self, seen: &Seen) -> String {
        let (doubles, after) = seen.doubles();
        self.lost += seen.warm.lost();
        self.broken += seen.broken;
        self.doubles += doubles;
        self.double.add(after);
        self.dark.add(seen.unanswered());
        self.silent.add(seen.silent());
        format!(
            "return: {} lost, {} broken, {doubles} double answers",
            seen.warm.lost(),
            seen.broken
        )
    }

    /// `talks`: there were connections.
    pub(crate) fn put(&self, name: &str, talks: bool, figures: &mut Figures) {
        figures.put(format!("{name}_lost"), self.lost);
        if talks {
            figures.put(format!("{name}_tcp_broken"), self.broken);
        }
        figures.put(format!("{name}_double_answers"), self.doubles);
        figures.put(format!("{name}_double_until_ms"), self.double.longest());
        figures.put(format!("{name}_cold_longest_ms"), self.dark.longest());
        figures.put(format!("{name}_silent_longest_ms"), self.silent.longest());
    }
}

/// The owner is harmed, and is well again.
pub(crate) async fn harmed(
    field: &mut Field,
    figures: &mut Figures,
    (name, back): (&str, &str),
    (harm, hold): (Harm, Duration),
    runs: usize,
) -> Result<(), Fault> {
    let (mut gaps, mut dark, mut returns) =
        (Times::default(), Times::default(), Returns::default());
    let mut stalled = Times::default();
    let host = field.first();
    for run in 0..runs {
        let clients = field.clients(field.mac, false).await?;
        let since = clients.mark();
        field.harm(&host, harm).await?;
        let next = clients.taken_from(field.mac).await?;
        let seen = clients.end(since).await?;
        gaps.add(seen.silent());
        dark.add(seen.dark(field.mac)?);
        stalled.add(seen.warm.stalled);
        let clients = field.clients(next, true).await?;
        until(since, hold).await;
        let healed = clients.mark();
        field.mend(&host, harm).await?;
        clients.back_at(field.mac).await?;
        let back = clients.end(healed).await?;
        let told = returns.add(&back);
        let silent = seen.silent().as_secs_f64() * 1e3;
        eprintln!("{name} {run}: silent for {silent:.1} ms; {told}");
    }
    figures.put_times(name, &gaps);
    figures.put(format!("{name}_cold_p99_ms"), dark.at(99));
    figures.put(format!("{name}_stalled_p99_ms"), stalled.at(99));
    returns.put(back, true, figures);
    Ok(())
}

/// The owner's agent is killed, or asked to end, and started again.
pub(crate) async fn ended(
    field: &mut Field,
    figures: &mut Figures,
    killed: bool,
    runs: usize,
) -> Result<(), Fault> {
    let (mut dark, mut returns) = (Times::default(), Returns::default());
    let (mut lost, mut unanswered, mut silent) = (0, Times::default(), Times::default());
    let owner = field.owner.clone();
    for run in 0..runs {
        let clients = field.clients(field.mac, false).await?;
        let since = clients.mark();
        if killed {
            field.stage.on(&owner).kill();
        } else {
            field.stage.on(&owner).terminate();
            field.stage.on(&owner).wait(super::SOON).await?;
        }
        let next = clients.taken_from(field.mac).await?;
        let seen = clients.end(since).await?;
        lost += seen.warm.lost();
        dark.add(seen.dark(field.mac)?);
        unanswered.add(seen.unanswered());
        silent.add(seen.silent());
        let clients = field.clients(next, true).await?;
        let started = clients.mark();
        field.stage.start_on(&owner)?;
        clients.back_at(field.mac).await?;
        let told = returns.add(&clients.end(started).await?);
        eprintln!(
            "{} {run}: {} lost, a cold client had no answer for {:.1} ms; {told}",
            if killed { "killed" } else { "stopped" },
            seen.warm.lost(),
            seen.unanswered().as_secs_f64() * 1e3
        );
    }
    if killed {
        figures.put("agent_killed_cold_p50_ms", dark.at(50));
        figures.put("agent_killed_cold_p99_ms", dark.at(99));
        figures.put("agent_killed_lost", lost);
        returns.put("restart", true, figures);
    } else {
        figures.put("handover_lost", lost);
        figures.put("handover_cold_longest_ms", unanswered.longest());
        figures.put("handover_silent_longest_ms", silent.longest());
        returns.put("start", true, figures);
    }
    Ok(())
}

/// The owner is drained, and is no longer.
pub(crate) async fn drained(
    field: &mut Field,
    figures: &mut Figures,
    runs: usize,
) -> Result<(), Fault> {
    let (mut away, mut back) = (Returns::default(), Returns::default());
    for run in 0..runs {
        let clients = field.clients(field.mac, true).await?;
        let since = clients.mark();
        field.drain(true)?;
        let next = clients.taken_from(field.mac).await?;
        let told = away.add(&clients.end(since).await?);
        let clients = field.clients(next, true).await?;
        let since = clients.mark();
        field.drain(false)?;
        clients.back_at(field.mac).await?;
        let told_back = back.add(&clients.end(since).await?);
        eprintln!("drained {run}: {told}; {told_back}");
    }
    away.put("drain", true, figures);
    back.put("undrain", true, figures);
    Ok(())
}

/// The owner's process is not run for ten seconds.
pub(crate) async fn paused(
    field: &mut Field,
    figures: &mut Figures,
    runs: usize,
) -> Result<(), Fault> {
    let (mut dark, mut lost, mut returns) = (Times::default(), 0, Returns::default());
    let owner = field.owner.clone();
    for run in 0..runs {
        let clients = field.clients(field.mac, false).await?;
        let since = clients.mark();
        field.stage.on(&owner).freeze();
        let next = clients.taken_from(field.mac).await?;
        let seen = clients.end(since).await?;
        dark.add(seen.dark(field.mac)?);
        lost += seen.warm.lost();
        // All of what is asked meanwhile waits in its sockets.
        let clients = field.clients(next, true).await?;
        until(since, PAUSE).await;
        let thawed = clients.mark();
        field.stage.on(&owner).thaw();
        clients.back_at(field.mac).await?;
        let told = returns.add(&clients.end(thawed).await?);
        let ms = seen.dark(field.mac)?.as_secs_f64() * 1e3;
        eprintln!("paused {run}: a cold client had no answer for {ms:.1} ms; {told}");
    }
    figures.put("paused_cold_p50_ms", dark.at(50));
    figures.put("paused_cold_p99_ms", dark.at(99));
    figures.put("paused_lost", lost);
    returns.put("resumed", true, figures);
    Ok(())
}

/// With the address on the LAN's interface: the owner's agent is killed, and its kernel answers on
/// until the address's lifetime is over.
pub(crate) async fn linux_killed(
    field: &mut Field,
    figures: &mut Figures,
    runs: usize,
) -> Result<(), Fault> {
    let (mut silent, mut unanswered) = (Times::default(), Times::default());
    let (mut double, mut alone, mut lost) = (Times::default(), Times::default(), 0);
    let owner = field.owner.clone();
    for run in 0..runs {
        let clients = field.clients(field.mac, false).await?;
        let since = clients.mark();
        field.stage.on(&owner).kill();
        clients.taken_from(field.mac).await?;
        alone.add(since.elapsed());
        let seen = clients.end(since).await?;
        silent.add(seen.silent());
        unanswered.add(seen.unanswered());
        lost += seen.warm.lost();
        let (doubles, after) = seen.doubles();
        double.add(after);
        eprintln!(
            "linux killed {run}: {} lost, silent for {:.1} ms; two answered {doubles} times, until {:.0} ms",
            seen.warm.lost(),
            seen.silent().as_secs_f64() * 1e3,
            after.as_secs_f64() * 1e3
        );
        field.stage.start_on(&owner)?;
        field
            .clients(field.mac, false)
            .await?
            .end(Instant::now())
            .await?;
    }
    figures.put_times("linux_agent_killed", &silent);
    figures.put("linux_agent_killed_cold_p99_ms", unanswered.at(99));
    figures.put("linux_agent_killed_lost", lost);
    figures.put("linux_agent_killed_double_until_ms", double.longest());
    figures.put("linux_agent_killed_alone_p99_ms", alone.at(99));
    Ok(())
}
