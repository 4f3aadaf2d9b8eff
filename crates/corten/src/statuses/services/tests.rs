use api::metallb::{
    ServiceBGPStatus, ServiceBGPStatusStatus, ServiceL2Status, ServiceL2StatusStatus,
};
use api::object::Object;
use plan::status::{bgp_status, l2_status};

use super::*;

fn services() -> Services<ServiceL2StatusStatus> {
    Services::new("me".into())
}

/// A list of interfaces or peers.
fn list(names: &[&str]) -> List {
    names.iter().map(|name| Name::from(*name)).collect()
}

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("default", name)
}

fn status(service: &str) -> ServiceL2StatusStatus {
    l2_status(&key(service), "me", &[])
}

fn object(name: &str, service: &str) -> Object {
    let mut object = ServiceL2Status::default();
    object.metadata.name = name.to_owned();
    let labels = [
        (LABEL_SERVICE_NAME, service),
        (LABEL_SERVICE_NAMESPACE, "default"),
    ];
    object.metadata.labels = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    object.status = status(service);
    Object::ServiceL2Status(object)
}

fn gone(name: &str) -> Seen {
    let mut object = ServiceL2Status::default();
    object.metadata.name = name.to_owned();
    Seen::Gone(Object::ServiceL2Status(object))
}

fn announced(service: &str) -> Told {
    Told::Announced(key(service), Some(list(&[])))
}

fn job<S: Word>(services: &mut Services<S>, now: Instant) -> Job {
    match services.next(now) {
        Next::Job(job) => job,
        other => panic!("{other:?}"),
    }
}

/// An own object alone.
fn only(name: &str, says: Says) -> Own {
    let mut own = Own::default();
    own.insert(name.into(), says);
    own
}

/// The job went well and left this object, which says what it should; or none.
fn done<S: Word>(services: &mut Services<S>, job: &Job, object: Option<&str>, now: Instant) {
    let wanted = job.wanted.as_ref();
    let own = object.zip(wanted).map(|(name, it)| only(name, print(it)));
    services.done(
        Done {
            service: job.service.clone(),
            before: job.own.clone(),
            own: own.unwrap_or_default(),
            took_over: job.take_over && job.wanted.is_some(),
            result: Ok(()),
        },
        now,
    );
}

#[test]
fn the_elected_node_takes_over_once_and_once_again_when_its_object_is_deleted() {
    let (mut services, now) = (services(), Instant::now());
    services.told(announced("a"));
    assert!(matches!(services.next(now), Next::Nothing), "not listed");
    services.seen(Seen::Listed, now);
    let first = job(&mut services, now);
    assert!(first.take_over && first.wanted.is_some() && first.own.is_empty());
    assert!(matches!(services.next(now), Next::Nothing), "one at a time");
    done(&mut services, &first, Some("l2-1"), now);
    assert!(matches!(services.next(now), Next::Nothing), "all is right");
    // The watch's echo changes nothing.
    services.seen(Seen::Applied(object("l2-1", "a")), now);
    assert!(matches!(services.next(now), Next::Nothing));

    // Somebody deletes it: it is made anew, later; another node may have taken over and died.
    services.seen(gone("l2-1"), now);
    assert!(matches!(services.next(now), Next::At(at) if at == now + HOLD));
    let later = now + HOLD;
    let again = job(&mut services, later);
    assert!(again.take_over && again.own.is_empty(), "{again:?}");
    done(&mut services, &again, Some("l2-2"), later);
    assert!(
        matches!(services.next(later), Next::Nothing),
        "all is right"
    );

    // From then on nobody else's is touched.
    services.seen(gone("l2-2"), later);
    let last = job(&mut services, later + HOLD);
    assert!(!last.take_over, "no fight");

    // Elected anew, it takes over as at first.
    done(&mut services, &last, Some("l2-3"), later);
    services.told(Told::Settled);
    services.told(Told::Settled);
    services.told(Told::Announced(key("a"), None));
    let lost = job(&mut services, later + HOLD);
    done(&mut services, &lost, None, later);
    services.told(announced("a"));
    assert!(job(&mut services, later + HOLD).take_over);
}

#[test]
fn a_node_that_lost_deletes_only_its_own() {
    let (mut services, now) = (services(), Instant::now());
    services.seen(Seen::Applied(object("l2-1", "a")), now);
    services.seen(Seen::Listed, now);
    services.told(announced("a"));
    services.told(Told::Settled);
    let adopt = job(&mut services, now);
    done(&mut services, &adopt, Some("l2-1"), now);
    services.told(Told::Announced(key("a"), None));
    let lost = job(&mut services, now);
    assert!(lost.wanted.is_none());
    assert_eq!(lost.own.iter().count(), 1);
    done(&mut services, &lost, None, now);
    assert!(matches!(services.next(now), Next::Nothing));
    assert!(services.known.is_empty(), "{:?}", services.known);
}

#[test]
fn what_an_earlier_process_left_waits_until_it_is_clear_what_is_announced() {
    let (mut services, now) = (services(), Instant::now());
    services.seen(Seen::Applied(object("l2-1", "a")), now);
    services.seen(Seen::Applied(object("l2-2", "b")), now);
    services.seen(Seen::Listed, now);
    assert!(matches!(services.next(now), Next::Nothing));
    services.told(announced("a"));
    let adopted = job(&mut services, now);
    assert_eq!(
        (&*adopted.service.name, adopted.own.iter().count()),
        ("a", 1)
    );
    done(&mut services, &adopted, Some("l2-1"), now);
    assert!(matches!(services.next(now), Next::Nothing));
    services.told(Told::Settled);
    let left = job(&mut services, now);
    assert_eq!((&*left.service.name, left.wanted), ("b", None));
}

#[test]
fn an_object_that_goes_while_its_job_runs_is_not_believed_in() {
    let (mut services, now) = (services(), Instant::now());
    services.seen(Seen::Listed, now);
    services.told(announced("a"));
    let first = job(&mut services, now);
    services.seen(Seen::Applied(object("l2-1", "a")), now);
    services.seen(gone("l2-1"), now);
    done(&mut services, &first, Some("l2-1"), now);
    assert!(matches!(services.next(now), Next::At(_)), "to be made anew");
}

#[test]
fn a_failed_job_is_tried_again_after_a_while() {
    let (mut services, now) = (services(), Instant::now());
    services.seen(Seen::Listed, now);
    services.told(announced("a"));
    let first = job(&mut services, now);
    services.done(
        Done {
            service: first.service.clone(),
            before: first.own.clone(),
            own: only("l2-1", Says::Nothing),
            took_over: false,
            result: Err(WriteError::Failed("no".into())),
        },
        now,
    );
    let Next::At(at) = services.next(now) else {
        panic!("at once");
    };
    let again = job(&mut services, at);
    assert_eq!(
        again.own.iter().count(),
        1,
        "the object that was made is used"
    );
    assert!(again.take_over);
}

/// Every node that advertises a Service says so: nobody takes another's down.
#[test]
fn by_bgp_nobody_takes_over() {
    let (mut services, now) = (
        Services::<ServiceBGPStatusStatus>::new("me".into()),
        Instant::now(),
    );
    let mut old = ServiceBGPStatus::default();
    old.metadata.name = "bgp-1".to_owned();
    old.metadata.labels = [
        (LABEL_SERVICE_NAME.to_owned(), "a".to_owned()),
        (LABEL_SERVICE_NAMESPACE.to_owned(), "default".to_owned()),
    ]
    .into();
    old.status = bgp_status(&key("a"), "me", &list(&["p"]));
    services.seen(Seen::Applied(Object::ServiceBGPStatus(old)), now);
    services.seen(Seen::Listed, now);
    let told = |peers| Told::Announced(key("a"), Some(list(peers)));
    services.told(told(&["p"]));
    assert!(matches!(services.next(now), Next::Nothing), "it is right");
    services.told(told(&["p", "q"]));
    let more = job(&mut services, now);
    assert!(!more.take_over && more.own.iter().count() == 1, "{more:?}");
    done(&mut services, &more, Some("bgp-1"), now);
    services.told(Told::Announced(key("a"), None));
    services.told(Told::Settled);
    assert_eq!(job(&mut services, now).wanted, None);
}

#[test]
fn of_two_own_objects_one_goes() {
    let (mut services, now) = (services(), Instant::now());
    services.seen(Seen::Applied(object("l2-1", "a")), now);
    services.seen(Seen::Applied(object("l2-2", "a")), now);
    services.seen(Seen::Listed, now);
    services.told(announced("a"));
    let first = job(&mut services, now);
    assert_eq!(first.own.iter().count(), 2);
    done(&mut services, &first, Some("l2-1"), now);
    assert!(matches!(services.next(now), Next::Nothing));
}

#[test]
fn an_object_is_judged_by_what_it_says() {
    let mut status = status("a");
    let of = |status: &ServiceL2StatusStatus| Says::of(status, "me", &key("a"));
    assert_eq!(of(&ServiceL2StatusStatus::default()), Says::Nothing);
    assert_eq!(of(&status), print(&list(&[])));
    status.interfaces = l2_status(&key("a"), "me", &list(&["e", "th"])).interfaces;
    assert_eq!(of(&status), print(&list(&["e", "th"])));
    assert_ne!(of(&status), print(&list(&["et", "h"])));
    assert_ne!(of(&status), print(&list(&["e"])));
    status.node = "another".to_owned();
    assert_eq!(of(&status), Says::OfOthers);
}
