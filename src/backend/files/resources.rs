//! The files as resources: pages in the order of their URIs, and completion of paths.
//!
//! A page is a walk that begins behind the last URI of the page before. In each directory the
//! order is that of the encoded names, a directory's with its slash: so the whole walk is in the
//! order of the whole URIs, and nothing but the directories on the way is looked at.

use cap_fs_ext::DirExt;
use cap_std::fs::Dir;

use super::super::{Completion, Page, Resource};
use super::entries;
use super::mime;
use super::path::{self, MAX_DEPTH, RelPath};
use super::root::{Facts, Kind, Refused, Root};
use super::work::Halt;

/// Names of a directory that are held at once.
const BATCH: usize = 1_024;
/// Values of a completion, as MCP limits them, and one to know that there are more.
const COMPLETIONS: usize = 101;

struct Walk<'a> {
    root: &'a Root,
    after: Option<&'a str>,
    limit: usize,
    halt: &'a Halt,
    found: Vec<Resource>,
}

/// The resources behind `after`, at most `limit`.
pub fn page(
    root: &Root,
    after: Option<&str>,
    limit: usize,
    halt: &Halt,
) -> Result<Page<Resource>, Refused> {
    // One more than asked for says whether there is a next page.
    let limit = limit.max(1);
    let mut walk = Walk {
        root,
        after,
        limit: limit.saturating_add(1),
        halt,
        found: Vec::new(),
    };
    let start = RelPath::root();
    walk.directory(&root.directory(&start)?, &start, root.prefix())?;
    let mut items = walk.found;
    let more = items.len() > limit;
    items.truncate(limit);
    let next = more
        .then(|| items.last().map(|last| last.uri.clone()))
        .flatten();
    Ok(Page { items, next })
}

impl Walk<'_> {
    fn directory(&mut self, dir: &Dir, path: &RelPath, uri: &str) -> Result<(), Refused> {
        let mut last: Option<String> = None;
        loop {
            let batch = {
                let wanted = |name: &str, kind: Kind| {
                    let key = key(name, kind)?;
                    let behind = last.as_ref().is_none_or(|last| key > *last);
                    (behind && self.may_hold(uri, &key)).then_some(key)
                };
                entries::smallest(self.root, dir, path, BATCH, self.halt, wanted)?
            };
            for (key, name, kind) in &batch.entries {
                self.halt.check()?;
                self.entry(dir, &path.child(name), format!("{uri}{key}"), *kind)?;
                if self.found.len() >= self.limit {
                    return Ok(());
                }
            }
            last = batch.entries.last().map(|(key, ..)| key.clone());
            if !batch.more {
                return Ok(());
            }
        }
    }

    fn entry(&mut self, dir: &Dir, path: &RelPath, uri: String, kind: Kind) -> Result<(), Refused> {
        if kind == Kind::Directory {
            if path.segments().count() >= MAX_DEPTH {
                return Ok(());
            }
            // What cannot be opened (no permission, gone, swapped for a link) is not listed.
            let Ok(below) = dir.open_dir_nofollow(path.name()) else {
                return Ok(());
            };
            return match self.directory(&below, path, &uri) {
                Err(Refused::Stopped) => Err(Refused::Stopped),
                _ => Ok(()),
            };
        }
        let facts = dir
            .symlink_metadata(path.name())
            .map(|meta| Facts::of(&meta));
        if let Some(facts) = facts.ok().filter(|facts| facts.kind == Kind::File) {
            self.found.push(resource(path, uri, facts));
        }
        Ok(())
    }

    /// Whether something with this key, or below it, can be behind `after`.
    fn may_hold(&self, uri: &str, key: &str) -> bool {
        let Some(after) = self.after else { return true };
        let whole = uri.bytes().chain(key.bytes());
        whole.clone().gt(after.bytes())
            || (key.ends_with('/')
                && after.len() > uri.len() + key.len()
                && whole.eq(after.bytes().take(uri.len() + key.len())))
    }
}

/// The encoded name, with a slash for a directory; nothing for what is no resource.
fn key(name: &str, kind: Kind) -> Option<String> {
    match kind {
        Kind::File => Some(path::encoded(name)),
        Kind::Directory => Some(path::encoded(name) + "/"),
        Kind::Symlink | Kind::Other => None,
    }
}

fn resource(path: &RelPath, uri: String, facts: Facts) -> Resource {
    Resource {
        uri,
        name: path.to_string(),
        title: None,
        description: None,
        mime_type: mime::by_name(path.name()).map(str::to_owned),
        size: Some(facts.size),
        last_modified: facts.modified,
        more: String::new(),
    }
}

/// Completes the `path` of the template, encoded as it stands in a URI; directories end in a
/// slash. `visible`: whether the caller may know of this URI.
pub fn complete(
    root: &Root,
    value: &str,
    halt: &Halt,
    visible: impl Fn(&str) -> bool,
) -> Result<Completion, Refused> {
    let (folder, typed) = value.rsplit_once('/').unwrap_or(("", value));
    let Some(folder) = path::decode(folder) else {
        return Ok(Completion::default());
    };
    let Ok(folder) = RelPath::parse(&folder) else {
        return Ok(Completion::default());
    };
    let Ok(dir) = root.directory(&folder) else {
        return Ok(Completion::default());
    };
    let before = if folder.is_root() {
        String::new()
    } else {
        path::encoded(folder.as_str()) + "/"
    };
    let batch = entries::smallest(root, &dir, &folder, COMPLETIONS, halt, |name, kind| {
        let key = key(name, kind)?;
        let fits = key.starts_with(typed) || name.starts_with(typed);
        (fits && visible(&format!("{}{before}{key}", root.prefix()))).then_some(key)
    })?;
    let values = batch
        .entries
        .into_iter()
        .map(|(key, ..)| format!("{before}{key}"))
        .collect();
    let mut completion = Completion::of(values);
    if completion.has_more {
        // How many more is not counted.
        completion.total = None;
    }
    Ok(completion)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[String]) -> (tempfile::TempDir, Root) {
        let temp = tempfile::tempdir().unwrap();
        for file in files {
            let path = temp.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let root = Root::open(temp.path(), false).unwrap();
        (temp, root)
    }

    fn uris(root: &Root, limit: usize) -> Vec<String> {
        let mut all = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = page(root, after.as_deref(), limit, &Halt::never()).unwrap();
            assert!(page.items.len() <= limit);
            all.extend(page.items.into_iter().map(|resource| resource.uri));
            let Some(next) = page.next else { return all };
            assert_eq!(Some(&next), all.last());
            after = Some(next);
        }
    }

    #[test]
    fn pages_of_any_size_are_all_files_in_the_order_of_their_uris() {
        let mut files: Vec<String> = ["a", "a.txt", "a-b/c", "b/c/d", "b c/d", "é/ü", "b!/x"]
            .map(str::to_owned)
            .to_vec();
        for n in 0..1_000 {
            files.push(format!("many/d{}/f{}.txt", n % 37, n));
        }
        let (temp, root) = tree(&files);
        std::fs::create_dir_all(temp.path().join("empty/empty")).unwrap();
        std::fs::create_dir_all(temp.path().join(".git")).unwrap();
        std::fs::write(temp.path().join(".git/config"), "x").unwrap();
        std::os::unix::fs::symlink("a.txt", temp.path().join("link")).unwrap();
        std::os::unix::fs::symlink("b", temp.path().join("linked")).unwrap();
        let mut expected: Vec<String> = files
            .iter()
            .map(|file| root.uri(&RelPath::parse(file).unwrap()))
            .collect();
        expected.sort();
        for limit in [1, 2, 7, 100, 5_000] {
            assert_eq!(uris(&root, limit), expected, "limit {limit}");
        }
    }

    #[test]
    fn a_directory_larger_than_a_batch_is_paged_too() {
        let files: Vec<String> = (0..BATCH + 100).map(|n| format!("f{n}")).collect();
        let (_temp, root) = tree(&files);
        assert_eq!(uris(&root, 400).len(), files.len());
    }

    #[test]
    fn what_comes_and_goes_between_pages_moves_nothing_else() {
        let files: Vec<String> = (10..40).map(|n| format!("d{n}/f")).collect();
        let (temp, root) = tree(&files);
        let first = page(&root, None, 10, &Halt::never()).unwrap();
        std::fs::remove_dir_all(temp.path().join("d19")).unwrap();
        std::fs::write(temp.path().join("d10/again"), "x").unwrap();
        std::fs::write(temp.path().join("d25/e"), "x").unwrap();
        let second = page(&root, first.next.as_deref(), 100, &Halt::never()).unwrap();
        let names: Vec<&str> = second.items.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(names[..2], ["d20/f", "d21/f"]);
        assert_eq!(names.len(), 21);
        assert!(names.contains(&"d25/e"));
    }

    #[test]
    fn paths_complete_to_what_is_there_and_may_be_seen() {
        let files = [
            "docs/a.txt",
            "docs/an app.txt",
            "docs/b.txt",
            "data/x",
            ".env",
        ];
        let (_temp, root) = tree(&files.map(str::to_owned));
        let values = |typed: &str| {
            complete(&root, typed, &Halt::never(), |_| true)
                .unwrap()
                .values
        };
        assert_eq!(values(""), ["data/", "docs/"]);
        assert_eq!(values("do"), ["docs/"]);
        assert_eq!(values("docs/a"), ["docs/a.txt", "docs/an%20app.txt"]);
        assert_eq!(values("docs/an "), ["docs/an%20app.txt"]);
        assert_eq!(values("docs/an%20"), ["docs/an%20app.txt"]);
        assert_eq!(values("../"), [""; 0]);
        assert_eq!(values("none/"), [""; 0]);
        let some = complete(&root, "docs/", &Halt::never(), |uri| uri.ends_with("b.txt")).unwrap();
        assert_eq!(some.values, ["docs/b.txt"]);
    }
}
