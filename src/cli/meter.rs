//! Progress and logs of a running call, on stderr, and progress only for a person.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::render::plain;
use crate::client::Event;

/// Steps of the bar: progress may be a fraction.
const STEPS: f64 = 1000.0;

/// Shows what a call says on its way.
#[derive(Debug, Default)]
pub struct Meter {
    bar: Option<ProgressBar>,
}

impl Meter {
    /// Whether anybody would see progress, so that it is worth asking for.
    #[must_use]
    pub fn wanted() -> bool {
        std::io::stderr().is_terminal()
    }

    /// Shows one event.
    pub fn hear(&mut self, event: Event) {
        match event {
            Event::Progress {
                progress,
                total,
                message,
            } => self.progress(progress, total, message.as_deref()),
            Event::Log {
                level,
                logger,
                data,
            } => {
                let from = logger.map_or_else(String::new, |logger| format!(" {}", plain(&logger)));
                let text = serde_json::from_str::<String>(data.get())
                    .unwrap_or_else(|_| data.get().to_owned());
                self.say(&format!("{}{from}: {}", plain(&level), plain(&text)));
            }
        }
    }

    /// Takes the bar away, before anything else is printed.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn say(&self, line: &str) {
        let write = || {
            use std::io::Write;
            // Without a stderr there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "{line}");
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn progress(&mut self, progress: f64, total: Option<f64>, message: Option<&str>) {
        if !Self::wanted() {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let amount = match total {
            Some(total) => format!("{progress} of {total}"),
            None => progress.to_string(),
        };
        if let Some(share) = share(progress, total) {
            bar.set_style(style("{spinner} [{wide_bar}] {prefix} {msg}"));
            bar.set_length(steps(1.0));
            bar.set_position(steps(share));
        } else {
            bar.set_style(style("{spinner} {prefix} {msg}"));
        }
        bar.set_prefix(amount);
        if let Some(message) = message {
            bar.set_message(plain(message));
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.finish();
    }
}

/// How much of the whole is done, where there is a whole.
fn share(progress: f64, total: Option<f64>) -> Option<f64> {
    let total = total.filter(|total| total.is_finite() && *total > 0.0)?;
    progress
        .is_finite()
        .then(|| (progress / total).clamp(0.0, 1.0))
}

fn steps(share: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to 1 times 1000"
    )]
    let steps = (share * STEPS) as u64;
    steps
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_between_nothing_and_all() {
        assert_eq!(share(50.0, Some(200.0)), Some(0.25));
        assert_eq!(share(300.0, Some(200.0)), Some(1.0));
        for (progress, total) in [
            (1.0, None),
            (1.0, Some(0.0)),
            (f64::NAN, Some(1.0)),
            (1.0, Some(f64::INFINITY)),
        ] {
            assert_eq!(share(progress, total), None);
        }
        assert_eq!(steps(0.25), 250);
    }
}
