//! Election, failure detection and hand-over together, in virtual time: random schedules of faults.
//! Every schedule follows from its number, so that it passes always or never. `cargo xtask soak
//! election` plays more of them.

mod model;
mod schedule;
#[path = "../../../proto/tests/member/sim.rs"]
#[allow(dead_code, unreachable_pub)]
mod sim;

use std::time::Duration;

use proto::member::Profile;
use schedule::{Fault, Schedule, Settled, Step, play};
use sim::ms;

const SCHEDULES: u64 = 10_000;
const THREADS: u64 = 2;

/// Random faults, one or two of them at a time: what [`schedule::Outcome::judge`] promises.
fn keeps_its_promises(profile: Profile, schedules: u64, schedule: fn(u64) -> Schedule) {
    let settled = Settled::new(profile);
    let broken: Vec<String> = std::thread::scope(|scope| {
        let play = |thread| {
            let settled = &settled;
            scope.spawn(move || {
                let seeds = (thread..schedules).step_by(THREADS as usize);
                let broken = seeds.filter_map(|seed| {
                    let schedule = schedule(seed);
                    play(&schedule, settled).judge(&schedule).err()
                });
                broken.collect::<Vec<_>>()
            })
        };
        let threads: Vec<_> = (0..THREADS).map(play).collect();
        let results = threads.into_iter().map(|thread| thread.join());
        results
            .flat_map(|broken| broken.expect("no panic"))
            .collect()
    });
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn no_schedule_breaks_a_promise() {
    keeps_its_promises(Profile::DEFAULT, SCHEDULES, Schedule::of);
}

#[test]
fn no_schedule_breaks_a_promise_with_the_fast_profile() {
    keeps_its_promises(Profile::FAST, SCHEDULES / 10, Schedule::of);
}

/// A network cut in two, where nobody is alone: each side goes on, and when it heals the same holds as
/// of any other fault.
#[test]
fn no_split_breaks_a_promise() {
    keeps_its_promises(Profile::DEFAULT, SCHEDULES / 10, Schedule::split);
}

fn one(nodes: usize, fault: Fault, lasts: Duration) -> Schedule {
    Schedule {
        seed: 1,
        nodes,
        loss: 0,
        steps: vec![Step {
            fault,
            // The owner of the first address among any number of nodes up to 5 is one of these.
            node: 0,
            other: 1,
            begins: ms(0),
            lasts,
        }],
    }
}

/// The model sees what the promises are about: otherwise they would be worth nothing.
#[test]
fn the_model_sees_deaths_and_double_answers() {
    let settled = Settled::new(Profile::DEFAULT);
    let mut longest = ms(0);
    for node in 0..3 {
        let mut schedule = one(3, Fault::Crash, ms(1000));
        schedule.steps[0].node = node;
        let outcome = play(&schedule, &settled);
        longest = longest.max(outcome.silence());
        assert_eq!(outcome.judge(&schedule), Ok(()));
    }
    assert!(longest > ms(70) && longest < ms(130), "{longest:?}");
    // Both sides of a cut between two go on.
    let schedule = one(2, Fault::CutOff, ms(1000));
    let outcome = play(&schedule, &settled);
    assert_eq!(outcome.judge(&schedule), Ok(()));
    let both = outcome.spans.iter().filter(|span| span.answers == 2);
    let both = both.map(|span| span.until - span.from).max();
    assert!(both > Some(ms(800)), "{:?}", outcome.spans);
    // Judged as if the network had been whole, that is a broken promise.
    let whole = schedule::Outcome {
        cut: Vec::new(),
        ..outcome
    };
    assert!(whole.judge(&schedule).is_err());
    // Both sides of a split have it.
    let mut schedule = Schedule::split(1);
    (schedule.loss, schedule.steps[0].lasts) = (0, ms(1000));
    let outcome = play(&schedule, &settled);
    assert_eq!(outcome.judge(&schedule), Ok(()));
    let both = outcome.spans.iter().filter(|span| span.answers == 2);
    let both = both.map(|span| span.until - span.from).max();
    assert!(both > Some(ms(800)), "{:?}", outcome.spans);
    // And so is an address that nobody answers for.
    let mut silent = play(&one(3, Fault::Path, ms(50)), &settled);
    silent.spans.push(model::Span {
        address: 0,
        answers: 0,
        from: ms(0),
        until: ms(200),
    });
    assert!(silent.judge(&one(3, Fault::Path, ms(50))).is_err());
}
