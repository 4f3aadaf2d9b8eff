use plan::config::SecretFacts;
use plan::name::ServiceKey;
use plan::world::{Node, NodeState};

use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("corten-kept-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        Self(folder)
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).expect("a file")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn node(name: &str, cordoned: bool) -> Event {
    let form = Node {
        cordoned,
        ..Node::default()
    };
    Event::Node {
        name: name.into(),
        form: Some(form),
    }
}

fn no_node(name: &str) -> Event {
    Event::Node {
        name: name.into(),
        form: None,
    }
}

fn object(manifest: serde_json::Value) -> Event {
    let object = api::object::Object::decode(manifest)
        .expect("an object")
        .object;
    let object = plan::config::Object::try_from(object).expect("configuration");
    Event::Config {
        object: object.reference(),
        form: Some(object.into()),
    }
}

fn peer(password: &str) -> Event {
    object(serde_json::json!({
        "apiVersion": "metallb.io/v1beta2", "kind": "BGPPeer",
        "metadata": {"name": "peer", "namespace": "metallb-system"},
        "spec": {"myASN": 1, "peerASN": 2, "peerAddress": "10.0.0.1", "password": password},
    }))
}

/// One of each kind.
fn everything() -> Vec<Event> {
    let pool = object(serde_json::json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
        "metadata": {"name": "pool", "namespace": "metallb-system"},
        "spec": {"addresses": ["10.0.0.0/24"]},
    }));
    let service: api::core::Service = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}},
    }))
    .expect("a Service");
    let slice: api::core::EndpointSlice = serde_json::from_value(serde_json::json!({
        "metadata": {
            "name": "web-1", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4", "ports": [{"name": "", "port": 80}],
        "endpoints": [{"addresses": ["10.244.0.1"], "nodeName": "n"}],
    }))
    .expect("a slice");
    let secret = SecretFacts {
        basic_auth: true,
        password: Some(plan::config::Hidden::from(&b"hunter2"[..])),
    };
    vec![
        pool,
        peer("inline"),
        Event::Service {
            key: ServiceKey::new("default", "web"),
            form: Some(Box::new(service.into())),
        },
        Event::Slice {
            key: ServiceKey::new("default", "web-1"),
            form: plan::world::Slice::of(slice),
        },
        node("n", true),
        Event::Secret {
            namespace: "metallb-system".into(),
            name: "password".into(),
            form: Some(secret),
        },
        Event::State {
            node: "n".into(),
            form: Some(NodeState::default()),
        },
        Event::Rival {
            pod: ServiceKey::new("metallb-system", "speaker-x"),
            form: Some(plan::world::Rival {
                part: plan::world::Part::Speaker,
                node: "n".into(),
                workload: "daemonset/speaker".into(),
            }),
        },
        Event::ServiceRange {
            name: "kubernetes".into(),
            form: Some(vec!["10.96.0.0/12".parse().expect("a range")]),
        },
    ]
}

/// Tells these, and then waits for more.
struct Told(mpsc::Receiver<Event>);

impl Source for Told {
    async fn run(mut self, out: mpsc::Sender<Event>) -> Stopped {
        while let Some(event) = self.0.recv().await {
            if let Err(stopped) = source::tell(&out, event).await {
                return stopped;
            }
        }
        std::future::pending().await
    }
}

/// A keeping source, what to tell it, and what it tells.
struct Run {
    tell: mpsc::Sender<Event>,
    told: mpsc::Receiver<Event>,
    health: Health,
    _task: JoinSet<Stopped>,
}

impl Run {
    fn start(folder: &Folder, patience: Duration) -> Self {
        let (tell, inner) = mpsc::channel(64);
        let (out, told) = mpsc::channel(64);
        let health = Health::default();
        let keeping = Keeping {
            patience,
            ..Keeping::new(Told(inner), &folder.0, &health)
        };
        let mut task = JoinSet::new();
        task.spawn(keeping.run(out));
        Self {
            tell,
            told,
            health,
            _task: task,
        }
    }

    async fn tell(&self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.tell.send(event).await.expect("it listens");
        }
    }

    /// What is told up to this event, without it.
    async fn until(&mut self, last: &Event) -> Vec<Event> {
        let mut told = Vec::new();
        loop {
            let next = tokio::time::timeout(Duration::from_secs(60), self.told.recv());
            let event = next.await.expect("in time").expect("it tells");
            if event == *last {
                return told;
            }
            told.push(event);
        }
    }
}

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(1);

/// Keeps these as all there is.
async fn keep(folder: &Folder, events: Vec<Event>) {
    let mut run = Run::start(folder, LONG);
    run.tell(events).await;
    run.tell([Event::Synced]).await;
    run.until(&Event::Synced).await;
}

fn sorted(mut events: Vec<Event>) -> Vec<String> {
    let mut texts: Vec<String> = events.drain(..).map(|it| format!("{it:?}")).collect();
    texts.sort();
    texts
}

#[tokio::test]
async fn what_was_told_is_told_again_when_the_source_is_silent() {
    let folder = Folder::new("again");
    keep(&folder, everything()).await;
    let mut run = Run::start(&folder, SHORT);
    let told = run.until(&Event::Synced).await;
    assert_eq!(sorted(told.clone()), sorted(everything()));
    // Debug hides passwords.
    for event in everything() {
        assert!(told.contains(&event), "{event:?}");
    }
    assert!(run.health.kept().is_some());

    // The source answers: the same again, but for a Service that has gone.
    let mut now = everything();
    let gone = now.remove(2);
    let Event::Service { key, .. } = gone else {
        panic!("a Service");
    };
    run.tell(now).await;
    run.tell([Event::Synced]).await;
    run.until(&Event::Service { key, form: None }).await;
    assert_eq!(run.health.kept(), None);
    // There is one Synced alone.
    run.tell([node("later", false)]).await;
    assert_eq!(run.until(&node("later", false)).await, []);
}

#[tokio::test]
async fn a_source_that_answers_in_time_is_passed_on_as_it_is() {
    let folder = Folder::new("plain");
    keep(&folder, vec![node("old", false)]).await;
    let mut run = Run::start(&folder, LONG);
    run.tell([node("new", false), Event::Synced]).await;
    assert_eq!(run.until(&Event::Synced).await, [node("new", false)]);
    assert_eq!(run.health.kept(), None);
}

#[tokio::test]
async fn the_newer_of_two_forms_holds_and_what_went_is_not_kept() {
    let folder = Folder::new("newer");
    {
        let mut run = Run::start(&folder, LONG);
        let first = [node("a", false), node("b", false), Event::Synced];
        run.tell(first).await;
        run.tell([node("a", true), no_node("b"), node("c", false)])
            .await;
        run.until(&node("c", false)).await;
        // Written a second later at most.
        let end = Instant::now() + Duration::from_secs(60);
        while !folder.text("world").contains("\"c\"") {
            assert!(Instant::now() < end, "{}", folder.text("world"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let mut run = Run::start(&folder, SHORT);
    // What the source tells first counts more.
    let told = run.until(&Event::Synced).await;
    assert_eq!(
        sorted(told),
        sorted(vec![node("a", true), node("c", false)])
    );
}

#[tokio::test]
async fn secrets_are_apart_and_both_are_root_s_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new("secrets");
    keep(&folder, everything()).await;
    for file in ["world", "secrets"] {
        let path = folder.0.join(file);
        let mode = fs::metadata(path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let files = fs::read_dir(&folder.0).expect("the folder").count();
    assert_eq!(files, 2);
    let (world, secrets) = (folder.text("world"), folder.text("secrets"));
    assert!(!world.contains("inline") && !world.contains("password"));
    assert!(secrets.contains("inline") && secrets.contains("Secret"));
    forget(&folder.0);
    forget(&folder.0);
    assert!(Past::load(&folder.0).is_none());
}

#[tokio::test]
async fn damage_and_other_versions_are_refused() {
    let folder = Folder::new("damage");
    keep(&folder, vec![node("a", false), node("b", false)]).await;
    let good = folder.text("world");
    let refused = |text: &str| {
        fs::write(folder.0.join("world"), text).expect("written");
        match journal::read(&folder.0.join("world")) {
            Err(KeptError::Damaged { what, .. }) => what,
            other => panic!("{text}: {other:?}"),
        }
    };
    for (text, wanted) in [
        (String::new(), "begins with \"\""),
        (good.replace("corten-kept 1", "corten-kept 2"), "reads"),
        (good.replace("\"a\"", "\"x\""), "digest"),
        (good.replace("\"b\"", "\"x\""), "digest"),
        (good.replace('{', "["), "digest"),
    ] {
        let what = refused(&text);
        assert!(what.contains(wanted), "{what}");
    }
    assert!(Past::load(&folder.0).is_none());
    // Half a line is a process that ended in the middle of it.
    let cut = good.len() - 3;
    fs::write(folder.0.join("world"), &good[..cut]).expect("written");
    let past = Past::load(&folder.0).expect("a past");
    assert_eq!(past.records.len(), 1);
}

#[test]
fn a_journal_is_written_anew_without_what_is_outdated() {
    let folder = Folder::new("compact");
    fs::create_dir_all(&folder.0).expect("folder");
    let path = folder.0.join("world");
    let mut journal = Journal::begin(&path).expect("begun");
    let line = |cordoned| {
        let event = node("a", cordoned);
        Record::of(&event)
            .expect("a record")
            .line()
            .expect("a line")
    };
    journal.push(&line(false));
    journal.complete().expect("complete");
    assert!(!journal.is_large());
    let size = fs::metadata(&path).expect("a file").len();
    while !journal.is_large() {
        for _ in 0..1000 {
            journal.push(&line(false));
        }
        journal.push(&line(true));
        journal.flush().expect("written");
    }
    let mut journal = journal.compact().expect("compacted");
    assert!(fs::metadata(&path).expect("a file").len() <= size + 8);
    assert!(!journal.is_large());
    // It goes on where it was.
    journal.push(&line(false));
    journal.flush().expect("written");
    let records = journal::read(&path).expect("read").expect("there");
    assert_eq!(records, [Record::of(&node("a", false)).expect("a record")]);
}
