//! `search_files`: a walk in order, one file at a time, that tells how far it is and stops when
//! nobody waits.

use std::io::Read as _;

use cap_fs_ext::DirExt;
use cap_std::fs::Dir;
use globset::{GlobBuilder, GlobMatcher};
use serde_json::{Value, json};

use super::super::{Context, ToolResult};
use super::arguments::Search;
use super::entries;
use super::options::FilesOptions;
use super::path::{MAX_DEPTH, RelPath};
use super::root::{Kind, Refused, Root, open_regular};
use super::work::Halt;

/// Names of a directory that are held at once.
const BATCH: usize = 1_024;
/// Progress is told every so many entries.
const TELL_EVERY: u64 = 256;
/// A line is shown up to so many characters.
const SHOWN: usize = 200;
/// A NUL in the first so many bytes makes a file binary.
const SNIFF: usize = 8_192;

struct Searcher<'a> {
    root: &'a Root,
    context: &'a Context,
    halt: &'a Halt,
    glob: Option<(GlobMatcher, bool)>,
    needle: Option<Needle>,
    limit: usize,
    max_bytes: u64,
    matches: Vec<Value>,
    truncated: bool,
    seen: u64,
    searched: u64,
    skipped: u64,
}

enum Needle {
    Exact(Box<memchr::memmem::Finder<'static>>),
    Lower(String),
}

/// Runs a search.
pub fn search(
    root: &Root,
    options: &FilesOptions,
    arguments: &Search,
    context: &Context,
    halt: &Halt,
) -> Result<ToolResult, Refused> {
    if arguments.glob.is_none() && arguments.content.is_none() {
        let why = "`glob` or `content` is required: what is to be found?";
        return Err(Refused::Other(why.to_owned()));
    }
    let path = RelPath::parse(&arguments.path)?;
    let dir = root.directory(&path)?;
    let limit = arguments
        .limit
        .unwrap_or(200)
        .min(u64::from(options.max_results));
    let mut searcher = Searcher {
        root,
        context,
        halt,
        glob: arguments
            .glob
            .as_deref()
            .map(|glob| matcher(glob, arguments))
            .transpose()?,
        needle: arguments
            .content
            .as_deref()
            .map(|text| Needle::new(text, arguments)),
        limit: usize::try_from(limit).unwrap_or(usize::MAX).max(1),
        max_bytes: options.max_search_bytes,
        matches: Vec::new(),
        truncated: false,
        seen: 0,
        searched: 0,
        skipped: 0,
    };
    searcher.directory(&dir, &path)?;
    let answer = json!({
        "matches": searcher.matches, "files_searched": searcher.searched,
        "files_skipped": searcher.skipped, "truncated": searcher.truncated,
    });
    Ok(ToolResult::structured(&answer.to_string()))
}

/// A glob with a slash is matched with the path, one without with the name.
fn matcher(glob: &str, arguments: &Search) -> Result<(GlobMatcher, bool), Refused> {
    let built = GlobBuilder::new(glob)
        .literal_separator(true)
        .case_insensitive(!arguments.case_sensitive)
        .build()
        .map_err(|error| Refused::Other(format!("`glob`: {error}")))?;
    Ok((built.compile_matcher(), glob.contains('/')))
}

impl Searcher<'_> {
    fn directory(&mut self, dir: &Dir, path: &RelPath) -> Result<(), Refused> {
        let mut last: Option<String> = None;
        while !self.truncated {
            let batch = entries::smallest(self.root, dir, path, BATCH, self.halt, |name, kind| {
                let behind = last.as_deref().is_none_or(|last| name > last);
                let wanted = matches!(kind, Kind::File | Kind::Directory);
                (behind && wanted).then(|| name.to_owned())
            })?;
            for (_, name, kind) in &batch.entries {
                self.step()?;
                if *kind == Kind::File {
                    self.file(dir, &path.child(name));
                } else {
                    self.below(dir, &path.child(name))?;
                }
                if self.truncated {
                    return Ok(());
                }
            }
            last = batch.entries.last().map(|(key, ..)| key.clone());
            if !batch.more {
                return Ok(());
            }
        }
        Ok(())
    }

    fn below(&mut self, dir: &Dir, path: &RelPath) -> Result<(), Refused> {
        if path.segments().count() >= MAX_DEPTH {
            return Ok(());
        }
        // What cannot be opened (no permission, gone, swapped for a link) is not searched.
        let Ok(below) = dir.open_dir_nofollow(path.name()) else {
            return Ok(());
        };
        match self.directory(&below, path) {
            Err(Refused::Stopped) => Err(Refused::Stopped),
            _ => Ok(()),
        }
    }

    fn step(&mut self) -> Result<(), Refused> {
        self.halt.check()?;
        self.seen += 1;
        if self.seen.is_multiple_of(TELL_EVERY) {
            let text = format!("{} entries, {} matches", self.seen, self.matches.len());
            #[expect(
                clippy::cast_precision_loss,
                reason = "a count of entries stays below 2^53"
            )]
            self.context.progress(self.seen as f64, None, Some(text));
        }
        Ok(())
    }

    fn file(&mut self, dir: &Dir, path: &RelPath) {
        if let Some((glob, whole)) = &self.glob {
            let text = if *whole { path.as_str() } else { path.name() };
            if !glob.is_match(text) {
                return;
            }
        }
        if self.needle.is_none() {
            self.searched += 1;
            self.found(json!({"path": path.as_str()}));
            return;
        }
        match self.content(dir, path) {
            Some(bytes) => {
                self.searched += 1;
                self.lines(path, &bytes);
            }
            None => self.skipped += 1,
        }
    }

    /// The bytes of a file that can be looked into.
    fn content(&self, dir: &Dir, path: &RelPath) -> Option<Vec<u8>> {
        let (file, facts) = open_regular(dir, path.name(), path).ok()?;
        if facts.size > self.max_bytes {
            return None;
        }
        let mut bytes = Vec::with_capacity(usize::try_from(facts.size).ok()?);
        file.take(self.max_bytes).read_to_end(&mut bytes).ok()?;
        let binary = memchr::memchr(0, &bytes[..bytes.len().min(SNIFF)]).is_some();
        (!binary).then_some(bytes)
    }

    fn lines(&mut self, path: &RelPath, bytes: &[u8]) {
        let Some(needle) = self.needle.take() else {
            return;
        };
        // Most files hold no match: one look at the whole is cheaper than one at each line.
        if needle.may_be_in(bytes) {
            for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
                if self.truncated || (index % 4_096 == 0 && self.halt.is_stopped()) {
                    break;
                }
                if needle.is_in(line) {
                    let line = line.strip_suffix(b"\r").unwrap_or(line);
                    let text = String::from_utf8_lossy(line);
                    let text: String = text.chars().take(SHOWN).collect();
                    self.found(json!({"path": path.as_str(), "line": index + 1, "text": text}));
                }
            }
        }
        self.needle = Some(needle);
    }

    fn found(&mut self, found: Value) {
        if self.matches.len() >= self.limit {
            self.truncated = true;
        } else {
            self.matches.push(found);
        }
    }
}

impl Needle {
    fn new(text: &str, arguments: &Search) -> Self {
        if arguments.case_sensitive {
            Self::Exact(Box::new(memchr::memmem::Finder::new(text).into_owned()))
        } else {
            Self::Lower(text.to_lowercase())
        }
    }

    fn may_be_in(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Exact(finder) => finder.find(bytes).is_some(),
            Self::Lower(_) => true,
        }
    }

    fn is_in(&self, line: &[u8]) -> bool {
        match self {
            Self::Exact(finder) => finder.find(line).is_some(),
            Self::Lower(text) => String::from_utf8_lossy(line).to_lowercase().contains(text),
        }
    }
}
