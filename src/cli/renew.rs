//! `countersign renew`, and the renewal that follows a command whose certificate is due.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::json;

use super::exit::{Exit, Failure};
use super::reach::ReachArgs;
use super::render::Out;
use super::run::on_this_thread;
use crate::client::Credentials;
use crate::clock::{UnixTime, since_epoch, unix_now};
use crate::enrol::{CertFiles, EnrolError, is_due, renew};
use crate::tls::Identity;

/// A command does not begin another renewal so soon after the last one that was begun.
const AGAIN: Duration = Duration::from_secs(60);

/// What is typed after `renew`.
#[derive(Debug, Args)]
pub struct RenewArgs {
    /// Only if it is due: two thirds of its life are over
    #[arg(long)]
    if_due: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: ReachArgs,
}

impl RenewArgs {
    /// Renews.
    ///
    /// # Errors
    /// Whatever went wrong, with its hint; the old certificate works as before.
    pub fn run(self, out: &mut Out) -> Result<Exit, Failure> {
        let files = cert_files(&self.reach.credentials()?);
        let renewed = on_this_thread(async { Ok(renew(&files, !self.if_due, unix_now()).await?) })?;
        if self.json {
            let (print, end) = match &renewed {
                Some(new) => (
                    Some(new.fingerprint.to_string()),
                    Some(new.not_after.to_string()),
                ),
                None => (None, None),
            };
            out.json(
                &json!({ "renewed": renewed.is_some(), "fingerprint": print, "not_after": end }),
            )?;
        } else {
            let cert = files.cert.display();
            match renewed {
                Some(new) => out.line(&format!("`{cert}` is good until {}.", new.not_after))?,
                None => out.line(&format!("`{cert}` is not due yet."))?,
            }
        }
        Ok(Exit::Success)
    }
}

/// The files to be renewed.
pub fn cert_files(credentials: &Credentials) -> CertFiles {
    CertFiles {
        cert: credentials.cert.clone(),
        key: credentials.key.clone(),
        ca: credentials.ca.clone(),
        passphrase: credentials.passphrase.clone(),
    }
}

/// What to say of a renewal in the background.
pub fn told(outcome: &Result<UnixTime, &EnrolError>) -> String {
    match outcome {
        Ok(end) => format!("the certificate was renewed, until {end}"),
        Err(error) => format!("the certificate was not renewed: {error}"),
    }
}

/// Begins a renewal in a process of its own where it is due, and waits for nothing. A command that
/// makes one call must neither wait for the CA nor die before it answers.
pub fn renew_in_background(files: &CertFiles, identity: &Identity) {
    // The first look costs nothing, and is all that most calls do.
    if !is_due(identity, unix_now()) || files.passphrase.is_some() || !begin(files) {
        return;
    }
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let mut command = Command::new(program);
    command.args(["renew", "--if-due"]);
    for (flag, path) in [
        ("--cert", &files.cert),
        ("--key", &files.key),
        ("--ca", &files.ca),
    ] {
        command.arg(flag).arg(path);
    }
    // In a group of its own: Ctrl-C is not for it.
    command
        .process_group(0)
        .env_remove("COUNTERSIGN_AS")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // What fails now is tried by the next command.
    drop(command.spawn());
}

/// Whether none was begun a moment ago; if so, one is from now on. The note's modification time
/// keeps it, for all processes.
fn begin(files: &CertFiles) -> bool {
    let now = SystemTime::UNIX_EPOCH + since_epoch();
    let Ok(note) = std::fs::File::options()
        .append(true)
        .open(files.note_path())
    else {
        return false;
    };
    let last = note.metadata().and_then(|meta| meta.modified());
    let recent = last.is_ok_and(|last| now.duration_since(last).is_ok_and(|gone| gone < AGAIN));
    !recent && note.set_modified(now).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrol::Note;

    #[test]
    fn one_renewal_is_begun_a_minute() {
        let dir = tempfile::tempdir().unwrap();
        let files = CertFiles::new(&dir.path().join("a.crt"), &dir.path().join("a.key"));
        assert!(!begin(&files), "nobody said where");
        let address = String::from("ca:8444");
        files.write_note(&Note { address }).unwrap();
        let old = SystemTime::UNIX_EPOCH + since_epoch() - 2 * AGAIN;
        let note = std::fs::File::options()
            .append(true)
            .open(files.note_path());
        note.unwrap().set_modified(old).unwrap();
        assert!(begin(&files));
        assert!(!begin(&files), "the first one may still run");
        assert_eq!(files.note().unwrap().address, "ca:8444");
    }
}
