//! `countersign doctor`.

use clap::Args;
use serde_json::json;

use super::exit::{Exit, Failure};
use super::reach::ReachArgs;
use super::render::Out;
use super::run::on_this_thread;
use crate::client::{Step, StepState, examine};

/// What is typed after `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: ReachArgs,
}

impl DoctorArgs {
    /// Examines, and exits 1 when something is wrong.
    ///
    /// # Errors
    /// stdout cannot be written.
    pub fn run(self, out: &mut Out) -> Result<Exit, Failure> {
        let credentials = match self.reach.files() {
            Ok(_) => Ok(self.reach.credentials()?),
            Err(error) => Err(error),
        };
        let steps = on_this_thread(async { Ok(examine(&self.reach.server, credentials).await) })?;
        let well = steps.iter().all(|step| step.state != StepState::Failed);
        if self.json {
            out.json(
                &json!({ "server": self.reach.server.address(), "ok": well, "steps": steps }),
            )?;
        } else {
            out.line(&shown(&steps))?;
        }
        Ok(if well { Exit::Success } else { Exit::Found })
    }
}

fn shown(steps: &[Step]) -> String {
    let width = steps.iter().map(|step| step.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for step in steps {
        let mark = match step.state {
            StepState::Passed => '✓',
            StepState::Warning => '!',
            StepState::Failed => '✗',
            StepState::Skipped => '-',
        };
        text.push_str(&format!("{mark} {:width$}  {}\n", step.name, step.detail));
        if let Some(hint) = &step.hint {
            text.push_str(&format!("  {:width$}  hint: {hint}\n", ""));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_shows_its_hint_below_it() {
        let step = |name, state, hint: Option<&str>| Step {
            name,
            state,
            detail: "d".into(),
            hint: hint.map(str::to_owned),
        };
        let text = shown(&[
            step("credentials", StepState::Passed, None),
            step("TCP", StepState::Failed, Some("start it")),
            step("TLS", StepState::Skipped, None),
        ]);
        assert_eq!(
            text,
            "✓ credentials  d\n✗ TCP          d\n               hint: start it\n- TLS          d\n"
        );
    }
}
