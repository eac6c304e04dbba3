//! The opened folder and the only ways into it.
//!
//! Every step down is one `openat` relative to the directory above it, and none follows a symbolic
//! link: there is no moment between a check and a use in which somebody could swap one in.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use cap_fs_ext::{DirExt, FollowSymlinks, OpenOptionsFollowExt, OpenOptionsSyncExt};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, Metadata, OpenOptions};

use crate::clock::UnixTime;

use super::path::{self, PathError, RelPath};

/// Names that begin so are ours while a write is under way, and nobody else's business.
pub const TEMPORARY: &str = ".countersign-";

/// The folder.
pub struct Root {
    dir: Dir,
    absolute: PathBuf,
    prefix: String,
    hidden: bool,
}

/// The folder cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not there, not a directory, or not readable.
    #[error("folder `{folder}`: {cause}")]
    Io {
        /// As configured.
        folder: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A URI needs a path that is text.
    #[error("folder `{0}`: its path is not UTF-8")]
    NotText(PathBuf),
    /// The provider's name is part of its tools' names.
    #[error(
        "folder `{folder}`: `{name}` is no name for a provider: 1 to 64 of `A-Z a-z 0-9 _ - .`, without `__`"
    )]
    Name {
        /// As configured.
        folder: PathBuf,
        /// The name.
        name: String,
    },
}

/// Why something in the folder cannot be used; the text is for the caller.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Path(#[from] PathError),
    #[error("`{0}` does not exist")]
    NotFound(RelPath),
    #[error("`{0}` is a symbolic link, and links are not followed")]
    Link(RelPath),
    #[error("`{0}` is not a regular file")]
    NotFile(RelPath),
    #[error("`{0}` is not a directory")]
    NotDirectory(RelPath),
    #[error("`{path}`: {cause}")]
    Io { path: RelPath, cause: io::Error },
    #[error("{0}")]
    Other(String),
    #[error("cancelled")]
    Stopped,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Other,
}

/// What `lstat` says, as far as it is told.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub kind: Kind,
    pub size: u64,
    pub modified: Option<UnixTime>,
}

impl Root {
    /// Opens the folder for good.
    pub fn open(folder: &Path, hidden: bool) -> Result<Self, OpenError> {
        let io = |cause| OpenError::Io {
            folder: folder.to_owned(),
            cause,
        };
        let absolute = folder.canonicalize().map_err(io)?;
        let dir = Dir::open_ambient_dir(&absolute, ambient_authority()).map_err(io)?;
        dir.entries().map_err(io)?;
        let text = absolute
            .to_str()
            .ok_or_else(|| OpenError::NotText(folder.to_owned()))?;
        let prefix = path::uri_prefix(text);
        Ok(Self {
            dir,
            absolute,
            prefix,
            hidden,
        })
    }

    /// `file:///srv/docs/`.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The path on the system, for the watcher only, which knows no handles.
    pub fn absolute(&self, path: &RelPath) -> PathBuf {
        self.absolute.join(path.as_str())
    }

    pub fn uri(&self, path: &RelPath) -> String {
        path::uri(&self.prefix, path)
    }

    /// The path of a resource: exactly the canonical spelling, and nothing that is not served.
    pub fn resolve(&self, uri: &str) -> Option<RelPath> {
        let path = path::from_uri(&self.prefix, uri)?;
        let served = path.segments().all(|name| self.serves(name));
        served.then_some(path)
    }

    /// Whether a name is served at all.
    pub fn serves(&self, name: &str) -> bool {
        !name.starts_with('.') || (self.hidden && !name.starts_with(TEMPORARY))
    }

    /// Opens a directory.
    pub fn directory(&self, path: &RelPath) -> Result<Dir, Refused> {
        let mut dir = self.dir.try_clone().map_err(|cause| refused(path, cause))?;
        for name in path.segments() {
            dir = self.step(&dir, name, path)?;
        }
        Ok(dir)
    }

    /// Opens the directory that something is in; its name comes with it.
    pub fn parent<'a>(&self, path: &'a RelPath) -> Result<(Dir, &'a str), Refused> {
        let (parent, _) = path.split().ok_or_else(|| Refused::NotFile(path.clone()))?;
        let name = path.name();
        if !self.serves(name) {
            return Err(Refused::NotFound(path.clone()));
        }
        Ok((self.directory(&parent)?, name))
    }

    /// Opens the directory that something is to be in, and makes what is missing on the way.
    pub fn make_parent<'a>(&self, path: &'a RelPath) -> Result<(Dir, &'a str), Refused> {
        let (parent, _) = path.split().ok_or_else(|| Refused::NotFile(path.clone()))?;
        if !path.segments().all(|name| self.serves(name)) {
            return Err(Refused::NotFound(path.clone()));
        }
        let mut dir = self.dir.try_clone().map_err(|cause| refused(path, cause))?;
        for name in parent.segments() {
            match dir.create_dir(name) {
                Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(refused(path, cause));
                }
                _ => dir = self.step(&dir, name, path)?,
            }
        }
        Ok((dir, path.name()))
    }

    /// Opens a regular file to read.
    pub fn file(&self, path: &RelPath) -> Result<(File, Facts), Refused> {
        let (dir, name) = self.parent(path)?;
        open_regular(&dir, name, path)
    }

    /// What is there, links themselves and not what they lead to.
    pub fn facts(&self, path: &RelPath) -> Result<Facts, Refused> {
        if path.is_root() {
            let meta = self
                .dir
                .dir_metadata()
                .map_err(|cause| refused(path, cause))?;
            return Ok(Facts::of(&meta));
        }
        let (dir, name) = self.parent(path)?;
        dir.symlink_metadata(name)
            .map(|meta| Facts::of(&meta))
            .map_err(|c| refused(path, c))
    }

    fn step(&self, dir: &Dir, name: &str, whole: &RelPath) -> Result<Dir, Refused> {
        if !self.serves(name) {
            return Err(Refused::NotFound(whole.clone()));
        }
        dir.open_dir_nofollow(name)
            .map_err(|cause| match lstat(dir, name) {
                Some(Kind::Symlink) => Refused::Link(whole.clone()),
                Some(Kind::File | Kind::Other) => Refused::NotDirectory(whole.clone()),
                _ => refused(whole, cause),
            })
    }
}

/// Opens a regular file in a directory; whatever else has the name is refused after it was opened,
/// without waiting (a pipe would) and without reading.
pub fn open_regular(dir: &Dir, name: &str, path: &RelPath) -> Result<(File, Facts), Refused> {
    let mut options = OpenOptions::new();
    options.read(true).follow(FollowSymlinks::No).nonblock(true);
    let file = dir
        .open_with(name, &options)
        .map_err(|cause| match lstat(dir, name) {
            Some(Kind::Symlink) => Refused::Link(path.clone()),
            Some(Kind::Directory | Kind::Other) => Refused::NotFile(path.clone()),
            _ => refused(path, cause),
        })?;
    let facts = Facts::of(&file.metadata().map_err(|cause| refused(path, cause))?);
    if facts.kind != Kind::File {
        return Err(Refused::NotFile(path.clone()));
    }
    Ok((file, facts))
}

/// An error of the system in words for the caller.
pub fn refused(path: &RelPath, cause: io::Error) -> Refused {
    match cause.kind() {
        io::ErrorKind::NotFound => Refused::NotFound(path.clone()),
        io::ErrorKind::NotADirectory => Refused::NotDirectory(path.clone()),
        _ => Refused::Io {
            path: path.clone(),
            cause,
        },
    }
}

fn lstat(dir: &Dir, name: &str) -> Option<Kind> {
    dir.symlink_metadata(name)
        .ok()
        .map(|meta| Facts::of(&meta).kind)
}

impl Facts {
    pub fn of(meta: &Metadata) -> Self {
        let modified = meta.modified().ok().map(|time| unix(time.into_std()));
        Self {
            kind: Kind::of(meta.file_type()),
            size: meta.len(),
            modified,
        }
    }
}

impl Kind {
    pub fn of(kind: cap_std::fs::FileType) -> Self {
        if kind.is_file() {
            Self::File
        } else if kind.is_dir() {
            Self::Directory
        } else if kind.is_symlink() {
            Self::Symlink
        } else {
            Self::Other
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Symlink => "symlink",
            Self::Other => "other",
        }
    }
}

fn unix(time: SystemTime) -> UnixTime {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => UnixTime(0).plus(after),
        Err(before) => UnixTime(-i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn folder() -> (tempfile::TempDir, Root) {
        let temp = tempfile::tempdir().unwrap();
        let inside = temp.path().join("inside");
        std::fs::create_dir_all(inside.join("sub")).unwrap();
        std::fs::write(inside.join("sub/a.txt"), "a").unwrap();
        std::fs::write(inside.join(".env"), "secret").unwrap();
        std::fs::write(temp.path().join("outside.txt"), "outside").unwrap();
        let root = Root::open(&inside, false).unwrap();
        (temp, root)
    }

    fn read(root: &Root, path: &str) -> Result<String, Refused> {
        let (file, _) = root.file(&RelPath::parse(path)?)?;
        Ok(io::read_to_string(file).unwrap())
    }

    #[test]
    fn a_file_opens_and_nothing_else_does() {
        let (temp, root) = folder();
        assert_eq!(read(&root, "sub/a.txt").unwrap(), "a");
        assert!(matches!(read(&root, "sub"), Err(Refused::NotFile(_))));
        assert!(matches!(read(&root, "."), Err(Refused::NotFile(_))));
        assert!(matches!(read(&root, "none"), Err(Refused::NotFound(_))));
        assert!(matches!(
            read(&root, "sub/a.txt/b"),
            Err(Refused::NotDirectory(_))
        ));
        assert!(matches!(
            read(&root, "../outside.txt"),
            Err(Refused::Path(_))
        ));
        let _socket =
            std::os::unix::net::UnixListener::bind(temp.path().join("inside/socket")).unwrap();
        assert!(matches!(read(&root, "socket"), Err(Refused::NotFile(_))));
    }

    #[test]
    fn links_are_not_followed_out_nor_in() {
        let (temp, root) = folder();
        let inside = temp.path().join("inside");
        symlink("../outside.txt", inside.join("out.txt")).unwrap();
        symlink(temp.path(), inside.join("up")).unwrap();
        symlink("sub/a.txt", inside.join("in.txt")).unwrap();
        symlink("sub", inside.join("again")).unwrap();
        symlink("loop", inside.join("loop")).unwrap();
        for path in [
            "out.txt",
            "up/outside.txt",
            "in.txt",
            "again/a.txt",
            "loop",
            "loop/a",
        ] {
            assert!(matches!(read(&root, path), Err(Refused::Link(_))), "{path}");
        }
        let path = RelPath::parse("out.txt").unwrap();
        assert_eq!(root.facts(&path).unwrap().kind, Kind::Symlink);
    }

    #[test]
    fn hidden_names_are_not_there_unless_asked_for() {
        let (temp, root) = folder();
        assert!(matches!(read(&root, ".env"), Err(Refused::NotFound(_))));
        assert!(root.resolve(&format!("{}.env", root.prefix())).is_none());
        let inside = temp.path().join("inside");
        std::fs::write(inside.join(".countersign-1.tmp"), "half").unwrap();
        let open = Root::open(&inside, true).unwrap();
        assert_eq!(read(&open, ".env").unwrap(), "secret");
        assert!(matches!(
            read(&open, ".countersign-1.tmp"),
            Err(Refused::NotFound(_))
        ));
    }

    /// A directory and a link to one with a secret change places as fast as they can while the
    /// sandbox reads through the name: it reads the file that is inside, or nothing.
    #[test]
    fn a_link_that_is_swapped_in_wins_no_race() {
        let (temp, root) = folder();
        let inside = temp.path().join("inside");
        let secret = temp.path().join("secret");
        std::fs::create_dir(&secret).unwrap();
        std::fs::write(secret.join("a.txt"), "SECRET").unwrap();
        symlink(&secret, inside.join("link")).unwrap();
        let stop = AtomicBool::new(false);
        let (mut read_well, mut refused) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let swap = |from: &str, to: &str| {
                        std::fs::rename(inside.join(from), inside.join(to)).unwrap();
                    };
                    swap("sub", "kept");
                    swap("link", "sub");
                    swap("sub", "link");
                    swap("kept", "sub");
                }
            });
            for _ in 0..50_000 {
                match read(&root, "sub/a.txt") {
                    Ok(text) => {
                        assert_eq!(text, "a", "read through a link");
                        read_well += 1;
                    }
                    Err(_) => refused += 1,
                }
                if read_well > 500 && refused > 500 {
                    break;
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(
            read_well > 0 && refused > 0,
            "the race took place: {read_well}, {refused}"
        );
    }

    #[test]
    fn a_folder_that_cannot_be_served_is_named() {
        let (temp, _) = folder();
        assert!(Root::open(&temp.path().join("inside"), false).is_ok());
        let error = |path: PathBuf| Root::open(&path, false).err().unwrap().to_string();
        assert!(error(temp.path().join("none")).contains("none"));
        assert!(error(temp.path().join("outside.txt")).contains("outside.txt"));
    }
}
