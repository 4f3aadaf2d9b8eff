//! Kernel settings of connection tracking, kube-proxy's (`spec/dataplane.md` §1.11) under its flags'
//! names. Whoever may writes them: `corten sysctl --conntrack`, as the agents' init container runs
//! it, or the agent itself. What cannot be written is said; nothing ends for it.

use std::fs;
use std::io;
use std::path::Path;

use api::duration::Duration;

/// kube-proxy's bound of what many CPUs ask for.
const MOST: u64 = 1 << 20;
/// Where the kernel has its files.
const ROOT: &str = "/";
/// The CPUs that are on, not those that this process may use: the limit is the machine's.
const CPUS: &str = "sys/devices/system/cpu/online";
/// Connections for each bucket of the table.
const LOAD: u64 = 4;

#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub(super) struct Conntrack {
    /// With --forward all: room for so many connections, for each CPU; a limit that is higher
    /// stays; 0: leave the limit as it is.
    #[arg(long, value_name = "NUMBER", default_value_t = 32_768)]
    conntrack_max_per_core: u64,
    /// Room for so many at least.
    #[arg(long, value_name = "NUMBER", default_value_t = 131_072)]
    conntrack_min: u64,
    /// How long a TCP connection may be silent; 0s: leave it as it is.
    #[arg(long, value_name = "DURATION", default_value = "24h0m0s", value_parser = seconds)]
    conntrack_tcp_timeout_established: Seconds,
    /// How long one is kept that only the other end has closed; 0s: leave it as it is.
    #[arg(long, value_name = "DURATION", default_value = "1h0m0s", value_parser = seconds)]
    conntrack_tcp_timeout_close_wait: Seconds,
    /// Take TCP packets outside the window for good ones.
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value = "false", default_missing_value = "true",
        value_parser = super::serving::go_bool)]
    conntrack_tcp_be_liberal: bool,
    /// How long a UDP connection without an answer is kept; 0s: leave it as it is.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = seconds)]
    conntrack_udp_timeout: Seconds,
    /// How long one with answers is kept; 0s: leave it as it is.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = seconds)]
    conntrack_udp_timeout_stream: Seconds,
}

/// Whole seconds, as the kernel has them.
pub(super) type Seconds = u64;

impl Conntrack {
    /// These options as `conntrack` of KubeProxyConfiguration (v1alpha1).
    pub(super) fn configuration(&self) -> serde_json::Value {
        serde_json::json!({
            "maxPerCore": self.conntrack_max_per_core,
            "min": self.conntrack_min,
            "tcpEstablishedTimeout": in_go(self.conntrack_tcp_timeout_established),
            "tcpCloseWaitTimeout": in_go(self.conntrack_tcp_timeout_close_wait),
            "tcpBeLiberal": self.conntrack_tcp_be_liberal,
            "udpTimeout": in_go(self.conntrack_udp_timeout),
            "udpStreamTimeout": in_go(self.conntrack_udp_timeout_stream),
        })
    }
}

/// As Go writes a duration of whole seconds: `24h0m0s`.
pub(super) fn in_go(seconds: Seconds) -> String {
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

/// A duration as Go's flags take it.
pub(super) fn seconds(text: &str) -> Result<Seconds, String> {
    let duration = Duration::parse(text).map_err(|error| error.to_string())?;
    u64::try_from(duration.whole_secs()).map_err(|_| "it cannot be negative".to_owned())
}

/// A file of the kernel and what is to be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    path: &'static str,
    value: u64,
    /// More is right too.
    at_least: bool,
}

impl Wanted {
    const fn exactly(path: &'static str, value: u64) -> Self {
        Self {
            path,
            value,
            at_least: false,
        }
    }

    const fn at_least(path: &'static str, value: u64) -> Self {
        Self {
            path,
            value,
            at_least: true,
        }
    }

    /// Makes it so. False where it was.
    fn apply(self, root: &Path) -> io::Result<bool> {
        let path = root.join(self.path);
        // What does not read as a number is set.
        let there: Option<u64> = fs::read_to_string(&path)?.trim().parse().ok();
        let right = there.is_some_and(|there| match self.at_least {
            true => there >= self.value,
            false => there == self.value,
        });
        if !right {
            fs::write(&path, self.value.to_string())?;
        }
        Ok(!right)
    }

    /// What is wrong, and what to do about it.
    fn words(self, error: &io::Error) -> String {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => "load the module nf_conntrack on this node",
            _ => {
                "run `corten sysctl --conntrack` as root in the node's own network namespace (the \
                 chart's init container does), or leave it as it is with 0 (--conntrack-…)"
            }
        };
        let (path, value) = (self.path, self.value);
        format!("/{path} cannot be made {value}: {error}; remedy: {remedy}")
    }
}

impl Conntrack {
    /// What is to be set on a machine with so many CPUs. The limit comes before the size of the
    /// table, which follows it.
    fn wanted(&self, cpus: u64) -> Vec<Wanted> {
        let mut all = Vec::new();
        if self.conntrack_max_per_core > 0 {
            let scaled = self.conntrack_max_per_core.saturating_mul(cpus).min(MOST);
            let max = scaled.max(self.conntrack_min);
            all.push(Wanted::at_least(
                "proc/sys/net/netfilter/nf_conntrack_max",
                max,
            ));
            let size = "sys/module/nf_conntrack/parameters/hashsize";
            all.push(Wanted::at_least(size, max / LOAD));
        }
        let times = [
            (
                "proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established",
                self.conntrack_tcp_timeout_established,
            ),
            (
                "proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait",
                self.conntrack_tcp_timeout_close_wait,
            ),
            (
                "proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal",
                u64::from(self.conntrack_tcp_be_liberal),
            ),
            (
                "proc/sys/net/netfilter/nf_conntrack_udp_timeout",
                self.conntrack_udp_timeout,
            ),
            (
                "proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream",
                self.conntrack_udp_timeout_stream,
            ),
        ];
        let times = times.into_iter().filter(|(_, value)| *value > 0);
        all.extend(times.map(|(path, value)| Wanted::exactly(path, value)));
        all
    }

    /// Makes the kernel's settings so; what cannot be, each with the remedy.
    pub(super) fn apply(&self) -> Vec<String> {
        self.apply_below(Path::new(ROOT))
    }

    fn apply_below(&self, root: &Path) -> Vec<String> {
        let cpus = fs::read_to_string(root.join(CPUS)).ok();
        let cpus = cpus.and_then(|text| count(&text)).or_else(|| {
            let mine = std::thread::available_parallelism();
            mine.ok().map(|count| count.get() as u64)
        });
        let mut failed = Vec::new();
        for wanted in self.wanted(cpus.unwrap_or(1)) {
            match wanted.apply(root) {
                Ok(true) => tracing::info!(path = wanted.path, value = wanted.value, "set"),
                Ok(false) => {}
                Err(error) => failed.push(wanted.words(&error)),
            }
        }
        for words in &failed {
            tracing::warn!("connection tracking: {words}");
        }
        failed
    }
}

/// How many numbers a list like `0-3,8` has.
fn count(list: &str) -> Option<u64> {
    let mut all = 0;
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        all += last.checked_sub(first)? + 1;
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        conntrack: Conntrack,
    }

    fn parse(line: &str) -> Result<Conntrack, String> {
        let words = std::iter::once("corten").chain(line.split_whitespace());
        let parsed = Line::try_parse_from(words).map_err(|error| error.to_string());
        parsed.map(|line| line.conntrack)
    }

    /// What is wanted, with the last part of each path.
    fn wanted(line: &str, cpus: u64) -> String {
        let all = parse(line).expect(line).wanted(cpus).into_iter();
        let words = all.map(|it| {
            let name = it.path.rsplit('/').next().unwrap_or_default();
            let name = name.trim_start_matches("nf_conntrack_");
            let sign = if it.at_least { ">=" } else { "=" };
            format!("{name}{sign}{}", it.value)
        });
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_flags_and_their_defaults_are_kube_proxys() {
        let times = "tcp_timeout_established=86400 tcp_timeout_close_wait=3600";
        let with = |max: u64| format!("max>={max} hashsize>={} {times}", max / 4);
        let table = [
            ("", 1, with(131_072)),
            ("", 4, with(131_072)),
            ("", 16, with(524_288)),
            // Many CPUs ask for no more than that.
            ("", 256, with(1_048_576)),
            ("--conntrack-min=2000000", 256, with(2_000_000)),
            (
                "--conntrack-max-per-core=1000 --conntrack-min=100",
                8,
                with(8000),
            ),
            ("--conntrack-max-per-core=0", 8, times.to_owned()),
            (
                "--conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 \
                 --conntrack-tcp-timeout-close-wait=0s --conntrack-tcp-be-liberal \
                 --conntrack-udp-timeout=1m30s --conntrack-udp-timeout-stream=2.5s",
                1,
                "tcp_be_liberal=1 udp_timeout=90 udp_timeout_stream=2".to_owned(),
            ),
            (
                "--conntrack-max-per-core=0 --conntrack-tcp-be-liberal=false",
                1,
                times.to_owned(),
            ),
        ];
        for (line, cpus, expected) in table {
            assert_eq!(wanted(line, cpus), expected, "{line:?} with {cpus}");
        }
        for line in [
            "--conntrack-udp-timeout=-1s",
            "--conntrack-udp-timeout=5",
            "--conntrack-min=-1",
            "--conntrack-tcp-be-liberal=maybe",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn cpus_are_counted() {
        for (list, number) in [
            ("0\n", Some(1)),
            ("0-1\n", Some(2)),
            ("0-3,8,10-11", Some(7)),
            ("", None),
            ("3-1", None),
            ("a-b", None),
        ] {
            assert_eq!(count(list), number, "{list:?}");
        }
    }

    /// Files as the kernel has them, with these values.
    fn kernel(name: &str, values: &[(&str, &str)]) -> PathBuf {
        let folder = format!("corten-conntrack-{name}-{}", std::process::id());
        let root = std::env::temp_dir().join(folder);
        for (path, value) in values {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, format!("{value}\n")).expect("written");
        }
        root
    }

    const MAX: &str = "proc/sys/net/netfilter/nf_conntrack_max";
    const SIZE: &str = "sys/module/nf_conntrack/parameters/hashsize";
    const ESTABLISHED: &str = "proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established";

    #[test]
    fn a_larger_limit_stays_and_times_are_as_wanted() {
        let line = "--conntrack-tcp-timeout-close-wait=0";
        let table = [
            (
                ["0-7", "65536", "16384", "432000"],
                ["262144", "65536", "86400"],
            ),
            (
                ["0-7", "1000000", "16384", "60"],
                ["1000000", "65536", "86400"],
            ),
            (
                ["0", "131072", "500000", "86400"],
                ["131072", "500000", "86400"],
            ),
        ];
        for (number, ([cpus, max, size, time], expected)) in table.into_iter().enumerate() {
            let there = [(CPUS, cpus), (MAX, max), (SIZE, size), (ESTABLISHED, time)];
            let root = kernel(&number.to_string(), &there);
            let conntrack = parse(line).expect("good");
            assert_eq!(conntrack.apply_below(&root), [""; 0]);
            let read = |path: &str| fs::read_to_string(root.join(path)).expect("read");
            let found = [MAX, SIZE, ESTABLISHED].map(|path| read(path).trim().to_owned());
            assert_eq!(found, expected, "{there:?}");
            fs::remove_dir_all(&root).expect("removed");
        }
    }

    #[test]
    fn what_cannot_be_written_is_said_and_the_rest_is_done() {
        let root = kernel("lacks", &[(CPUS, "0"), (ESTABLISHED, "5")]);
        // A folder in the file's place: nobody can read it as one, root neither.
        fs::create_dir_all(root.join(SIZE)).expect("made");
        let conntrack = parse("--conntrack-tcp-timeout-close-wait=0").expect("good");
        let failed = conntrack.apply_below(&root);
        assert_eq!(failed.len(), 2, "{failed:?}");
        assert!(
            failed[0].contains("/proc/sys/net/netfilter/nf_conntrack_max cannot be made 131072")
                && failed[0].contains("remedy: load the module nf_conntrack"),
            "{failed:?}"
        );
        assert!(
            failed[1].contains("hashsize cannot be made 32768")
                && failed[1].contains("`corten sysctl --conntrack`"),
            "{failed:?}"
        );
        let time = fs::read_to_string(root.join(ESTABLISHED)).expect("read");
        assert_eq!(time, "86400");
        fs::remove_dir_all(&root).expect("removed");
    }
}
