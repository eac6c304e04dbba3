//! The files of a log: `FILE` is written, `FILE.1`, `FILE.2` … are the earlier ones, the highest
//! number the newest; `FILE.lock` says that a process has the log open; `FILE.torn-N` is what stood
//! in the place of record N and was no record.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// `path` with `suffix` behind its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// The rotated files of the log `path` by their numbers, oldest first.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn rotated(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder(path))? {
        let entry = entry?;
        let file = entry.file_name();
        let number = file
            .to_str()
            .and_then(|f| f.strip_prefix(name)?.strip_prefix('.'))
            .and_then(|digits| {
                let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
                if plain { digits.parse().ok() } else { None }
            });
        if let Some(number) = number {
            found.push((number, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Every file of the log `path`, oldest first, `path` itself last if it is there.
///
/// # Errors
/// The folder cannot be read.
pub fn log_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = rotated(path)?.into_iter().map(|(_, path)| path).collect();
    if path.try_exists()? {
        files.push(path.to_path_buf());
    }
    Ok(files)
}

/// The folder that a file is in.
pub(super) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// How every file of the log is opened: its end is the only place that is written, and only the
/// owner may read it.
pub(super) fn appending() -> OpenOptions {
    let mut options = File::options();
    options.read(true).append(true).mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_files_are_found_by_number_and_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        for name in [
            "", ".2", ".10", ".1", ".lock", ".torn-3", ".03", ".x", ".", ".-1", "1",
        ] {
            File::create(dir.path().join(format!("audit.jsonl{name}"))).unwrap();
        }
        let numbers: Vec<u64> = rotated(&path)
            .unwrap()
            .into_iter()
            .map(|(n, _)| n)
            .collect();
        assert_eq!(numbers, [1, 2, 10]);
        let files = log_files(&path).unwrap();
        assert_eq!(files.first().unwrap(), &beside(&path, ".1"));
        assert_eq!(files.last().unwrap(), &path);
    }
}
