//! Random schedules of faults, and what has to hold in each.

use std::time::Duration;

use proto::member::Profile;

use super::model::{ADDRESSES, HAND_OVER, Model, STAYING, Span};
use super::sim::{Setup, ms, random};

/// After the last fault has ended, all is as it should be.
const SETTLED: Duration = Duration::from_secs(4);
/// Between two looks at that.
const LOOK: Duration = Duration::from_millis(50);

/// What may happen to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// Power off, and on again later.
    Crash,
    /// Its process is not run.
    Pause,
    /// Its link is cut, in both directions.
    CutOff,
    /// Nothing gets from it to one other node.
    Path,
    /// A planned stop, and a start later.
    Leave,
    /// A planned stop which the next start follows.
    Upgrade,
    /// It and one other node are cut off from the rest: none of them is alone.
    Split,
}

const FAULTS: [Fault; 6] = [
    Fault::Crash,
    Fault::Pause,
    Fault::CutOff,
    Fault::Path,
    Fault::Leave,
    Fault::Upgrade,
];

/// One fault of a schedule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) fault: Fault,
    pub(crate) node: usize,
    /// The other end of a path.
    pub(crate) other: usize,
    /// After the start of the schedule.
    pub(crate) begins: Duration,
    /// Until it ends: a node is started again, a link healed.
    pub(crate) lasts: Duration,
}

/// A schedule.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    /// Of 1000 datagrams.
    pub(crate) loss: u64,
    pub(crate) steps: Vec<Step>,
}

/// A number below.
fn below(dice: &mut u64, limit: u64) -> u64 {
    random(dice) % limit
}

impl Schedule {
    pub(crate) fn of(seed: u64) -> Self {
        let mut dice = seed ^ 0x5eed;
        // The fewer, the faster, and the more depends on each.
        let nodes = [2, 3, 3, 3, 4, 5][below(&mut dice, 6) as usize];
        let loss = match below(&mut dice, 2) {
            0 => 0,
            _ => 1 + below(&mut dice, 50),
        };
        let count = 1 + usize::from(below(&mut dice, 5) > 2);
        let steps = (0..count).map(|_| {
            let node = below(&mut dice, nodes as u64) as usize;
            let other = (node + 1 + below(&mut dice, nodes as u64 - 1) as usize) % nodes;
            Step {
                fault: FAULTS[below(&mut dice, FAULTS.len() as u64) as usize],
                node,
                other,
                begins: ms(below(&mut dice, 300)),
                lasts: match below(&mut dice, 8) {
                    0 => ms(5 + below(&mut dice, 3000)),
                    _ => ms(5 + below(&mut dice, 500)),
                },
            }
        });
        Self {
            seed,
            nodes,
            loss,
            steps: steps.collect(),
        }
    }

    /// A network that is cut in two, with at least two nodes on each side.
    pub(crate) fn split(seed: u64) -> Self {
        let mut dice = seed ^ 0x2b2b;
        let nodes = 4 + below(&mut dice, 2) as usize;
        let mut schedule = Self::of(seed);
        schedule.steps.truncate(1);
        let node = below(&mut dice, nodes as u64) as usize;
        for step in &mut schedule.steps {
            step.fault = Fault::Split;
            step.node = node;
            step.other = (node + 1 + below(&mut dice, nodes as u64 - 1) as usize) % nodes;
        }
        Self { nodes, ..schedule }
    }

    /// Whether only one thing went wrong.
    pub(crate) fn is_single(&self) -> bool {
        self.steps.len() == 1
    }
}

/// Settled nodes, to begin with.
pub(crate) struct Settled(Vec<Model>);

impl Settled {
    pub(crate) fn new(profile: Profile) -> Self {
        let settle = |nodes| {
            let mut model = Model::new(Setup {
                profile,
                ..Setup::of(nodes)
            });
            model.run_for(ms(1500));
            assert!(is_right(&model), "{nodes} nodes");
            model.spans.clear();
            model.owners = vec![model.answering(STAYING).trailing_zeros() as usize];
            model
        };
        Self((2..6).map(settle).collect())
    }
}

/// Every running node sees all, and each address has one answer.
fn is_right(model: &Model) -> bool {
    let all: Vec<usize> = (0..model.nodes()).collect();
    let one = (0..ADDRESSES).all(|address| model.answering(address).count_ones() == 1);
    one && all
        .iter()
        .all(|node| model.is_up(*node) && model.net.runs(*node))
        && model.net.agree(&all)
}

/// The longest that an address is answered for by nobody after one fault, nothing being lost: the
/// issue's bound. Who makes way is away for as long as its next start takes, besides.
pub(crate) const TAKEN_OVER: Duration = Duration::from_millis(150);
/// The same where a process was not run for just so long that it must be silent when it wakes (two
/// beats), and the others had not yet found it dead: one of a million schedules.
pub(crate) const WOKEN: Duration = Duration::from_millis(180);
/// The longest that several answer for one address while the network is whole, nothing being lost:
/// two beats, a latency, and what the latency of one of them takes longer.
pub(crate) const YIELDED: Duration = Duration::from_millis(65);
/// The same where up to a twentieth of the datagrams is lost: each may have to be repeated.
pub(crate) const TAKEN_OVER_IN_LOSS: Duration = Duration::from_secs(1);
pub(crate) const YIELDED_IN_LOSS: Duration = Duration::from_millis(500);
/// Where a second thing goes wrong at the same time: nobody answers for as long, several for so much
/// longer.
const OF_SEVERAL: Duration = Duration::from_millis(3500);
const MORE: Duration = Duration::from_millis(500);

/// What happened.
pub(crate) struct Outcome {
    pub(crate) spans: Vec<Span>,
    /// Times in which the network was not whole.
    pub(crate) cut: Vec<(Duration, Duration)>,
    /// Longest time that a node which said that its next start follows was away.
    pub(crate) away: Duration,
    /// All is as it should be in the end; when.
    pub(crate) right: Option<Duration>,
    /// Who had the address that stays, one after another.
    pub(crate) owners: Vec<usize>,
}

/// Things to do, in order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Begin(usize),
    End(usize),
}

pub(crate) fn play(schedule: &Schedule, settled: &Settled) -> Outcome {
    let mut model = settled.0[schedule.nodes - 2].clone();
    let mut dice = schedule.seed;
    model.net.random = random(&mut dice);
    model.net.setup.loss = schedule.loss;
    model.run_for(Duration::from_micros(random(&mut dice) % 90_000));
    let start = model.net.now;
    let mut acts: Vec<(Duration, Act)> = Vec::new();
    for (n, step) in schedule.steps.iter().enumerate() {
        acts.push((start + step.begins, Act::Begin(n)));
        acts.push((start + step.begins + step.lasts, Act::End(n)));
    }
    acts.sort();
    let mut cut = Vec::new();
    let mut away = ms(0);
    let mut parted = vec![None; schedule.steps.len()];
    for (at, act) in acts {
        model.run_for(at.saturating_sub(model.net.now));
        match act {
            Act::Begin(n) => {
                let step = schedule.steps[n];
                if !model.is_up(step.node) || !model.net.runs(step.node) {
                    continue;
                }
                match step.fault {
                    Fault::Crash => model.die(step.node),
                    Fault::Pause => model.freeze(step.node, step.lasts),
                    Fault::CutOff => model.net.cut_off(step.node),
                    Fault::Path => model.net.cut(step.node, step.other),
                    Fault::Split => {
                        let side = [step.node, step.other];
                        let rest = (0..schedule.nodes).filter(|node| !side.contains(node));
                        for (a, b) in rest.flat_map(|node| side.map(|other| (node, other))) {
                            model.net.cut(a, b);
                            model.net.cut(b, a);
                        }
                    }
                    Fault::Leave => model.leave(step.node),
                    Fault::Upgrade => {
                        model.make_way(step.node);
                        let mut waited = 0;
                        while model.is_up(step.node) && !model.has_left(step.node) && waited < 40 {
                            model.run_for(ms(1));
                            waited += 1;
                        }
                        model.die(step.node);
                        parted[n] = Some(model.net.now);
                    }
                }
            }
            Act::End(n) => {
                let step = schedule.steps[n];
                match step.fault {
                    Fault::Pause => {}
                    Fault::CutOff | Fault::Path | Fault::Split => {
                        // All links: one cut at a time is enough to think about.
                        model.net.heal();
                        cut.push((start + step.begins, model.net.now));
                    }
                    Fault::Crash | Fault::Leave | Fault::Upgrade => {
                        if let Some(parted) = parted[n] {
                            away = away.max(model.net.now - parted);
                        }
                        if step.fault == Fault::Leave {
                            // It ends as soon as others have its addresses.
                            let mut waited = 0;
                            while model.is_up(step.node) && waited < 2000 {
                                model.run_for(ms(1));
                                waited += 1;
                            }
                        }
                        if !model.is_up(step.node) {
                            model.start(step.node);
                        }
                    }
                }
            }
        }
    }
    model.net.heal();
    let healed = model.net.now;
    let mut right = None;
    while model.net.now < healed + SETTLED {
        model.run_for(LOOK);
        match (is_right(&model), right) {
            (true, None) => right = Some(model.net.now),
            (true, Some(at)) if model.net.now >= at + 4 * LOOK => break,
            (true, Some(_)) => {}
            (false, _) => right = None,
        }
    }
    model.close();
    Outcome {
        spans: std::mem::take(&mut model.spans),
        cut,
        away,
        right: right.map(|at| at - healed),
        owners: std::mem::take(&mut model.owners),
    }
}

impl Outcome {
    /// Whether the promises hold; otherwise which is broken, and by what.
    pub(crate) fn judge(&self, schedule: &Schedule) -> Result<(), String> {
        let broken = |what: &str| Err(format!("{what}: {schedule:?}: {:?}", self.spans));
        if self.right.is_none() {
            return broken("it never settled");
        }
        let lossless = schedule.loss == 0;
        let (mut silence, mut several) = match lossless {
            true => (TAKEN_OVER, YIELDED),
            false => (TAKEN_OVER_IN_LOSS, YIELDED_IN_LOSS),
        };
        let leaves = schedule.steps.iter().any(|step| step.fault == Fault::Leave);
        if leaves && !(lossless && schedule.is_single()) {
            // It answers until it hears that another node does.
            several += HAND_OVER;
        }
        if lossless && schedule.steps.iter().any(|step| step.fault == Fault::Pause) {
            silence = WOKEN;
        }
        if !schedule.is_single() {
            silence = OF_SEVERAL;
            several += MORE;
        }
        if self.silence() > silence + self.away {
            return broken("nobody answers");
        }
        if self.several() > several {
            return broken("several answer");
        }
        if schedule.is_single() && self.has_moved(schedule) {
            return broken(&format!("it does not stay: {:?}", self.owners));
        }
        Ok(())
    }

    /// After one fault the address that stays is where it was, unless its owner had the fault; then
    /// it is with one other node, or never left. A cut between two is both nodes' fault: where it
    /// lasts just as long as a death takes, one may find the other dead and not be found so itself.
    /// A split is everybody's: each side has an owner, and the later one keeps the address.
    fn has_moved(&self, schedule: &Schedule) -> bool {
        let faulty = |node: usize| {
            let both = |step: &Step| schedule.nodes == 2 && step.fault == Fault::CutOff;
            let mut steps = schedule.steps.iter();
            steps.any(|step| step.node == node || step.fault == Fault::Split || both(step))
        };
        match self.owners.as_slice() {
            [_] => false,
            [owner, next] => !faulty(*owner) || next == owner,
            _ => true,
        }
    }

    /// The longest time in which nobody answered.
    pub(crate) fn silence(&self) -> Duration {
        let silent = self.spans.iter().filter(|span| span.answers == 0);
        silent
            .map(|span| span.until - span.from)
            .max()
            .unwrap_or_default()
    }

    /// The longest time, the network being whole, in which several answered.
    pub(crate) fn several(&self) -> Duration {
        let several = self.spans.iter().filter(|span| span.answers > 1);
        several
            .flat_map(|span| self.whole(span))
            .max()
            .unwrap_or_default()
    }

    /// The parts of a span in which the network was whole.
    fn whole(&self, span: &Span) -> Vec<Duration> {
        let mut cuts = self.cut.clone();
        cuts.sort();
        let mut parts = Vec::new();
        let mut from = span.from;
        for (begins, heals) in cuts {
            if begins >= span.until || heals <= from {
                continue;
            }
            parts.push(begins.saturating_sub(from));
            from = heals;
        }
        parts.push(span.until.saturating_sub(from));
        parts
    }
}
