//! The `files` provider: one folder, sandboxed, as tools and as resources.
//!
//! It follows no symbolic link, leaves the folder by no path, and gives each file exactly one URI,
//! because permissions are patterns over the URI's text.

mod arguments;
mod entries;
mod mime;
mod options;
mod path;
mod provider;
mod read;
mod resources;
mod root;
mod search;
#[cfg(test)]
mod tests;
mod tools;
mod watch;
mod work;
mod write;

pub use options::FilesOptions;
pub use provider::FilesProvider;
pub use root::OpenError;
