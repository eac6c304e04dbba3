//! Another process writes, and is killed or hits a limit. The test runs itself again as the writer.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use super::super::super::files::log_files;
use super::*;

const PATH: &str = "COUNTERSIGN_TEST_AUDIT_LOG";
const WRITER: &str = "audit::log::tests::crash::the_writer";

fn rotating(path: &str) -> AuditOptions {
    AuditOptions {
        rotate_bytes: 100_000,
        ..AuditOptions::new(path)
    }
}

/// Not a test of its own: the process that the others start. It says each record that was
/// committed.
#[tokio::test]
async fn the_writer() {
    #[expect(
        clippy::disallowed_methods,
        reason = "how the test tells its other process"
    )]
    let Ok(path) = std::env::var(PATH) else {
        return;
    };
    let log = AuditLog::open(rotating(&path)).unwrap().0;
    let facts = facts(1);
    for id in 0..200_000 {
        match call(&log, &facts, id).await {
            Ok(ticket) => {
                println!("committed {}", ticket.seq());
                log.outcome(&facts, ticket, Outcome::Ok, None);
            }
            Err(error) => {
                println!("refused {error}");
                // Without the destructors: as if it were killed here.
                #[expect(
                    clippy::exit,
                    clippy::disallowed_methods,
                    reason = "the destructors must not run"
                )]
                std::process::exit(0);
            }
        }
    }
}

fn writer(path: &Path, before: &str) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{before} exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", WRITER, "--nocapture", "--test-threads=1"])
        .env(PATH, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

#[test]
fn nothing_that_was_committed_is_lost_by_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let mut seed = 42_u64;
    let mut last = 0;
    for _ in 0..12 {
        let mut child = writer(&path, "").spawn().unwrap();
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let wanted = 1 + (seed >> 33) % 700;
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut seen = 0;
        let mut line = String::new();
        while seen < wanted && lines.read_line(&mut line).unwrap() > 0 {
            seen += u64::from(line.contains("committed "));
            line.clear();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died counts as well; its last word may be torn.
        let mut rest = Vec::new();
        lines.read_to_end(&mut rest).unwrap();
        let rest = String::from_utf8_lossy(&rest);
        let whole = rest.rfind('\n').map_or("", |end| &rest[..end]);
        let said = whole
            .lines()
            .rev()
            .find_map(|l| l.split("committed ").nth(1)?.parse().ok());
        assert_eq!(seen, wanted);
        let (log, recovery) = AuditLog::open(rotating(&path.display().to_string())).unwrap();
        assert!(recovery.records >= said.unwrap_or(0));
        assert!(recovery.records >= last + wanted, "{recovery:?}");
        drop(log);
        last = assert_intact(&log_files(&path).unwrap()).records;
    }
    assert!(log_files(&path).unwrap().len() > 2);
}

#[test]
fn a_limit_of_the_system_refuses_the_call_and_leaves_whole_records() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    // In blocks of 512 bytes; the signal is ignored, so that the write fails like on a full disk.
    let out = writer(&path, "trap '' XFSZ; ulimit -f 40;")
        .output()
        .unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(said.contains("refused the audit log"), "{said}");
    let committed = said.matches("committed ").count();
    assert!(committed > 10);
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(
        bytes.last(),
        Some(&b'\n'),
        "the half record was not cut off"
    );
    let decisions = records(&path)
        .iter()
        .filter(|r| r["event"] == "decision")
        .count();
    assert_eq!(decisions, committed);
    let (log, recovery) = AuditLog::open(rotating(&path.display().to_string())).unwrap();
    assert_eq!(recovery.set_aside, None);
    drop(log);
    assert_intact(&[&path]);
}
