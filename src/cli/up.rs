//! `countersign up`: everything that trying it out needs, made once, then the server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use super::configured::load;
use super::exit::{Exit, Failure};
use super::render::{Out, table};
use super::serve::{on_all_threads, serve};
use crate::ca::dev::{Dev, DevError, Member, ensure};
use crate::cert::write_atomic;
use crate::clock::unix_now;
use crate::config::{Config, DevPaths};
use crate::server::Ready;

/// Where it listens when nobody says otherwise.
const ADDRESS: &str = "127.0.0.1:8443";

/// What there is to read for who tries it out.
const DEMO: [(&str, &str); 2] = [
    (
        "welcome.md",
        "# Welcome\n\nThis folder is offered as tools and resources to whoever presents a certificate that allows it.\n\
         The `operator` may change it, the `reader` may only look.\n",
    ),
    ("notes.txt", "milk\neggs\na certificate for the new agent\n"),
];

/// What is typed after `up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// The folder for certificates, registry, configuration, audit log and demo files
    #[arg(long, value_name = "DIR", default_value = "pki/dev")]
    dir: PathBuf,
    /// Where to listen [default: what the folder's `countersign.toml` says, at first 127.0.0.1:8443]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = socket_address)]
    listen: Option<SocketAddr>,
}

impl UpArgs {
    /// Prepares, serves until SIGINT or SIGTERM.
    ///
    /// # Errors
    /// The folder cannot be written, or the server does not start.
    pub fn run(self, out: &mut Out) -> Result<Exit, Failure> {
        on_all_threads(async {
            let dev = ensure(&self.dir, unix_now())
                .await
                .map_err(|error| self.failure(&error))?;
            let path = self.config(&dev)?;
            self.demo()?;
            let address = self.listen.map(|address| address.to_string());
            let config = load(&path, address.as_deref())?;
            for step in &dev.steps {
                out.line(&step.to_string())?;
            }
            let audit = config.audit.path.clone();
            let mut told = Ok(());
            let ended = serve(config, path.clone(), address, |ready| {
                told = out.line(&self.welcome(&dev, &path, &audit, &ready));
            });
            let ended = ended.await;
            told?;
            ended
        })
    }

    fn failure(&self, error: &DevError) -> Failure {
        let failure = Failure::setup(error);
        match error {
            DevError::Folder { .. } | DevError::File(_) => {
                failure.with_hint("choose a folder that this user may write, by `--dir DIR`")
            }
            DevError::Lock(_) => failure
                .with_hint("another `countersign` works in this folder: wait for it to finish"),
            DevError::Store(_) => failure.with_hint(format!(
                "`{}` holds who is enrolled and is never thrown away; move it aside to begin anew",
                self.dir.join("registry.db").display()
            )),
            _ => failure,
        }
    }

    /// Writes the configuration where there is none; one that is there is the user's.
    fn config(&self, dev: &Dev) -> Result<PathBuf, Failure> {
        let path = self.dir.join("countersign.toml");
        if path.exists() {
            return Ok(path);
        }
        // Named as from the folder itself, where the configuration is, so that it can be moved.
        let named = |file: &Path| file.strip_prefix(&self.dir).unwrap_or(file).to_owned();
        let paths = DevPaths {
            address: self
                .listen
                .map_or_else(|| ADDRESS.to_owned(), |address| address.to_string()),
            certificate: named(&dev.server.certificate),
            key: named(&dev.server.key),
            bundle: named(&dev.ca_pem),
            registry: named(&dev.registry),
            audit: "audit.jsonl".into(),
            files: "files".into(),
            ca: named(dev.ca.dir()),
        };
        write_atomic(&path, Config::dev_example(&paths).as_bytes(), 0o600).map_err(|cause| {
            Failure::setup(cause).with_hint("choose another folder by `--dir DIR`")
        })?;
        Ok(path)
    }

    /// The demo files, once: who deletes them does not get them back.
    fn demo(&self) -> Result<(), Failure> {
        let folder = self.dir.join("files");
        if folder.exists() {
            return Ok(());
        }
        let fail =
            |cause| Failure::setup(format!("cannot write in `{}`: {cause}", folder.display()));
        // Filled before it gets its name: a run that is killed leaves all of it or nothing.
        let fresh = self.dir.join("files.new");
        std::fs::create_dir_all(&fresh).map_err(fail)?;
        for (name, content) in DEMO {
            std::fs::write(fresh.join(name), content).map_err(fail)?;
        }
        std::fs::rename(&fresh, &folder).map_err(fail)
    }

    fn welcome(&self, dev: &Dev, config: &Path, audit: &Path, ready: &Ready) -> String {
        let listening: Vec<String> = ready.addresses.iter().map(ToString::to_string).collect();
        let now = unix_now();
        let row = |member: &Member| {
            let grants: Vec<String> = member
                .grants
                .entries()
                .iter()
                .map(ToString::to_string)
                .collect();
            vec![
                member.role.to_owned(),
                grants.join("\n"),
                member.remaining(now),
                member.certificate.display().to_string(),
            ]
        };
        let who = table(
            &["who", "may use", "valid", "certificate"],
            &[row(&dev.operator), row(&dev.reader)],
        );
        let commands: Vec<String> = self
            .commands(ready)
            .iter()
            .map(|command| format!("  {command}\n"))
            .collect();
        format!(
            "\nCountersign listens on {}: MCP over TLS 1.3, a client certificate required.\n\n{who}\n\n\
             Configuration  {}\nAudit log      {}\nDemo files     {}\n\n\
             Try in another terminal, in this folder:\n\n{}\nCtrl-C stops the server.\n",
            listening.join(" and "),
            config.display(),
            audit.display(),
            self.dir.join("files").display(),
            commands.concat(),
        )
    }

    /// Commands that work when they are pasted into a shell in this folder.
    fn commands(&self, ready: &Ready) -> Vec<String> {
        let program = quoted(&program());
        let mut at = String::new();
        if let Some(server) = self.server(ready) {
            at.push_str(&format!(" --server {server}"));
        }
        let elsewhere = self.dir != Path::new("pki/dev");
        if elsewhere {
            at.push_str(&format!(" --pki {}", quoted(&self.dir.to_string_lossy())));
        }
        let config = quoted(&self.dir.join("countersign.toml").to_string_lossy());
        let config = if elsewhere {
            format!(" --config {config}")
        } else {
            String::new()
        };
        vec![
            format!("{program} whoami{at}"),
            format!("{program} tools --as reader{at}"),
            format!("{program} call files__read_file path=welcome.md --as reader{at}"),
            format!(
                "{program} call files__write_file path=hello.txt content='hello' --as operator{at}"
            ),
            format!(
                "{program} call files__write_file path=hello.txt content='hello' --as reader{at}    # refused"
            ),
            format!("{program} connect --print-config generic --as reader{at}"),
            format!("{program} audit tail{config}"),
            format!("{program} ca list{config}"),
            format!("{program} ca revoke reader{config}"),
        ]
    }

    /// The address for `--server`; none where the default leads here.
    fn server(&self, ready: &Ready) -> Option<String> {
        let address = ready.addresses.first()?;
        // The certificate is for localhost, 127.0.0.1 and ::1: an address that means "all of them"
        // is reached by the first.
        let reached = if address.ip().is_unspecified() {
            format!("localhost:{}", address.port())
        } else {
            address.to_string()
        };
        (reached != ADDRESS).then_some(reached)
    }
}

fn socket_address(written: &str) -> Result<SocketAddr, String> {
    let wrong = |_| format!("an address and a port are written like `{ADDRESS}` or `[::1]:8443`");
    written.parse().map_err(wrong)
}

/// How this program is called from the working folder.
fn program() -> String {
    let Ok(path) = std::env::current_exe() else {
        return "countersign".to_owned();
    };
    if found_by_name(&path) {
        return "countersign".to_owned();
    }
    let here = std::env::current_dir().ok();
    match here
        .as_deref()
        .and_then(|here| path.strip_prefix(here).ok())
    {
        // With a folder in it, a shell takes it for a path and not for a command.
        Some(relative) if relative.components().count() > 1 => {
            relative.to_string_lossy().into_owned()
        }
        Some(relative) => format!("./{}", relative.to_string_lossy()),
        None => path.to_string_lossy().into_owned(),
    }
}

/// Whether a shell finds this very file under the name `countersign`.
fn found_by_name(program: &Path) -> bool {
    #[expect(
        clippy::disallowed_methods,
        reason = "the command line reads the environment"
    )]
    let path = std::env::var_os("PATH").unwrap_or_default();
    let first = std::env::split_paths(&path)
        .map(|folder| folder.join("countersign"))
        .find(|file| file.is_file());
    let canonical = |file: &Path| file.canonicalize().ok();
    first.is_some_and(|first| canonical(&first) == canonical(program))
}

/// For a POSIX shell.
fn quoted(word: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%=,".contains(c);
    if !word.is_empty() && word.chars().all(harmless) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(dir: &str) -> UpArgs {
        UpArgs {
            dir: dir.into(),
            listen: None,
        }
    }

    fn ready(address: &str) -> Ready {
        Ready {
            addresses: vec![address.parse().unwrap()],
        }
    }

    #[test]
    fn commands_say_where_only_when_it_is_not_the_default() {
        let plain = up("pki/dev").commands(&ready(ADDRESS));
        assert!(
            plain
                .iter()
                .all(|command| !command.contains("--server") && !command.contains("--pki")),
            "{plain:?}"
        );
        let other = up("my dir").commands(&ready("127.0.0.1:9000"));
        assert!(
            other[0].ends_with(" whoami --server 127.0.0.1:9000 --pki 'my dir'"),
            "{}",
            other[0]
        );
        assert!(
            other[6].ends_with(" audit tail --config 'my dir/countersign.toml'"),
            "{}",
            other[6]
        );
        assert_eq!(
            up("x").server(&ready("0.0.0.0:8443")).as_deref(),
            Some("localhost:8443")
        );
    }

    #[test]
    fn an_address_has_a_port() {
        assert!(socket_address("[::1]:9000").is_ok());
        for wrong in ["9000", "127.0.0.1", "localhost:9000"] {
            let said = socket_address(wrong).unwrap_err();
            assert!(said.contains("`127.0.0.1:8443`"), "{said}");
        }
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(
            quoted("target/release/countersign"),
            "target/release/countersign"
        );
        assert_eq!(quoted("it's $HOME"), "'it'\\''s $HOME'");
    }

    #[test]
    fn demo_files_are_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let up = up(dir.path().to_str().unwrap());
        // A run that was killed half-way.
        std::fs::create_dir(dir.path().join("files.new")).unwrap();
        up.demo().unwrap();
        let welcome = dir.path().join("files/welcome.md");
        assert!(welcome.is_file());
        std::fs::remove_file(&welcome).unwrap();
        up.demo().unwrap();
        assert!(!welcome.exists());
    }
}
