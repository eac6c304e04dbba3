//! `write_file` and `delete_file`. A file is replaced whole: written under another name beside it,
//! flushed to the disk, renamed over it, and the directory flushed too.

use std::io::{self, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cap_fs_ext::{FollowSymlinks, OpenOptionsFollowExt};
use cap_std::fs::{Dir, OpenOptions, Permissions};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;

use super::super::ToolResult;
use super::arguments::{Encoding, One, Write};
use super::options::FilesOptions;
use super::path::RelPath;
use super::root::{Facts, Kind, Refused, Root, TEMPORARY, refused};
use super::work::Halt;

pub fn write_file(
    root: &Root,
    options: &FilesOptions,
    arguments: &Write,
    halt: &Halt,
) -> Result<ToolResult, Refused> {
    let path = RelPath::parse(&arguments.path)?;
    let decoded;
    let bytes = match arguments.encoding {
        Encoding::Text => arguments.content.as_bytes(),
        Encoding::Base64 => {
            decoded = STANDARD
                .decode(&arguments.content)
                .map_err(|error| Refused::Other(format!("`content` is not base64: {error}")))?;
            &decoded[..]
        }
    };
    if bytes.len() as u64 > options.max_write_bytes {
        return Err(Refused::Other(format!(
            "`content` has {} bytes, and a file is written up to {}",
            bytes.len(),
            options.max_write_bytes
        )));
    }
    let (dir, name) = if arguments.create_directories {
        root.make_parent(&path)?
    } else {
        root.parent(&path)?
    };
    let before = what_is_there(&dir, name, &path)?;
    halt.check()?;
    replace(&dir, name, bytes, before.as_ref(), halt).map_err(|cause| refused(&path, cause))?;
    let answer = json!({
        "path": path.to_string(), "bytes": bytes.len(), "created": before.is_none(),
        "uri": root.uri(&path),
    });
    Ok(ToolResult::structured(&answer.to_string()))
}

pub fn delete_file(root: &Root, arguments: &One, halt: &Halt) -> Result<ToolResult, Refused> {
    let path = RelPath::parse(&arguments.path)?;
    let (dir, name) = root.parent(&path)?;
    if what_is_there(&dir, name, &path)?.is_none() {
        return Err(Refused::NotFound(path));
    }
    halt.check()?;
    let io = |cause| refused(&path, cause);
    dir.remove_file(name).map_err(io)?;
    flush(&dir).map_err(io)?;
    let answer = json!({"path": path.to_string(), "deleted": true});
    Ok(ToolResult::structured(&answer.to_string()))
}

/// The permissions of the regular file that has the name; whatever else has it is left alone.
fn what_is_there(dir: &Dir, name: &str, path: &RelPath) -> Result<Option<Permissions>, Refused> {
    match dir.symlink_metadata(name) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(refused(path, cause)),
        Ok(meta) => match Facts::of(&meta).kind {
            Kind::File => Ok(Some(meta.permissions())),
            Kind::Symlink => Err(Refused::Link(path.clone())),
            Kind::Directory | Kind::Other => Err(Refused::NotFile(path.clone())),
        },
    }
}

fn replace(
    dir: &Dir,
    name: &str,
    bytes: &[u8],
    permissions: Option<&Permissions>,
    halt: &Halt,
) -> io::Result<()> {
    let temporary = temporary_name()?;
    let done = fill(dir, &temporary, bytes, permissions).and_then(|()| {
        if halt.is_stopped() {
            return Err(io::Error::other("cancelled"));
        }
        dir.rename(&temporary, dir, name)
    });
    if let Err(cause) = done {
        // The first error is the one to tell; a leftover is never served.
        let _ = dir.remove_file(&temporary);
        return Err(cause);
    }
    flush(dir)
}

fn fill(dir: &Dir, name: &str, bytes: &[u8], permissions: Option<&Permissions>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create_new(true)
        .follow(FollowSymlinks::No);
    let mut file = dir.open_with(name, &options)?;
    // Before the content: what nobody else could read is not readable for a moment either.
    if let Some(permissions) = permissions {
        file.set_permissions(permissions.clone())?;
    }
    file.write_all(bytes)?;
    file.sync_all()
}

/// A name in a directory is safe on the disk once the directory is flushed.
fn flush(dir: &Dir) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true);
    dir.open_with(".", &options)?.sync_all()
}

fn temporary_name() -> io::Result<String> {
    let mut random = [0; 8];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| io::Error::other("the system gave no random numbers"))?;
    Ok(format!("{TEMPORARY}{}.tmp", hex::encode(random)))
}
