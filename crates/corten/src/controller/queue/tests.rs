//! The order of writes, and the index that finds the next one.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn write(name: &str, version: &str) -> Write {
    Write::Service(
        ServiceWrite {
            service: ServiceKey::new("default", name),
            resource_version: version.into(),
            ingress: Vec::new(),
            pool: None,
        },
        Vec::new(),
    )
}

/// A write that moves a Service from one address to another.
fn moves(name: &str, from: &str, to: &str) -> Write {
    let list = |text: &str| {
        text.split_whitespace()
            .map(|ip| ip.parse().unwrap())
            .collect()
    };
    match write(name, from) {
        Write::Service(write, _) => {
            let ingress = list(to);
            Write::Service(ServiceWrite { ingress, ..write }, list(from))
        }
        forget @ Write::Forget(_) => forget,
    }
}

fn popped(queue: &mut Queue) -> Option<Write> {
    queue.pop().map(|(write, _)| write)
}

fn name(write: Option<&Write>) -> &str {
    write.map_or("", |write| &write.service().name)
}

#[test]
fn an_address_leaves_one_status_before_it_enters_another() {
    let mut queue = Queue::default();
    queue.push(moves("a", "10.0.0.1", "10.0.0.9"), None);
    queue.push(moves("b", "", "10.0.0.1"), None);
    queue.push(moves("c", "", "10.0.0.2"), None);
    let a = popped(&mut queue).expect("it waits for nobody");
    assert_eq!(name(Some(&a)), "a");
    assert_eq!(name(popped(&mut queue).as_ref()), "c");
    assert!(popped(&mut queue).is_none(), "a has not arrived");
    queue.ended(a.service(), a.gives_up());
    assert_eq!(name(popped(&mut queue).as_ref()), "b");
    assert!(queue.leaving.is_empty());
}

#[test]
fn services_that_change_places_do_not_wait_for_ever() {
    let mut queue = Queue::default();
    queue.push(moves("a", "10.0.0.1", "10.0.0.2"), None);
    queue.push(moves("b", "10.0.0.2", "10.0.0.1"), None);
    let a = popped(&mut queue).expect("one begins");
    assert!(popped(&mut queue).is_none());
    queue.ended(a.service(), a.gives_up());
    assert_eq!(name(popped(&mut queue).as_ref()), "b");
}

#[test]
fn nobody_takes_an_address_whose_holder_could_not_be_written() {
    let mut queue = Queue::default();
    let now = Instant::now();
    queue.push(moves("a", "10.0.0.1", ""), None);
    queue.push(moves("b", "", "10.0.0.1"), None);
    let (refused, _) = queue.pop().expect("it waits for nobody");
    assert_eq!(name(Some(&refused)), "a");
    let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let write = refused;
    queue.rest(Failed { write, backoff }, now);
    assert!(
        popped(&mut queue).is_none(),
        "the address is still in a's status"
    );
    queue.wake(now + Duration::from_secs(1));
    let a = popped(&mut queue).expect("once more");
    assert_eq!(name(Some(&a)), "a");
    queue.ended(a.service(), a.gives_up());
    assert_eq!(name(popped(&mut queue).as_ref()), "b");
}

/// `a` leaves an address that `b` takes; a's write has been sent and came to nothing.
fn outdated() -> Queue {
    let mut queue = Queue::default();
    queue.push(moves("a", "10.0.0.1", ""), None);
    queue.push(moves("b", "", "10.0.0.1"), None);
    let a = popped(&mut queue).expect("it waits for nobody");
    queue.outdated(a);
    queue
}

#[test]
fn an_outdated_write_has_not_taken_the_address_out_of_the_status() {
    let a = ServiceKey::new("default", "a");
    let mut queue = outdated();
    assert!(popped(&mut queue).is_none(), "a's newer form has it still");
    // The form that the write was decided on: "10.0.0.1" is its version in these tests.
    queue.settled(&a, "10.0.0.1".into());
    assert!(
        popped(&mut queue).is_none(),
        "that form is known not to last"
    );
    queue.settled(&a, "newer".into());
    assert_eq!(name(popped(&mut queue).as_ref()), "b");
    assert!(queue.leaving.is_empty() && queue.outdated.is_empty());
}

#[test]
fn the_newer_form_s_write_is_waited_for() {
    let a = ServiceKey::new("default", "a");
    let mut queue = outdated();
    queue.supersede(&a);
    queue.push(moves("a", "10.0.0.1 10.0.0.2", "10.0.0.2"), None);
    let again = popped(&mut queue).expect("the newer form's");
    assert_eq!(name(Some(&again)), "a");
    assert!(popped(&mut queue).is_none(), "it has not arrived");
    queue.ended(again.service(), again.gives_up());
    assert_eq!(name(popped(&mut queue).as_ref()), "b");
}

#[test]
fn a_service_that_goes_takes_its_outdated_write_along() {
    let a = ServiceKey::new("default", "a");
    let mut queue = outdated();
    queue.supersede(&a);
    queue.push(Write::Forget(a), None);
    assert_eq!(name(popped(&mut queue).as_ref()), "b");
}

#[test]
fn what_is_settled_while_the_write_is_on_its_way_counts() {
    for (version, freed) in [("newer", true), ("10.0.0.1", false)] {
        let mut queue = Queue::default();
        queue.push(moves("a", "10.0.0.1", ""), None);
        queue.push(moves("b", "", "10.0.0.1"), None);
        let a = popped(&mut queue).expect("it waits for nobody");
        queue.settled(a.service(), version.into());
        queue.outdated(a);
        assert_eq!(popped(&mut queue).is_some(), freed, "{version}");
    }
}

#[test]
fn a_newer_form_that_keeps_the_address_holds_nobody_up() {
    let mut queue = Queue::default();
    queue.push(moves("a", "10.0.0.1", ""), None);
    queue.push(moves("b", "", "10.0.0.3"), None);
    queue.supersede(&ServiceKey::new("default", "a"));
    queue.push(moves("a", "", "10.0.0.1"), None);
    assert!(queue.leaving.is_empty());
}

#[test]
fn what_rested_does_not_come_back_beside_a_newer_form() {
    let mut queue = Queue::default();
    let now = Instant::now();
    queue.push(write("bad", "old"), None);
    let (old, _) = queue.pop().expect("it waits");
    queue.busy.clear();
    let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    queue.rest(
        Failed {
            write: old,
            backoff,
        },
        now,
    );
    queue.push(write("bad", "new"), None);
    queue.wake(now + Duration::from_secs(1));
    assert!(queue.resting.is_empty());
    assert_eq!(queue.waiting.len(), 1);
    let (newer, _) = queue.pop().expect("it waits");
    assert!(matches!(newer, Write::Service(write, _) if &*write.resource_version == "new"));
}

/// Something that happens to the queue.
#[derive(Clone, Debug)]
enum Step {
    /// A Service moves between addresses.
    Moves(u8, Option<u8>, Option<u8>),
    Sends,
    Arrives(usize),
    Fails(usize),
    Wakes,
}

fn a_step() -> impl Strategy<Value = Step> {
    let address = || prop::option::of(0u8..5);
    prop_oneof![
        4 => (0u8..6, address(), address()).prop_map(|(n, from, to)| Step::Moves(n, from, to)),
        3 => Just(Step::Sends),
        2 => any::<prop::sample::Index>().prop_map(|i| Step::Arrives(i.index(64))),
        1 => any::<prop::sample::Index>().prop_map(|i| Step::Fails(i.index(64))),
        1 => Just(Step::Wakes),
    ]
}

/// Who may be sent, found by looking at everybody.
fn plain_scan(queue: &Queue) -> BTreeSet<u64> {
    let free = |write: &Write| !queue.busy.contains_key(write.service()) && !queue.too_early(write);
    let ready = queue.waiting.iter().filter(|(_, (write, _))| free(write));
    ready.map(|(number, _)| *number).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_finds_what_a_plain_scan_finds(steps in prop::collection::vec(a_step(), 1..60)) {
        let mut queue = Queue::default();
        let mut flying: Vec<Write> = Vec::new();
        let mut now = Instant::now();
        for step in steps {
            match step {
                Step::Moves(n, from, to) => {
                    let text = |n: Option<u8>| n.map_or_else(String::new, |n| format!("10.0.0.{n}"));
                    let write = moves(&format!("s{n}"), &text(from), &text(to));
                    queue.supersede(write.service());
                    queue.push(write, None);
                }
                Step::Sends => {
                    let busy = !queue.busy.is_empty();
                    let ready = plain_scan(&queue);
                    let sent = popped(&mut queue);
                    prop_assert!(!busy || sent.is_some() != ready.is_empty());
                    flying.extend(sent);
                }
                Step::Arrives(n) if !flying.is_empty() => {
                    let write = flying.remove(n % flying.len());
                    queue.ended(write.service(), write.gives_up());
                }
                Step::Fails(n) if !flying.is_empty() => {
                    let write = flying.remove(n % flying.len());
                    if queue.holds(write.service()) {
                        queue.ended(write.service(), write.gives_up());
                    } else {
                        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
                        queue.rest(Failed { write, backoff }, now);
                    }
                }
                Step::Wakes => {
                    now += Duration::from_secs(1);
                    queue.wake(now);
                }
                Step::Arrives(_) | Step::Fails(_) => {}
            }
            prop_assert_eq!(&queue.ready, &plain_scan(&queue));
        }
        // Everything is sent in the end, and nothing is left of it.
        queue.wake(now + Duration::from_secs(10));
        loop {
            flying.extend(popped(&mut queue));
            let Some(write) = flying.pop() else {
                break;
            };
            queue.ended(write.service(), write.gives_up());
        }
        prop_assert!(queue.waiting.is_empty() && queue.place.is_empty() && queue.ready.is_empty());
        prop_assert!(queue.takers.is_empty() && queue.leaving.is_empty() && queue.rests.is_empty());
    }
}
