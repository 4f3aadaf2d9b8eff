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
        Directory::new(&self.0, "metallb-system", true)
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
