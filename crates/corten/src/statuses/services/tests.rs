use api::metallb::{
    ServiceBGPStatus, ServiceBGPStatusStatus, ServiceL2Status, ServiceL2StatusStatus,
};
use api::object::Object;
use plan::status::{bgp_status, l2_status};

use super::*;

type L2 = ServiceL2StatusStatus;

fn services() -> Services<L2> {
    Services::default()
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

fn announced(service: &str) -> Told<L2> {
    Told::Announced(key(service), Some(status(service)))
}

fn job<S: Word>(services: &mut Services<S>, now: Instant) -> Job<S> {
    match services.next(now) {
        Next::Job(job) => job,
        other => panic!("{other:?}"),
    }
}

/// The job went well and left these objects.
fn done<S: Word>(services: &mut Services<S>, job: &Job<S>, own: &[(&str, S)], now: Instant) {
    let own = own.iter().map(|(name, s)| ((*name).to_owned(), s.clone()));
    services.done(
        Done {
            service: job.service.clone(),
            before: job.own.clone(),
            own: own.collect(),
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
    done(&mut services, &first, &[("l2-1", status("a"))], now);
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
    done(&mut services, &again, &[("l2-2", status("a"))], later);
    assert!(
        matches!(services.next(later), Next::Nothing),
        "all is right"
    );

    // From then on nobody else's is touched.
    services.seen(gone("l2-2"), later);
    let last = job(&mut services, later + HOLD);
    assert!(!last.take_over, "no fight");

    // Elected anew, it takes over as at first.
    done(&mut services, &last, &[("l2-3", status("a"))], later);
    services.told(Told::Settled);
    services.told(Told::Settled);
    services.told(Told::Announced(key("a"), None));
    let lost = job(&mut services, later + HOLD);
    done(&mut services, &lost, &[], later);
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
    done(&mut services, &adopt, &[("l2-1", status("a"))], now);
    services.told(Told::Announced(key("a"), None));
    let lost = job(&mut services, now);
    assert!(lost.wanted.is_none());
    assert_eq!(lost.own.len(), 1);
    done(&mut services, &lost, &[], now);
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
    assert_eq!((&*adopted.service.name, adopted.own.len()), ("a", 1));
    done(&mut services, &adopted, &[("l2-1", status("a"))], now);
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
    done(&mut services, &first, &[("l2-1", status("a"))], now);
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
            own: BTreeMap::from([("l2-1".to_owned(), ServiceL2StatusStatus::default())]),
            took_over: false,
            result: Err(WriteError::Failed("no".into())),
        },
        now,
    );
    let Next::At(at) = services.next(now) else {
        panic!("at once");
    };
    let again = job(&mut services, at);
    assert_eq!(again.own.len(), 1, "the object that was made is used");
    assert!(again.take_over);
}

/// Every node that advertises a Service says so: nobody takes another's down.
#[test]
fn by_bgp_nobody_takes_over() {
    let (mut services, now) = (
        Services::<ServiceBGPStatusStatus>::default(),
        Instant::now(),
    );
    let status = |peers: &[&str]| {
        let peers = peers.iter().map(|peer| (*peer).into()).collect();
        bgp_status(&key("a"), "me", &peers)
    };
    let mut old = ServiceBGPStatus::default();
    old.metadata.name = "bgp-1".to_owned();
    old.metadata.labels = [
        (LABEL_SERVICE_NAME.to_owned(), "a".to_owned()),
        (LABEL_SERVICE_NAMESPACE.to_owned(), "default".to_owned()),
    ]
    .into();
    old.status = status(&["p"]);
    services.seen(Seen::Applied(Object::ServiceBGPStatus(old)), now);
    services.seen(Seen::Listed, now);
    let told = |peers| Told::Announced(key("a"), Some(status(peers)));
    services.told(told(&["p"]));
    assert!(matches!(services.next(now), Next::Nothing), "it is right");
    services.told(told(&["p", "q"]));
    let more = job(&mut services, now);
    assert!(!more.take_over && more.own.len() == 1, "{more:?}");
    done(&mut services, &more, &[("bgp-1", status(&["p", "q"]))], now);
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
    assert_eq!(first.own.len(), 2);
    done(&mut services, &first, &[("l2-1", status("a"))], now);
    assert!(matches!(services.next(now), Next::Nothing));
}
