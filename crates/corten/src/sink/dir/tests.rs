use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::Ordering;

use tokio::task::JoinSet;

use super::*;

/// Services that start at once.
const SERVICES: u32 = 10_000;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("corten-sink-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("folder");
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write(number: u32) -> ServiceWrite {
    ServiceWrite {
        service: ServiceKey::new("default", &format!("service-{number}")),
        resource_version: "".into(),
        ingress: vec![IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number))],
        pool: Some("pool".into()),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("runtime")
}

#[test]
fn changes_that_come_together_share_stores_and_are_on_disk_when_answered() {
    let folder = Folder::new("together");
    let sink = DirSink::open(&folder.0).expect("opened");
    runtime().block_on(async {
        let mut waiting = 0..SERVICES;
        let mut flying = JoinSet::new();
        let mut answered = 0u32;
        loop {
            for number in waiting.by_ref().take(DirSink::IN_FLIGHT - flying.len()) {
                let sink = sink.clone();
                flying.spawn(async move {
                    sink.write_service(&write(number)).await.expect("written");
                    number
                });
            }
            let Some(number) = flying.join_next().await else {
                break;
            };
            let number = number.expect("no panic");
            answered += 1;
            // A look at some is enough: each look reads the whole file.
            if answered.is_multiple_of(500) {
                let held = state::load(&folder.0).expect("a whole file at any moment");
                assert!(
                    held.services
                        .contains_key(&write(number).service.to_string()),
                    "service-{number} was answered, but is not on disk"
                );
            }
        }
    });
    assert_eq!(
        state::load(&folder.0).expect("loaded").services.len(),
        SERVICES as usize
    );
    let stores = sink.0.stores.load(Ordering::Relaxed);
    assert!(stores <= 20, "{stores} stores for {SERVICES} changes");
}

#[test]
fn what_is_on_disk_already_is_not_stored_again_unless_the_file_is_gone() {
    let folder = Folder::new("again");
    runtime().block_on(async {
        let sink = DirSink::open(&folder.0).expect("opened");
        sink.forget_service(&write(1).service)
            .await
            .expect("nothing to forget");
        assert_eq!(sink.0.stores.load(Ordering::Relaxed), 0);
        sink.write_service(&write(1)).await.expect("written");
        sink.write_service(&write(1)).await.expect("written");
        assert_eq!(sink.0.stores.load(Ordering::Relaxed), 1);
        fs::remove_file(state::path(&folder.0)).expect("removed");
        sink.write_service(&write(1)).await.expect("written");
        assert_eq!(state::load(&folder.0).expect("loaded").services.len(), 1);
    });
}

#[test]
fn a_store_that_failed_is_told_and_the_repetition_carries_the_change() {
    let folder = Folder::new("failed");
    runtime().block_on(async {
        let sink = DirSink::open(&folder.0).expect("opened");
        // A file where the folder should be: works for root too.
        fs::write(folder.0.join(state::FOLDER), b"").expect("written");
        let error = sink.write_service(&write(1)).await.expect_err("no folder");
        let text = crate::cli::chain(&error);
        assert!(text.contains("state.json"), "{text}");
        fs::remove_file(folder.0.join(state::FOLDER)).expect("removed");
        sink.write_service(&write(1)).await.expect("written");
        assert_eq!(state::load(&folder.0).expect("loaded").services.len(), 1);
    });
}
