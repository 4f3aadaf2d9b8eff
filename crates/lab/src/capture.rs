//! Captures: all frames of a segment, in a pcap file that tcpdump and Wireshark read.
//!
//! A thread writes each frame as it comes, so that the file is there however the test ends. When
//! it is full it becomes `<segment>.old.pcap`, and a new one starts: what is kept is the end.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use linux::capture::CaptureSocket;

/// A capture is at most two files of this size.
const FULL: u64 = 32 << 20;
/// Longer frames are cut.
const SNAP_LENGTH: usize = 2048;
/// How soon the thread hears that it shall end.
const LISTEN: Duration = Duration::from_millis(20);

/// A running capture. Dropping it writes what has come in so far.
#[derive(Debug)]
pub(crate) struct Capture {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    pub(crate) fn start(socket: CaptureSocket, path: PathBuf) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut file = Pcap::create(&path, FULL)?;
        let thread = std::thread::Builder::new()
            .name("capture".to_owned())
            .spawn(move || {
                if let Err(e) = copy(&socket, &mut file, &stopped) {
                    eprintln!("the capture {} ends early: {e}", path.display());
                }
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    pub(crate) fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop();
    }
}

fn copy(socket: &CaptureSocket, file: &mut Pcap, stop: &AtomicBool) -> io::Result<()> {
    let mut buffer = [0; SNAP_LENGTH];
    loop {
        // Read before the frames are, so that all that came before the stop is taken.
        let last = stop.load(Ordering::Relaxed);
        loop {
            match socket.recv(&mut buffer) {
                Ok(length) => file.frame(
                    SystemTime::now(),
                    &buffer[..length.min(SNAP_LENGTH)],
                    length,
                )?,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        file.flush()?;
        if last {
            return Ok(());
        }
        socket.wait(LISTEN)?;
    }
}

/// A writer of pcap files: nanosecond stamps, Ethernet (draft-ietf-opsawg-pcap).
struct Pcap {
    path: PathBuf,
    file: BufWriter<File>,
    written: u64,
    full: u64,
}

impl Pcap {
    fn create(path: &Path, full: u64) -> io::Result<Self> {
        let mut pcap = Self {
            path: path.to_owned(),
            file: BufWriter::new(File::create(path)?),
            written: 0,
            full,
        };
        pcap.put(&0xa1b2_3c4d_u32.to_le_bytes())?;
        pcap.put(&[2, 0, 4, 0])?; // version 2.4
        pcap.put(&[0; 8])?;
        pcap.put(&(SNAP_LENGTH as u32).to_le_bytes())?;
        pcap.put(&1_u32.to_le_bytes())?; // LINKTYPE_ETHERNET
        pcap.file.flush()?;
        Ok(pcap)
    }

    fn frame(&mut self, at: SystemTime, captured: &[u8], length: usize) -> io::Result<()> {
        if self.written >= self.full {
            self.file.flush()?;
            std::fs::rename(&self.path, self.path.with_extension("old.pcap"))?;
            *self = Self::create(&self.path, self.full)?;
        }
        let at = at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        for field in [
            at.as_secs() as u32,
            at.subsec_nanos(),
            captured.len() as u32,
            length as u32,
        ] {
            self.put(&field.to_le_bytes())?;
        }
        self.put(captured)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_header_and_records() {
        let dir = std::env::temp_dir().join(format!("lab-pcap-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("folder");
        let path = dir.join("lan.pcap");
        let mut pcap = Pcap::create(&path, 60).expect("create");
        let at = SystemTime::UNIX_EPOCH + Duration::new(0x0102, 0x0304);
        for byte in 0..4 {
            pcap.frame(at, &[byte; 14], 1500).expect("frame");
        }
        pcap.flush().expect("flush");
        let old = std::fs::read(dir.join("lan.old.pcap")).expect("the full file");
        let new = std::fs::read(&path).expect("the current file");
        std::fs::remove_dir_all(&dir).expect("remove");
        assert_eq!(old.len(), 24 + 2 * (16 + 14));
        assert_eq!(old[..4], [0x4d, 0x3c, 0xb2, 0xa1]);
        assert_eq!(old[20..24], [1, 0, 0, 0]);
        assert_eq!(
            old[24..40],
            [2, 1, 0, 0, 4, 3, 0, 0, 14, 0, 0, 0, 0xdc, 5, 0, 0]
        );
        assert_eq!(new.len(), old.len());
        assert_eq!(new[40], 2, "the third frame is the first of the new file");
    }
}
