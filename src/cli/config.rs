//! `config check`, `config schema`, `config example`, and the hidden `config reference`.

use std::io::{self, Write};
use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::config::{Config, Mistake, example, look, reference, schema};

/// Check and describe the configuration
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Tell every mistake of the configuration at once
    ///
    /// Exit code 0: nothing is wrong. 1: there are mistakes. What is right and could not be used on
    /// this machine now, such as a file that is not there, is a warning.
    Check {
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of the configuration
    Schema,
    /// Print a commented example with every key
    Example,
    /// Print the reference of every key as Markdown
    #[command(hide = true)]
    Reference,
}

impl ConfigArgs {
    /// Runs the command on the configuration at `path`; `environment` are the variables that may
    /// override its keys. What was asked for goes to `out`, mistakes and warnings for people to
    /// `err`. Returns the exit code.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn run(
        &self,
        path: &Path,
        environment: impl Iterator<Item = (String, String)>,
        out: &mut impl Write,
        err: &mut impl Write,
    ) -> io::Result<u8> {
        match self.command {
            ConfigCommand::Check { json } => {
                let result = Config::load(path, environment);
                if json {
                    check_json(&result, out)
                } else {
                    check(path, &result, out, err)
                }
            }
            ConfigCommand::Schema => {
                serde_json::to_writer_pretty(&mut *out, &schema())?;
                writeln!(out).map(|()| 0)
            }
            ConfigCommand::Example => out.write_all(example().as_bytes()).map(|()| 0),
            ConfigCommand::Reference => out.write_all(reference().as_bytes()).map(|()| 0),
        }
    }
}

/// Writes mistakes as every command does that needs a configuration.
///
/// # Errors
/// The output cannot be written.
pub fn show_mistakes(mistakes: &[Mistake], err: &mut impl Write) -> io::Result<()> {
    for mistake in mistakes {
        writeln!(err, "error: {mistake}")?;
        if let Some(hint) = &mistake.hint {
            writeln!(err, "hint: {hint}")?;
        }
    }
    Ok(())
}

fn check(
    path: &Path,
    result: &Result<Config, Vec<Mistake>>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    let path = path.display();
    match result {
        Ok(config) => {
            for warning in look(config) {
                writeln!(err, "warning: {warning}")?;
            }
            writeln!(out, "{path}: no mistakes")?;
            Ok(0)
        }
        Err(mistakes) => {
            show_mistakes(mistakes, err)?;
            let count = mistakes.len();
            writeln!(
                out,
                "{path}: {count} mistake{}",
                if count == 1 { "" } else { "s" }
            )?;
            Ok(1)
        }
    }
}

fn check_json(result: &Result<Config, Vec<Mistake>>, out: &mut impl Write) -> io::Result<u8> {
    let (code, report) = match result {
        Ok(config) => (
            0,
            json!({ "valid": true, "mistakes": [], "warnings": look(config) }),
        ),
        Err(mistakes) => (
            1,
            json!({ "valid": false, "mistakes": mistakes, "warnings": [] }),
        ),
    };
    serde_json::to_writer_pretty(&mut *out, &report)?;
    writeln!(out)?;
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(command: ConfigCommand, path: &Path) -> (u8, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = ConfigArgs { command }
            .run(path, std::iter::empty(), &mut out, &mut err)
            .unwrap();
        (
            code,
            String::from_utf8(out).unwrap(),
            String::from_utf8(err).unwrap(),
        )
    }

    #[test]
    fn the_printed_example_passes_the_check() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("countersign.toml");
        let (code, text, _) = run(ConfigCommand::Example, &path);
        assert_eq!(code, 0);
        std::fs::write(&path, text).unwrap();
        let (code, out, err) = run(ConfigCommand::Check { json: false }, &path);
        assert_eq!(code, 0, "{out}{err}");
        assert!(out.ends_with("countersign.toml: no mistakes\n"), "{out}");
        assert!(
            err.contains("warning: `tls.certificate`: cannot read"),
            "{err}"
        );
    }

    #[test]
    fn mistakes_are_told_to_people_and_programs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("countersign.toml");
        let text = example().replace("[listen]", "[lisetn]");
        std::fs::write(&path, text).unwrap();
        let (code, out, err) = run(ConfigCommand::Check { json: false }, &path);
        assert_eq!(code, 1);
        assert!(out.ends_with("1 mistake\n"), "{out}");
        assert!(
            err.contains("unknown key `lisetn`\nhint: did you mean `listen`?\n"),
            "{err}"
        );
        let (code, out, err) = run(ConfigCommand::Check { json: true }, &path);
        let report: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, err.as_str()), (1, ""));
        assert_eq!(report["valid"], false);
        assert_eq!(report["mistakes"][0]["key"], "lisetn");
        assert!(report["mistakes"][0]["line"].as_u64() > Some(1));
    }

    #[test]
    fn the_schema_is_json() {
        let (code, out, _) = run(ConfigCommand::Schema, Path::new("x"));
        let schema: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, &schema["title"]), (0, &json!("countersign.toml")));
    }
}
