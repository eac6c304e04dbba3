//! Files that follow each other, and logs that are opened again.

use std::path::PathBuf;

use super::super::super::files::{beside, log_files};
use super::*;

fn rotating(path: &Path, keep: u32) -> AuditLog {
    let mut options = AuditOptions::new(path);
    options.rotate_bytes = 2000;
    options.keep = keep;
    AuditLog::open(options).unwrap().0
}

fn write(log: &AuditLog, records: u64) {
    for id in 0..records {
        log.denied(&facts(1), &deny("a", id));
        log.0.flush_now();
    }
}

/// A log of some files, closed.
fn some_files(dir: &Path) -> PathBuf {
    let path = dir.join("audit.jsonl");
    write(&rotating(&path, 0), 20);
    assert!(log_files(&path).unwrap().len() > 3);
    path
}

#[test]
fn the_chain_goes_on_from_file_to_file_in_whatever_order_they_are_given() {
    let dir = tempfile::tempdir().unwrap();
    let path = some_files(dir.path());
    let mut files = log_files(&path).unwrap();
    let report = assert_intact(&files);
    assert_eq!(report.first.unwrap().seq, 1);
    files.reverse();
    let again = assert_intact(&files);
    assert_eq!((again.files, again.records), (report.files, report.records));
    for (n, file) in log_files(&path).unwrap().iter().enumerate() {
        let first = &records(file)[0];
        assert_eq!(
            first["event"],
            if n == 0 {
                "log_started"
            } else {
                "log_continued"
            }
        );
    }
    // The newer files alone are intact too.
    assert_intact(&log_files(&path).unwrap()[2..]);
}

#[test]
fn one_group_can_reach_over_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let log = rotating(&path, 0);
    for id in 0..30 {
        log.denied(&facts(1), &deny("a", id));
    }
    log.close().unwrap();
    assert_eq!(log.writes(), 1);
    assert!(log_files(&path).unwrap().len() > 4);
    assert_intact(&log_files(&path).unwrap());
}

#[test]
fn only_so_many_files_are_kept_and_their_numbers_grow() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    write(&rotating(&path, 2), 20);
    write(&rotating(&path, 2), 20);
    let files = log_files(&path).unwrap();
    assert_eq!(files.len(), 3);
    assert_ne!(files[0], beside(&path, ".1"));
    assert!(assert_intact(&files).first.unwrap().seq > 1);
}

#[test]
fn a_log_is_continued_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    for round in 0..5 {
        let (log, recovery) = AuditLog::open(AuditOptions::new(&path)).unwrap();
        assert_eq!(recovery.records, if round == 0 { 0 } else { round * 3 + 1 });
        assert_eq!(recovery.set_aside, None);
        write(&log, 3);
    }
    assert_eq!(assert_intact(&[&path]).records, 16);
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    let log = open(&path);
    let again = AuditLog::open(AuditOptions::new(&path));
    assert!(matches!(again, Err(AuditError::Busy { .. })));
    drop(log);
    open(&path);
}

#[test]
fn a_torn_end_is_set_aside_and_told() {
    let whole_line = |text: &str| format!("{text}\n").into_bytes();
    let torn: [Vec<u8>; 6] = [
        b"{".to_vec(),
        b"{\"seq\":5,\"prev\":\"00".to_vec(),
        vec![0; 4096],
        whole_line("not a record"),
        [whole_line("not a record"), b"{\"se".to_vec()].concat(),
        vec![b'x'; 300_000],
    ];
    for torn in torn {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        write(&open(&path), 3);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(&torn);
        std::fs::write(&path, &bytes).unwrap();
        let (log, recovery) = AuditLog::open(AuditOptions::new(&path)).unwrap();
        assert_eq!(
            (recovery.records, recovery.torn_bytes),
            (4, torn.len() as u64)
        );
        let aside = recovery.set_aside.unwrap();
        assert_eq!(aside, beside(&path, ".torn-5"));
        assert_eq!(std::fs::read(&aside).unwrap(), torn);
        write(&log, 1);
        let all = records(&path);
        assert_eq!(all[4]["event"], "log_recovered");
        assert_eq!(all[4]["set_aside"], aside.display().to_string());
        assert_eq!(assert_intact(&[&path, &aside]).records, 6);
    }
}

#[test]
fn a_crash_while_recovering_is_recovered_from() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    write(&open(&path), 3);
    let good = std::fs::read(&path).unwrap();
    let torn = [good.clone(), b"{\"seq\":5".to_vec()].concat();
    // Set aside and not cut off yet.
    std::fs::write(&path, &torn).unwrap();
    std::fs::write(beside(&path, ".torn-5"), b"{\"seq\":5").unwrap();
    let (log, recovery) = AuditLog::open(AuditOptions::new(&path)).unwrap();
    assert_eq!(recovery.set_aside, Some(beside(&path, ".torn-5")));
    drop(log);
    // Another tear in the same place is another file.
    std::fs::write(&path, [good, b"other".to_vec()].concat()).unwrap();
    let (log, recovery) = AuditLog::open(AuditOptions::new(&path)).unwrap();
    assert_eq!(recovery.set_aside, Some(beside(&path, ".torn-5-1")));
    drop(log);
    assert_intact(&[&path]);
}

#[test]
fn a_chain_that_is_broken_otherwise_is_not_continued() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    write(&open(&path), 5);
    let good = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    let n = lines.len();
    let altered = lines[n - 2].replace("false", "true ");
    for bad in [
        format!("{good}one\ntwo\n"),
        [&lines[..n - 2], &[lines[n - 1]]].concat().join("\n") + "\n",
        [&lines[..n - 2], &[altered.as_str(), lines[n - 1]]]
            .concat()
            .join("\n")
            + "\n",
        [&lines[..n - 2], &[lines[n - 1], lines[n - 2]]]
            .concat()
            .join("\n")
            + "\n",
        [&lines[..], &[lines[n - 1]]].concat().join("\n") + "\n",
    ] {
        std::fs::write(&path, &bad).unwrap();
        let opened = AuditLog::open(AuditOptions::new(&path)).map(|_| ());
        assert!(
            matches!(opened, Err(AuditError::Broken { .. })),
            "{opened:?} of {bad}"
        );
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            bad,
            "evidence was touched"
        );
    }
    std::fs::write(&path, &good).unwrap();
    open(&path);
}

#[test]
fn a_kill_at_any_instant_of_a_rotation_leaves_a_chain_that_goes_on() {
    // After the rename; after the new file was made; after part of its first group was written.
    for left in [None, Some(0), Some(1), Some(100), Some(500)] {
        let dir = tempfile::tempdir().unwrap();
        let path = some_files(dir.path());
        let current = std::fs::read(&path).unwrap();
        let last = log_files(&path).unwrap().len();
        match left {
            None => std::fs::remove_file(&path).unwrap(),
            Some(left) => std::fs::write(&path, &current[..left]).unwrap(),
        }
        let log = rotating(&path, 0);
        write(&log, 3);
        let files = log_files(&path).unwrap();
        assert_eq!(files.len(), last);
        assert_eq!(records(&path)[0]["event"], "log_continued");
        assert_intact(&files);
        drop(log);
        write(&rotating(&path, 0), 20);
        assert_intact(&log_files(&path).unwrap());
    }
}

#[test]
fn a_place_that_is_no_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), &link).unwrap();
    for path in [
        dir.path(),
        &link,
        Path::new("/dev/full"),
        &dir.path().join("none/audit.jsonl"),
    ] {
        let opened = AuditLog::open(AuditOptions::new(path)).map(|_| ());
        let Err(AuditError::Unwritable { path: named, .. }) = opened else {
            panic!("{opened:?}");
        };
        assert_eq!(named, path.display().to_string());
    }
}
