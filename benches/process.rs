//! A server process under measurement: started, read from `/proc`, stopped.

use std::error::Error;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server and where it listens. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

/// Resident memory in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Everything resident.
    pub(crate) rss: u64,
    /// What is resident and this process's alone.
    pub(crate) private: u64,
}

impl Server {
    /// Starts the command; its first line on stdout that holds `listening ADDRESS` ends the wait.
    pub(crate) fn start(command: &mut Command) -> Result<Self, Box<dyn Error>> {
        let mut child = command
            // The memory of a process that refuses core dumps is shown to root only.
            .env("COUNTERSIGN_DEBUG", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut out = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut seen = String::new();
        let address = loop {
            let mut line = String::new();
            if out.read_line(&mut line)? == 0 {
                let status = child.wait()?;
                return Err(
                    format!("{command:?} ended with {status} before it listened: {seen}").into(),
                );
            }
            if let Some(at) = line.find("listening ") {
                let rest = line[at + "listening ".len()..].trim_start_matches("on ");
                if let Some(address) = rest
                    .split_whitespace()
                    .next()
                    .and_then(|word| word.parse().ok())
                {
                    break address;
                }
            }
            seen.push_str(&line);
        };
        // Nobody reads on; a server that says more must not stop at a full pipe.
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        Ok(Self { child, address })
    }

    /// Starts the command, which listens at `address`, and waits until it does.
    pub(crate) fn start_at(
        command: &mut Command,
        address: SocketAddr,
    ) -> Result<Self, Box<dyn Error>> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut errors = child.stderr.take().expect("stderr is piped");
        let said = std::thread::spawn(move || {
            use std::io::Read as _;
            let mut beginning = Vec::new();
            let _ = errors.by_ref().take(16 * 1024).read_to_end(&mut beginning);
            let _ = std::io::copy(&mut errors, &mut std::io::sink());
            String::from_utf8_lossy(&beginning).into_owned()
        });
        let until = Instant::now() + Duration::from_secs(30);
        let mut server = Self { child, address };
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                let said = said.join().unwrap_or_default();
                return Err(format!("{command:?} ended with {status}: {said}").into());
            }
            if Instant::now() > until {
                return Err(format!("{command:?} does not listen at {address} after 30 s").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time of all threads so far.
    ///
    /// The scheduler's own nanoseconds of the threads that live; where the kernel does not keep
    /// them, user and system time at 10 ms resolution.
    pub(crate) fn cpu(&self) -> Result<Duration, Box<dyn Error>> {
        cpu(self.pid())
    }

    pub(crate) fn memory(&self) -> Result<Memory, Box<dyn Error>> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid()))?;
        let field = |name: &str| -> u64 {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_whitespace().nth(1))
                .and_then(|n| n.parse::<u64>().ok())
                .unwrap_or(0)
                * 1024
        };
        Ok(Memory {
            rss: field("Rss:"),
            private: field("Private_Clean:") + field("Private_Dirty:"),
        })
    }

    /// Memory once it has stopped moving (or after 10 s).
    pub(crate) fn settled_memory(&self) -> Result<Memory, Box<dyn Error>> {
        let mut last = self.memory()?;
        for _ in 0..10 {
            std::thread::sleep(Duration::from_secs(1));
            let now = self.memory()?;
            if now.rss.abs_diff(last.rss) < 64 * 1024 {
                return Ok(now);
            }
            last = now;
        }
        Ok(last)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cpu(pid: u32) -> Result<Duration, Box<dyn Error>> {
    let mut nanos = 0u64;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the reading.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        nanos += text
            .split_whitespace()
            .next()
            .and_then(|n| n.parse::<u64>().ok())
            .unwrap_or(0);
    }
    if nanos > 0 {
        return Ok(Duration::from_nanos(nanos));
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit(')').next().unwrap_or("");
    let ticks: u64 = after
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|n| n.parse::<u64>().ok())
        .sum();
    Ok(Duration::from_millis(ticks * 10))
}
