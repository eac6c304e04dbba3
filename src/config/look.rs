//! A look at the files that a configuration names: what is not there yet, or cannot be used.

use std::fs;
use std::io;
use std::path::Path;

use super::resolved::Config;
use crate::cert::KeyUri;
use crate::registry::RegistryPlace;

/// What would stop a server that started now with this configuration on this machine. Looks at
/// files and folders only, opens no key and makes nothing.
#[must_use]
pub fn look(config: &Config) -> Vec<String> {
    let mut seen = Vec::new();
    seen.extend(readable("tls.certificate", &config.tls.certificate));
    // A token is asked for its key when the server starts.
    if !KeyUri::is_one(&config.tls.key) {
        seen.extend(readable("tls.key", &config.tls.key));
    }
    if let Some(path) = &config.tls.key_passphrase_file {
        seen.extend(readable("tls.key_passphrase_file", path));
    }
    for (index, anchor) in config.anchors.iter().enumerate() {
        seen.extend(readable(&format!("anchor[{index}].bundle"), &anchor.bundle));
        if let Some(path) = &anchor.crl_file {
            seen.extend(readable(&format!("anchor[{index}].crl_file"), path));
        }
    }
    for (index, files) in config.files.iter().enumerate() {
        seen.extend(folder(&format!("files[{index}].root"), &files.root));
    }
    match &config.registry.place {
        RegistryPlace::File(path) => seen.extend(parent("registry.path", path)),
        RegistryPlace::Database { password_file, .. } => {
            let path = password_file.as_deref();
            seen.extend(path.and_then(|path| readable("registry.password_file", path)));
        }
    }
    seen.extend(parent("audit.path", &config.audit.path));
    seen
}

fn readable(key: &str, path: &Path) -> Option<String> {
    fs::File::open(path)
        .err()
        .map(|error| told(key, path, &error))
}

fn folder(key: &str, path: &Path) -> Option<String> {
    match fs::metadata(path) {
        Ok(about) if about.is_dir() => None,
        Ok(_) => Some(format!("`{key}`: `{}` is not a folder", path.display())),
        Err(error) => Some(told(key, path, &error)),
    }
}

/// The folder that a file is made in must be there and be one that can be written.
fn parent(key: &str, path: &Path) -> Option<String> {
    let parent = path.parent()?;
    // A bare file name is made in the working folder.
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    if let Some(said) = folder(key, parent) {
        return Some(said);
    }
    let read_only = fs::metadata(parent).is_ok_and(|about| about.permissions().readonly());
    read_only.then(|| {
        format!(
            "`{key}`: the folder `{}` cannot be written",
            parent.display()
        )
    })
}

fn told(key: &str, path: &Path, error: &io::Error) -> String {
    format!("`{key}`: cannot read `{}`: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_file_name_is_in_the_working_folder() {
        assert_eq!(parent("k", Path::new("registry.db")), None);
        let said = parent("k", Path::new("no-such-folder/registry.db")).unwrap();
        assert!(
            said.starts_with("`k`: cannot read `no-such-folder`: "),
            "{said}"
        );
    }
}
