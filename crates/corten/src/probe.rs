//! Has this very Pod's agent started? The kubelet asks by `corten probe`, run in the container.
//!
//! While one agent follows another on a node, both have the node's network, and the port for probes
//! is the first one's. So each has a socket of its own as well: an abstract unix socket that bears
//! its Pod's UID. The startup probe asks there; the kubelet's other probes begin when it has
//! succeeded. An agent has started when it serves its node, or is ready to follow the one that does.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::status::Health;

/// What an agent says that has started.
const STARTED: &str = "started";
/// After a connection that could not be accepted.
const RETRY: Duration = Duration::from_millis(50);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The socket cannot be had.
    #[error("cannot listen on {name} for the startup probe")]
    Listen {
        /// Its name.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Nobody answers.
    #[error("the agent of this Pod does not answer on {name}")]
    Ask {
        /// The socket's name.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It answers.
    #[error("not started: {0}")]
    NotStarted(String),
}

/// Answers the startup probe until it is dropped.
#[derive(Debug)]
pub struct Door {
    serves: Arc<AtomicBool>,
    _listening: JoinSet<()>,
}

/// The socket's name, as tools write it; an abstract name begins with a zero.
fn shown(pod: &str) -> String {
    format!("@corten-probe-{pod}")
}

fn name(pod: &str) -> String {
    shown(pod).replacen('@', "\0", 1)
}

impl Door {
    /// Begins to answer for the Pod with this UID.
    ///
    /// # Errors
    /// When another process has the socket.
    pub fn open(pod: &str, health: Health) -> Result<Self, ProbeError> {
        let listener = UnixListener::bind(name(pod)).map_err(|source| ProbeError::Listen {
            name: shown(pod),
            source,
        })?;
        let serves = Arc::new(AtomicBool::new(false));
        let serving = serves.clone();
        let mut listening = JoinSet::new();
        listening.spawn(async move {
            loop {
                let Ok((mut stream, _)) = listener.accept().await else {
                    // No descriptors left.
                    tokio::time::sleep(RETRY).await;
                    continue;
                };
                let waits = match serving.load(Ordering::Acquire) {
                    true => None,
                    false => health.unready(),
                };
                let answer = waits.unwrap_or_else(|| STARTED.to_owned());
                // Who has gone does not want it.
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Ok(Self {
            serves,
            _listening: listening,
        })
    }

    /// The agent serves its node now, and answers all other probes itself.
    pub fn serves(&self) {
        self.serves.store(true, Ordering::Release);
    }
}

/// Asks the agent of the Pod with this UID.
///
/// # Errors
/// When it has not started, with its reason, or does not answer.
pub async fn ask(pod: &str) -> Result<(), ProbeError> {
    let answered = async {
        let mut stream = UnixStream::connect(name(pod)).await?;
        if !is_ours(&stream)? {
            return Err(io::Error::other("the socket is another user's"));
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    match answered.await {
        Ok(answer) if answer == STARTED => Ok(()),
        Ok(answer) => Err(ProbeError::NotStarted(answer)),
        Err(source) => Err(ProbeError::Ask {
            name: shown(pod),
            source,
        }),
    }
}

/// Whether the other end runs as this process's user.
pub(crate) fn is_ours(stream: &UnixStream) -> io::Result<bool> {
    // The owner of a process's own folder is its effective user.
    use std::os::unix::fs::MetadataExt as _;
    let own = std::fs::metadata("/proc/self")?.uid();
    Ok(stream.peer_cred()?.uid() == own)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn said(pod: &str) -> String {
        match ask(pod).await {
            Ok(()) => STARTED.to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn two_pods_of_a_node_each_answer_for_themselves() {
        let pod = |number: u8| format!("test-{}-{number}", std::process::id());
        let (first, second) = (pod(1), pod(2));
        let healths = [Health::default(), Health::default()];
        let one = Door::open(&first, healths[0].clone()).expect("free");
        let _two = Door::open(&second, healths[1].clone()).expect("free");
        assert!(Door::open(&first, Health::default()).is_err());
        one.serves();
        healths[1].set_obstacle("Service", Some("no right to list".to_owned()));
        assert_eq!(said(&first).await, STARTED, "its own port tells the rest");
        let waits = said(&second).await;
        assert!(waits.starts_with("not started: waiting"), "{waits}");
        assert!(waits.ends_with("; no right to list"), "{waits}");
        healths[1].set_standby(true);
        assert_eq!(said(&second).await, STARTED, "ready to follow");
        drop(one);
        tokio::task::yield_now().await;
        let gone = ask(&first).await.expect_err("nobody");
        assert!(matches!(gone, ProbeError::Ask { .. }), "{gone}");
    }
}
