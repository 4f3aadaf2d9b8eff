//! One object of the API server, watched by its name: that it is there, and its metadata.
//!
//! RBAC gives such a watch for a single name.

use std::pin::pin;
use std::time::Duration;

use futures::TryStreamExt;
use kube::Error;
use kube::api::{Api, ListParams, PartialObjectMeta, WatchEvent, WatchParams};
use serde::de::DeserializeOwned;

use crate::backoff::Backoff;

/// Bounds of the time between two tries.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(8));

/// For ever: tells of the object as it is, and of each change; `None` is one that is not there.
pub(crate) async fn follow<K>(
    objects: Api<K>,
    name: &str,
    mut tell: impl FnMut(Option<&PartialObjectMeta<K>>),
    failed: impl Fn(&Error),
) where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    loop {
        match observe(&objects, name, &mut tell).await {
            Ok(()) => backoff.reset(),
            Err(error) => failed(&error),
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

/// One list and one watch.
async fn observe<K>(
    objects: &Api<K>,
    name: &str,
    tell: &mut impl FnMut(Option<&PartialObjectMeta<K>>),
) -> Result<(), Error>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let only = format!("metadata.name={name}");
    let list = ListParams::default().fields(&only);
    let list = objects.list_metadata(&list).await?;
    tell(list.items.first());
    let version = list.metadata.resource_version.unwrap_or_default();
    let watch = WatchParams::default().fields(&only);
    let mut events = pin!(objects.watch_metadata(&watch, &version).await?);
    while let Some(event) = events.try_next().await? {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => tell(Some(&object)),
            WatchEvent::Deleted(_) => tell(None),
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(status) => return Err(Error::Api(status)),
        }
    }
    Ok(())
}
