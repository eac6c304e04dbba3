//! `audit verify` and `audit tail`.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::audit::{Follow, Report, last_lines, log_files, verify_files_holding};

/// Decisions whose caller and target are remembered for their outcomes.
const REMEMBERED: usize = 4096;
/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(200);

/// Read and check the audit log.
#[derive(Debug, Args)]
pub struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Check the hash chain and say where it does not hold
    ///
    /// Exit code 0: intact. 1: something is wrong. 6: a file cannot be read.
    Verify(VerifyArgs),
    /// Show the newest records
    Tail(TailArgs),
}

/// Check the hash chain.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The log's files, in any order; without one, the configured log with its rotated files
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Also read the rotated files beside each FILE (`FILE.1`, `FILE.2` …)
    #[arg(long)]
    rotated: bool,
    /// A record with this hash must be there: noted at an earlier time, it shows that nothing up
    /// to it was removed or rewritten
    #[arg(long, value_name = "HASH", value_parser = hash)]
    expect: Option<String>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Show the newest records.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// The log; without it, the configured one
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// How many records to begin with
    #[arg(short = 'n', long, default_value_t = 20, value_name = "N")]
    lines: usize,
    /// Go on with what comes, across rotations
    #[arg(short, long)]
    follow: bool,
    /// Print the records as they are
    #[arg(long)]
    json: bool,
}

/// Why a command gave up.
#[derive(Debug, thiserror::Error)]
pub enum AuditCommandError {
    /// Neither an argument nor the configuration names a log.
    #[error("no audit log is named")]
    NoFile,
    /// A log that cannot be read.
    #[error("the audit log `{path}` cannot be read: {error}")]
    Read {
        /// The file.
        path: String,
        /// What the operating system said.
        error: io::Error,
    },
    /// A log that cannot be read; the error names the file.
    #[error("the audit log cannot be read: {0}")]
    Verify(io::Error),
    /// The output was closed, say.
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
}

fn hash(text: &str) -> Result<String, String> {
    let text = text.to_ascii_lowercase();
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(text);
    }
    Err(String::from("a hash is 64 hex digits"))
}

impl AuditArgs {
    /// Runs the command. `configured` is the log of the configuration. Returns the exit code.
    ///
    /// # Errors
    /// A log cannot be read (exit code 6), or the output not written.
    pub fn run(
        &self,
        configured: Option<&Path>,
        out: &mut impl Write,
    ) -> Result<u8, AuditCommandError> {
        match &self.command {
            AuditCommand::Verify(args) => args.run(configured, out),
            AuditCommand::Tail(args) => args.run(configured, out),
        }
    }
}

impl VerifyArgs {
    /// Checks and prints the report. Returns 0 for an intact log, 1 for one that is not.
    ///
    /// # Errors
    /// A file cannot be read, or the output not written.
    pub fn run(
        &self,
        configured: Option<&Path>,
        out: &mut impl Write,
    ) -> Result<u8, AuditCommandError> {
        let files = self.files(configured)?;
        let report = verify_files_holding(&files, self.expect.as_deref())
            .map_err(AuditCommandError::Verify)?;
        if self.json {
            serde_json::to_writer_pretty(&mut *out, &report).map_err(io::Error::from)?;
            writeln!(out)?;
        } else {
            print_report(&report, out)?;
        }
        Ok(u8::from(!report.intact()))
    }

    fn files(&self, configured: Option<&Path>) -> Result<Vec<PathBuf>, AuditCommandError> {
        let with_rotated = |path: &Path| {
            let found = log_files(path).map_err(|error| read(path, error))?;
            if found.is_empty() {
                return Err(read(path, io::ErrorKind::NotFound.into()));
            }
            Ok(found)
        };
        if self.files.is_empty() {
            return with_rotated(configured.ok_or(AuditCommandError::NoFile)?);
        }
        if !self.rotated {
            return Ok(self.files.clone());
        }
        let mut files = Vec::new();
        for path in &self.files {
            files.extend(with_rotated(path)?);
        }
        Ok(files)
    }
}

fn read(path: &Path, error: io::Error) -> AuditCommandError {
    AuditCommandError::Read {
        path: path.display().to_string(),
        error,
    }
}

fn print_report(report: &Report, out: &mut impl Write) -> io::Result<()> {
    for finding in &report.findings {
        writeln!(
            out,
            "{}:{}: {} (byte {})",
            finding.file.display(),
            finding.line,
            finding.what,
            finding.offset
        )?;
    }
    if report.more > 0 {
        writeln!(out, "and {} more", report.more)?;
    }
    if report.held == Some(false) {
        writeln!(out, "no record has the expected hash: removed or rewritten")?;
    }
    for path in &report.skipped {
        writeln!(
            out,
            "passed over, not part of the chain: {}",
            path.display()
        )?;
    }
    let (records, files) = (
        counted(report.records, "record"),
        counted(report.files.len() as u64, "file"),
    );
    if report.intact() {
        writeln!(out, "intact: {records} in {files}")?;
    } else {
        let found =
            report.findings.len() as u64 + report.more + u64::from(report.held == Some(false));
        writeln!(
            out,
            "not intact: {} in {records} in {files}",
            counted(found, "finding")
        )?;
    }
    if let (Some(first), Some(last)) = (&report.first, &report.last) {
        writeln!(
            out,
            "first: record {} of {}",
            first.seq,
            printable(&first.time)
        )?;
        if first.seq > 1 {
            writeln!(
                out,
                "       the log has earlier records that are not in these files"
            )?;
        }
        writeln!(
            out,
            "last:  record {} of {}",
            last.seq,
            printable(&last.time)
        )?;
        writeln!(out, "       hash {}", last.hash)?;
    }
    Ok(())
}

fn counted(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

impl TailArgs {
    /// Prints the newest records, and with `--follow` what comes until the output is closed.
    ///
    /// # Errors
    /// The log cannot be read, or the output not written.
    pub fn run(
        &self,
        configured: Option<&Path>,
        out: &mut impl Write,
    ) -> Result<u8, AuditCommandError> {
        let path = self
            .file
            .as_deref()
            .or(configured)
            .ok_or(AuditCommandError::NoFile)?;
        let mut shown = Shown {
            json: self.json,
            recent: Recent::default(),
        };
        // With -n 0 the newest line is still needed, to know where to go on.
        let lines = last_lines(path, self.lines.max(1)).map_err(|error| read(path, error))?;
        let newest = lines.last().and_then(|line| number(line));
        for line in lines.iter().skip(usize::from(self.lines == 0)) {
            shown.line(line, out)?;
        }
        out.flush()?;
        if !self.follow {
            return Ok(0);
        }
        let mut follow = Follow::new(path, newest.unwrap_or(0));
        loop {
            let mut output = Ok(());
            let polled = follow.poll(&mut |line| {
                output = shown.line(line, out);
                if output.is_ok() {
                    Ok(())
                } else {
                    Err(io::ErrorKind::Other.into())
                }
            });
            output?;
            polled.map_err(|error| read(path, error))?;
            out.flush()?;
            std::thread::sleep(POLL);
        }
    }
}

fn number(line: &[u8]) -> Option<u64> {
    serde_json::from_slice::<serde_json::Value>(line)
        .ok()?
        .get("seq")?
        .as_u64()
}

/// Prints records for a person, or as they are.
struct Shown {
    json: bool,
    recent: Recent,
}

/// What recent decisions were about, oldest first.
#[derive(Default)]
struct Recent(VecDeque<(u64, String)>);

impl Recent {
    fn remember(&mut self, seq: u64, what: String) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((seq, what));
    }

    fn find(&self, seq: u64) -> Option<&str> {
        let at = self.0.binary_search_by_key(&seq, |(seq, _)| *seq).ok()?;
        Some(&self.0[at].1)
    }
}

impl Shown {
    fn line(&mut self, line: &[u8], out: &mut impl Write) -> io::Result<()> {
        if self.json {
            out.write_all(line)?;
            return out.write_all(b"\n");
        }
        let text = match serde_json::from_slice(line) {
            Ok(value) => self.rendered(&Record(value)),
            Err(_) => format!(
                "(not a record) {}",
                printable(&String::from_utf8_lossy(line))
            ),
        };
        writeln!(out, "{text}")
    }

    fn rendered(&mut self, record: &Record) -> String {
        let what = match record.text("event") {
            "decision" => self.decision(record),
            "outcome" => self.outcome(record),
            _ => other(record),
        };
        let time = record.text("time").replacen('T', " ", 1);
        let time = time.get(..23).unwrap_or(&time);
        format!("{}  {what}", printable(time))
    }

    fn decision(&mut self, record: &Record) -> String {
        let call = format!(
            "{:<16} {} {}",
            record.who(),
            record.shown("method"),
            record.shown("target")
        );
        let call = call.trim_end().to_owned();
        self.recent.remember(record.number("seq"), call.clone());
        if record.flag("allowed") {
            return format!("{call}  allowed");
        }
        let missing = record.shown("missing");
        let missing = if missing.is_empty() {
            missing
        } else {
            format!(" (missing {missing})")
        };
        format!("{call}  DENIED by {}{missing}", record.shown("by"))
    }

    fn outcome(&self, record: &Record) -> String {
        let decision = record.number("decision");
        let call = match self.recent.find(decision) {
            Some(call) => call.to_owned(),
            None => format!("{:<16} (record {decision})", "?"),
        };
        let outcome = record.shown("outcome").replace('_', " ");
        let code = record
            .0
            .get("code")
            .map_or_else(String::new, |code| format!(" {code}"));
        format!(
            "{call}  -> {outcome}{code} in {}",
            span(record.number("duration_us"))
        )
    }
}

fn other(record: &Record) -> String {
    let who = record.who();
    let event = record.text("event");
    let extra: &[&str] = match event {
        "admitted" => &[
            "fingerprint",
            "source",
            "transport",
            "tls",
            "anchor",
            "not_after",
        ],
        "refused" => &[
            "source",
            "class",
            "reason",
            "claimed_identity",
            "fingerprint",
        ],
        "closed" => &["source", "reason"],
        "server_started" => &["version", "listen", "pid"],
        "reloaded" => &["what", "error"],
        "registry_changed" => &["change", "kind", "fingerprint"],
        "log_recovered" => &[
            "cause",
            "since",
            "refused_calls",
            "lost_records",
            "set_aside",
            "torn_bytes",
        ],
        _ => &["reason", "previous", "version"],
    };
    let mut text = format!("{who:<16} {}", printable(event));
    for key in extra {
        let value = record.shown(key);
        if !value.is_empty() {
            let value = if *key == "fingerprint" {
                value.chars().take(12).collect()
            } else {
                value
            };
            text = format!("{text} {key}={value}");
        }
    }
    match record
        .0
        .get("duration_us")
        .and_then(serde_json::Value::as_u64)
    {
        Some(micros) => format!("{text} after {}", span(micros)),
        None => text,
    }
}

/// One record, read leniently: this is for looking at, not for checking.
struct Record(serde_json::Value);

impl Record {
    fn text(&self, key: &str) -> &str {
        self.0
            .get(key)
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default()
    }

    fn number(&self, key: &str) -> u64 {
        self.0
            .get(key)
            .and_then(serde_json::Value::as_u64)
            .unwrap_or_default()
    }

    fn flag(&self, key: &str) -> bool {
        self.0
            .get(key)
            .and_then(serde_json::Value::as_bool)
            .unwrap_or_default()
    }

    /// The value as text that cannot drive a terminal.
    fn shown(&self, key: &str) -> String {
        match self.0.get(key) {
            None | Some(serde_json::Value::Null) => String::new(),
            Some(serde_json::Value::String(text)) => printable(text),
            Some(value) => value.to_string(),
        }
    }

    /// The short form of the identity: the last segment of a SPIFFE ID.
    fn who(&self) -> String {
        let name = self.text("identity");
        let short = name.rsplit('/').next().unwrap_or(name);
        if short.is_empty() {
            String::from("-")
        } else {
            printable(short)
        }
    }
}

fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if crate::audit::misleading(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

fn span(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => humantime::format_duration(Duration::from_secs(micros / 1_000_000)).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: AuditArgs,
    }

    /// Three records, chained by hand: this test has no way to make a log.
    fn log(dir: &Path) -> PathBuf {
        let bodies = [
            r#""time":"2026-11-21T01:47:23.123456Z","event":"log_started","format":1,"version":"1"}"#,
            r#""time":"2026-11-21T01:47:24.000001Z","event":"decision","identity":"spiffe://x/reader","method":"tools/call","target":"a\u001b[2J\u202e","allowed":true}"#,
            r#""time":"2026-11-21T01:47:24.000002Z","event":"decision","identity":"spiffe://x/reader","method":"tools/call","target":"w","allowed":false,"by":"certificate `reader`","missing":"tools:w"}"#,
            r#""time":"2026-11-21T01:47:24.100002Z","event":"outcome","decision":2,"outcome":"protocol_error","code":-32602,"duration_us":1234}"#,
            r#""time":"2026-11-21T01:47:24.100003Z","event":"refused","source":"[::1]:9","reason":"expired","class":"expired"}"#,
        ];
        let mut prev = "0".repeat(64);
        let mut text = String::new();
        for (n, body) in bodies.iter().enumerate() {
            let line = format!("{{\"seq\":{},\"prev\":\"{prev}\",{body}", n + 1);
            prev = hex::encode(ring::digest::digest(&ring::digest::SHA256, line.as_bytes()));
            text.push_str(&line);
            text.push('\n');
        }
        let path = dir.join("audit.jsonl");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn run(args: &[&str], configured: Option<&Path>) -> (Result<u8, String>, String) {
        let cli = Cli::try_parse_from(["audit"].iter().chain(args)).unwrap();
        let mut out = Vec::new();
        let code = cli
            .args
            .run(configured, &mut out)
            .map_err(|error| error.to_string());
        (code, String::from_utf8(out).unwrap())
    }

    #[test]
    fn verify_says_what_is_intact_and_where_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = log(dir.path());
        let name = path.to_str().unwrap();
        let (code, out) = run(&["verify", name], None);
        assert_eq!(code, Ok(0));
        assert!(
            out.starts_with("intact: 5 records in 1 file\nfirst: record 1 of 2026-"),
            "{out}"
        );
        let hash = out.rsplit("hash ").next().unwrap().trim();
        assert_eq!(run(&["verify", name, "--expect", hash], None).0, Ok(0));
        assert_eq!(
            run(&["verify", name, "--expect", &"0".repeat(64)], None).0,
            Ok(1)
        );
        // The configured log stands in for a file.
        assert_eq!(run(&["verify"], Some(&path)), (Ok(0), out));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("\"allowed\":true", "\"allowed\":null")).unwrap();
        let (code, out) = run(&["verify", name], None);
        assert_eq!(code, Ok(1));
        let second = text.find('\n').unwrap() + 1;
        let what = "altered: the next record names another hash";
        assert!(
            out.starts_with(&format!("{name}:2: {what} (byte {second})\n")),
            "{out}"
        );
        assert!(out.contains("not intact: 1 finding in 5 records in 1 file"));
        let (code, out) = run(&["verify", "--json", name], None);
        let report: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(
            (code, &report["findings"][0]["line"]),
            (Ok(1), &serde_json::json!(2))
        );
    }

    #[test]
    fn a_log_that_is_not_there_is_named() {
        assert_eq!(
            run(&["verify"], None).0.unwrap_err(),
            "no audit log is named"
        );
        for args in [
            &["verify", "/none/a"][..],
            &["verify", "--rotated", "/none/a"],
            &["tail", "/none/a"],
        ] {
            let error = run(args, None).0.unwrap_err();
            assert!(error.contains("`/none/a`"), "{error}");
        }
    }

    #[test]
    fn tail_is_for_people_and_cannot_drive_their_terminal() {
        let dir = tempfile::tempdir().unwrap();
        let path = log(dir.path());
        let (code, out) = run(&["tail"], Some(&path));
        assert_eq!(code, Ok(0));
        assert_eq!(
            out,
            "2026-11-21 01:47:23.123  -                log_started version=1\n\
             2026-11-21 01:47:24.000  reader           tools/call a\\u{1b}[2J\\u{202e}  allowed\n\
             2026-11-21 01:47:24.000  reader           tools/call w  DENIED by certificate `reader` (missing tools:w)\n\
             2026-11-21 01:47:24.100  reader           tools/call a\\u{1b}[2J\\u{202e}  -> protocol error -32602 in 1.2 ms\n\
             2026-11-21 01:47:24.100  -                refused source=[::1]:9 class=expired reason=expired\n"
        );
        let (_, two) = run(&["tail", "-n", "2"], Some(&path));
        assert_eq!(two.lines().count(), 2);
        assert!(
            two.contains("?                (record 2)  -> protocol error"),
            "{two}"
        );
        assert_eq!(run(&["tail", "-n", "0"], Some(&path)).1, "");
        let (_, raw) = run(&["tail", "--json"], Some(&path));
        assert_eq!(raw, std::fs::read_to_string(&path).unwrap());
    }

    #[test]
    fn following_ends_when_the_output_does() {
        struct Closing(usize);
        impl Write for Closing {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(1).ok_or(io::ErrorKind::BrokenPipe)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let path = log(dir.path());
        let cli = Cli::try_parse_from(["audit", "tail", "--json", "-f", "-n", "5"]).unwrap();
        let ended = cli.args.run(Some(&path), &mut Closing(3));
        assert!(matches!(ended, Err(AuditCommandError::Output(_))));
    }
}
