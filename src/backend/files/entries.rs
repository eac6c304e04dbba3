//! Directory entries in order, a bounded number at a time: a directory of a million names costs as
//! much memory as one of a thousand.

use std::collections::BTreeMap;

use cap_std::fs::Dir;

use super::path::RelPath;
use super::root::{Facts, Kind, Refused, Root, refused};
use super::work::Halt;

/// Some entries of a directory in the order of their keys.
pub struct Batch {
    /// Key to name and kind.
    pub entries: Vec<(String, String, Kind)>,
    /// Whether there are more behind the last.
    pub more: bool,
}

/// The first `limit` entries (at least one) by key. `key` gives the key of a name that is wanted,
/// and nothing for one that is not. Names that are not served or not UTF-8 are passed over.
pub fn smallest(
    root: &Root,
    dir: &Dir,
    path: &RelPath,
    limit: usize,
    halt: &Halt,
    key: impl Fn(&str, Kind) -> Option<String>,
) -> Result<Batch, Refused> {
    let mut kept: BTreeMap<String, (String, Kind)> = BTreeMap::new();
    let mut more = false;
    for (count, entry) in dir
        .entries()
        .map_err(|cause| refused(path, cause))?
        .enumerate()
    {
        if count % 256 == 0 {
            halt.check()?;
        }
        // An entry that vanished while it was read is not there.
        let Ok(entry) = entry else { continue };
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| root.serves(name)) else {
            continue;
        };
        let Some(kind) = kind_of(dir, &entry, name) else {
            continue;
        };
        let Some(key) = key(name, kind) else { continue };
        if kept.len() >= limit {
            more = true;
            if kept.last_key_value().is_some_and(|(last, _)| *last < key) {
                continue;
            }
            kept.pop_last();
        }
        kept.insert(key, (name.to_owned(), kind));
    }
    let entries = kept
        .into_iter()
        .map(|(key, (name, kind))| (key, name, kind))
        .collect();
    Ok(Batch { entries, more })
}

/// What `readdir` says, and `lstat` where the file system leaves it open.
fn kind_of(dir: &Dir, entry: &cap_std::fs::DirEntry, name: &str) -> Option<Kind> {
    match entry.file_type().map(Kind::of) {
        Ok(kind) if kind != Kind::Other => Some(kind),
        _ => dir
            .symlink_metadata(name)
            .ok()
            .map(|meta| Facts::of(&meta).kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_together_are_the_whole_directory_in_order() {
        let temp = tempfile::tempdir().unwrap();
        let mut expected: Vec<String> = (0..257).map(|n| format!("f{}", n * 7919 % 1000)).collect();
        expected.sort();
        for name in &expected {
            std::fs::write(temp.path().join(name), "").unwrap();
        }
        std::fs::write(temp.path().join(".hidden"), "").unwrap();
        let root = Root::open(temp.path(), false).unwrap();
        let dir = root.directory(&RelPath::root()).unwrap();
        let halt = Halt::never();
        let mut found: Vec<String> = Vec::new();
        loop {
            let after = found.last().cloned();
            let batch = smallest(&root, &dir, &RelPath::root(), 10, &halt, |name, _| {
                after
                    .as_deref()
                    .is_none_or(|after| name > after)
                    .then(|| name.to_owned())
            })
            .unwrap();
            assert!(batch.entries.len() <= 10);
            found.extend(batch.entries.into_iter().map(|(key, ..)| key));
            if !batch.more {
                break;
            }
        }
        assert_eq!(found, expected);
    }
}
