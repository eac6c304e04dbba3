//! `[[files]]` as it is written in the configuration.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[[files]]`: a folder that is offered as tools and resources. Several may be given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilesOptions {
    /// The provider's name: its tools are called `<name>__read_file` and so on. 1 to 64 of
    /// `A-Z a-z 0-9 _ - .`, without `__`. Default `files`; two folders need two names.
    #[serde(default = "default_name")]
    #[schemars(regex(pattern = r"^[A-Za-z0-9_.-]{1,64}$"))]
    pub name: String,
    /// The folder. A relative path is taken from the folder of the configuration file. It is
    /// opened once, at start: what is moved to its place later is not served until a restart.
    pub root: PathBuf,
    /// Offers `write_file` and `delete_file` too. Default `false`. Costs nothing; a caller needs
    /// the grants of those tools besides.
    #[serde(default)]
    pub writable: bool,
    /// Serves names that begin with a dot (`.env`, `.git`) too. Default `false`: such names are
    /// neither listed nor found, read, searched or written.
    #[serde(default)]
    pub hidden: bool,
    /// The most bytes that one `read_file` or one `resources/read` answers with. Default 1048576
    /// (1 MiB). Costs up to four times as much memory for each read in progress, because text goes
    /// out once as text and once in the structured content.
    #[serde(default = "default_max_read_bytes")]
    #[schemars(range(min = 1))]
    pub max_read_bytes: u64,
    /// The most bytes that one `write_file` takes. Default 1048576 (1 MiB). The limit of a
    /// message applies besides, and base64 is a third longer than the bytes.
    #[serde(default = "default_max_write_bytes")]
    #[schemars(range(min = 1))]
    pub max_write_bytes: u64,
    /// The most entries in one answer of `list_directory` or `search_files`. Default 1000. Costs
    /// about 200 bytes of answer an entry.
    #[serde(default = "default_max_results")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_results: u32,
    /// `search_files` looks into files of at most so many bytes and skips larger ones. Default
    /// 4194304 (4 MiB). Costs as much memory for each search in progress.
    #[serde(default = "default_max_search_bytes")]
    #[schemars(range(min = 1))]
    pub max_search_bytes: u64,
    /// Tells subscribers of a resource when the file changes. Default `true`. Costs nothing until
    /// somebody subscribes, then one thread and one inotify watch for each folder.
    #[serde(default = "default_watch")]
    pub watch: bool,
    /// The most files that are watched at once, over all callers. Default 1024. The system's own
    /// limit is `fs.inotify.max_user_watches`.
    #[serde(default = "default_max_watches")]
    #[schemars(range(min = 1))]
    pub max_watches: u32,
    /// The most operations on the disk at once; more wait for their turn. Half of them, at least
    /// one, may be searches. Default 8. Costs one thread each while it runs.
    #[serde(default = "default_max_concurrent")]
    #[schemars(range(min = 1, max = 256))]
    pub max_concurrent: u32,
}

impl FilesOptions {
    /// A folder with every default: read only.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            name: default_name(),
            root: root.into(),
            writable: false,
            hidden: false,
            max_read_bytes: default_max_read_bytes(),
            max_write_bytes: default_max_write_bytes(),
            max_results: default_max_results(),
            max_search_bytes: default_max_search_bytes(),
            watch: default_watch(),
            max_watches: default_max_watches(),
            max_concurrent: default_max_concurrent(),
        }
    }
}

fn default_name() -> String {
    "files".to_owned()
}

const fn default_max_read_bytes() -> u64 {
    1 << 20
}

const fn default_max_write_bytes() -> u64 {
    1 << 20
}

const fn default_max_results() -> u32 {
    1_000
}

const fn default_max_search_bytes() -> u64 {
    4 << 20
}

const fn default_watch() -> bool {
    true
}

const fn default_max_watches() -> u32 {
    1_024
}

const fn default_max_concurrent() -> u32 {
    8
}
