use std::fs;
use std::net::IpAddr;

use super::*;
use crate::state::Holding;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("corten-dir-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("folder");
        Self(folder)
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.0.join(file), text).expect("written");
    }

    fn directory(&self) -> Directory {
        let duties = Duties {
            tells: true,
            keeps: true,
        };
        Directory::new(&self.0, "metallb-system", duties)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{type: LoadBalancer, ports: [{{port: {port}}}]}}\n---\n"
    )
}

/// `+a` for a Service that is there or has changed, `-a` for one that is gone.
fn told(events: Vec<Event>) -> Vec<String> {
    let mut told: Vec<String> = events
        .into_iter()
        .filter_map(|event| match event {
            Event::Service { key, form } => Some(format!(
                "{}{}",
                if form.is_some() { '+' } else { '-' },
                key.name
            )),
            _ => None,
        })
        .collect();
    told.sort();
    told
}

#[test]
fn every_edit_is_seen_however_quick_and_alike() {
    let folder = Folder::new("quick");
    let mut directory = folder.directory();
    folder.write("a.yaml", &service("a", 8000));
    assert_eq!(told(directory.read()), ["+a"]);
    // Within one tick of the file system's clock, and of the same size.
    for port in 8001..8200 {
        folder.write("a.yaml", &service("a", port));
        assert_eq!(told(directory.read()), ["+a"], "port {port}");
        assert_eq!(told(directory.read()), [""; 0]);
    }
    fs::remove_file(folder.0.join("a.yaml")).expect("removed");
    assert_eq!(told(directory.read()), ["-a"]);
}

#[test]
fn a_file_renamed_over_another_is_seen() {
    let folder = Folder::new("rename");
    let mut directory = folder.directory();
    folder.write("a.yaml", &service("a", 8000));
    folder.write("next", &service("a", 8001));
    directory.read();
    fs::rename(folder.0.join("next"), folder.0.join("a.yaml")).expect("renamed");
    assert_eq!(told(directory.read()), ["+a"]);
}

#[test]
fn what_a_broken_or_emptied_file_replaced_stays() {
    let folder = Folder::new("broken");
    let mut directory = folder.directory();
    let two = service("a", 80) + &service("b", 80);
    folder.write("a.yaml", &two);
    assert_eq!(told(directory.read()), ["+a", "+b"]);
    folder.write("a.yaml", "");
    assert_eq!(told(directory.read()), [""; 0], "empty");
    folder.write("a.yaml", &two.replacen("port: 80", "port: eighty", 1));
    assert_eq!(told(directory.read()), [""; 0], "one broken");
    folder.write("a.yaml", &(service("a", 81) + "spec: {"));
    assert_eq!(told(directory.read()), ["+a"], "one changed, one cut off");
    folder.write("a.yaml", &service("a", 81));
    assert_eq!(told(directory.read()), ["-b"], "mended");
    folder.write("a.yaml", "# nothing\n");
    assert_eq!(told(directory.read()), ["-a"], "on purpose");
}

#[test]
fn an_unreadable_state_file_leaves_what_was_told() {
    let folder = Folder::new("state");
    let mut directory = folder.directory();
    folder.write("a.yaml", &service("a", 80));
    directory.read();
    let holding = Holding {
        addresses: vec![IpAddr::from([10, 0, 0, 1])],
        pool: None,
    };
    let holdings = State {
        services: Holdings::from([("default/a".to_owned(), holding)]),
        ..State::default()
    };
    state::store(&folder.0, &holdings).expect("stored");
    assert_eq!(told(directory.read()), ["+a"], "it has an address now");
    fs::write(state::path(&folder.0), "{").expect("written");
    folder.write("b.yaml", &service("b", 80));
    assert_eq!(told(directory.read()), [""; 0]);
    state::store(&folder.0, &holdings).expect("stored");
    assert_eq!(told(directory.read()), ["+b"]);
}

#[test]
fn holdings_of_services_that_went_unnoticed_are_told_once_no_file_is_broken() {
    let folder = Folder::new("orphans");
    let holdings = Holdings::from([
        ("default/a".to_owned(), Holding::default()),
        ("default/b".to_owned(), Holding::default()),
    ]);
    let state = State {
        services: holdings,
        ..State::default()
    };
    state::store(&folder.0, &state).expect("stored");
    folder.write("a.yaml", &service("a", 80));
    folder.write("b.yaml", &service("b", 80).replace("80", "eighty"));
    let mut directory = folder.directory();
    assert_eq!(
        told(directory.read()),
        ["+a"],
        "b may be in the broken file"
    );
    fs::remove_file(folder.0.join("b.yaml")).expect("removed");
    assert_eq!(told(directory.read()), ["-b"]);
    assert_eq!(told(directory.read()), [""; 0]);
}

/// A start anew with a broken file goes on with what it said, and with what is new in it.
#[test]
fn a_broken_file_means_what_it_said_before_the_start() {
    let folder = Folder::new("copies");
    folder.write("a.yaml", &(service("a", 80) + &service("b", 80)));
    folder.write("c.yaml", &service("c", 80));
    assert_eq!(told(folder.directory().read()), ["+a", "+b", "+c"]);
    folder.write("a.yaml", &(service("a", 81) + "spec: {"));
    let mut directory = folder.directory();
    assert_eq!(told(directory.read()), ["+a", "+b", "+c"], "broken");
    assert!(directory.is_complete());
    for (file, text) in [("a.yaml", "}{"), ("c.yaml", "")] {
        folder.write(file, text);
        assert_eq!(
            told(folder.directory().read()),
            ["+a", "+b", "+c"],
            "{file}"
        );
    }
    folder.write("a.yaml", &service("a", 81));
    folder.write("c.yaml", "# nothing\n");
    assert_eq!(told(directory.read()), ["-b", "-c"], "mended");
    assert_eq!(told(folder.directory().read()), ["+a"], "mended, anew");
    // Without its file a copy is nothing.
    fs::remove_file(folder.0.join("a.yaml")).expect("removed");
    assert_eq!(told(directory.read()), ["-a"]);
    folder.write("a.yaml", "}{");
    assert_eq!(told(folder.directory().read()), [""; 0]);
}

#[test]
fn nothing_is_decided_while_what_a_broken_file_said_is_not_known() {
    let folder = Folder::new("unknown");
    let copy = folder.0.join(".corten/good/a.yaml");
    folder.write("a.yaml", "}{");
    let mut directory = folder.directory();
    directory.read();
    assert!(directory.is_complete(), "nobody holds an address");
    let holding = ("default/a".to_owned(), Holding::default());
    let state = State {
        services: Holdings::from([holding]),
        ..State::default()
    };
    state::store(&folder.0, &state).expect("stored");
    folder.write("a.yaml", &service("a", 80));
    folder.directory().read();
    let good = fs::read(&copy).expect("a copy");
    folder.write("a.yaml", "}{");
    for copied in [None, Some(&good[..good.len() - 1]), Some(b"\n"), Some(b"")] {
        match copied {
            Some(copied) => fs::write(&copy, copied).expect("written"),
            None => fs::remove_file(&copy).expect("removed"),
        }
        let mut directory = folder.directory();
        assert!(!directory.is_complete(), "not read yet");
        assert_eq!(told(directory.read()), [""; 0]);
        assert!(!directory.is_complete(), "{copied:?}");
        // Another fault is no mending.
        folder.write("a.yaml", "{");
        directory.read();
        assert!(!directory.is_complete(), "{copied:?}");
    }
    let mut directory = folder.directory();
    directory.read();
    folder.write("a.yaml", &service("a", 80));
    assert_eq!(told(directory.read()), ["+a"]);
    assert!(directory.is_complete(), "mended");
}

#[test]
fn a_node_is_asked_to_drain_by_a_file() {
    let folder = Folder::new("drain");
    folder.write(
        "nodes.yaml",
        "apiVersion: v1\nkind: Node\nmetadata: {name: n}\n---\n\
         apiVersion: v1\nkind: Node\nmetadata: {name: other}\n",
    );
    let mut directory = folder.directory();
    let mut leaving = || -> Vec<(String, bool)> {
        let events = directory.read().into_iter();
        let nodes = events.filter_map(|event| match event {
            Event::Node { name, form } => Some((name.to_string(), form?.leaves())),
            _ => None,
        });
        nodes.collect()
    };
    let node = |name: &str, leaves| (name.to_owned(), leaves);
    assert_eq!(leaving(), [node("n", false), node("other", false)]);
    nodes::ask_to_drain(&folder.0, "n", true).expect("asked");
    assert_eq!(leaving(), [node("n", true)]);
    assert_eq!(leaving(), []);
    nodes::ask_to_drain(&folder.0, "n", false).expect("taken back");
    assert_eq!(leaving(), [node("n", false)]);
}
