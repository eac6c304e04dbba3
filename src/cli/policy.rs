//! `policy explain`: would this certificate be let in and allowed this thing, and what decides.
//!
//! Asks the same code as a server does, on the same files; makes no peer and no permit.

use std::path::Path;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cert::{FileError, load_chain};
use crate::clock::UnixTime;
use crate::config::Config;
use crate::grant::Kind;
use crate::identity::Fingerprint;
use crate::peer::Chain;
use crate::policy::explain_chain;
use crate::registry::{self, Enrolment, RegistryPlace, Store, StoreError, View};
use crate::tls::{Trust, TrustError};

use super::render::table;

/// The longest way from a leaf to its root that is looked up in the registry.
const LONGEST_CHAIN: usize = 8;

/// Ask the policy
#[derive(Debug, Args)]
pub struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Say whether somebody may use something, and what decides
    ///
    /// Exit code 0: allowed. 1: not allowed, or not even let in.
    Explain(ExplainArgs),
}

/// Say whether somebody may use something, and what decides
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Name, fingerprint or serial number of an enrolled certificate, or a PEM file with a chain
    who: String,
    /// The thing, as a call names it: `tools:files__read_file`, `resources:file:///srv/a`,
    /// `prompts:summarize`, `admin:status`
    #[arg(value_name = "KIND:TARGET", value_parser = thing)]
    what: (Kind, String),
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "each passes on the error of the step that it is named for"
)]
pub enum PolicyCommandError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Trust(Vec<TrustError>),
}

impl PolicyCommandError {
    /// What to do about it, where there is something to say.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Store(StoreError::NotFound(_)) => {
                Some("`countersign ca list` shows who is enrolled; a path to a PEM file does too")
            }
            Self::Trust(_) => Some("`countersign config check` tells what a server would miss"),
            _ => None,
        }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// The name that a server would know it by; what was asked for, where it is not let in.
    pub who: String,
    /// The certificate.
    pub fingerprint: String,
    /// The thing.
    pub what: String,
    /// Whether it would be let in and allowed.
    pub allowed: bool,
    /// Why it would not even be let in.
    pub refused: Option<String>,
    /// Every layer and rule, in the order in which they are asked.
    pub steps: Vec<ExplainedStep>,
    #[serde(skip)]
    json: bool,
}

/// One layer or rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedStep {
    /// `certificate …`, `anchor …`, `pin …` or `rule …`.
    pub source: String,
    /// Whether it lets the thing pass.
    pub allows: bool,
    /// What it allows, or denies where it is a rule.
    pub grants: Vec<String>,
    /// Roles that it names and the configuration does not define.
    pub unknown_roles: Vec<String>,
}

impl PolicyArgs {
    /// Asks, on the current tokio runtime.
    ///
    /// # Errors
    /// The registry or a file cannot be read, or nobody of that name is enrolled.
    pub async fn run(
        self,
        config: &Config,
        now: UnixTime,
    ) -> Result<Explained, PolicyCommandError> {
        let PolicyCommand::Explain(args) = self.command;
        args.run(config, now).await
    }
}

impl ExplainArgs {
    async fn run(self, config: &Config, now: UnixTime) -> Result<Explained, PolicyCommandError> {
        let store = Registry::open(&config.registry.place).await;
        let presented = presented(&self.who, &store, now).await?;
        let leaf = presented.first().map(|der| Fingerprint::of_der(der));
        let view = Arc::new(View::default());
        let trust = Trust::load(
            &config.anchors,
            &config.permission_oid,
            Arc::clone(&view),
            config.tls.profile,
        );
        let trust = trust.map_err(PolicyCommandError::Trust)?;
        let (kind, target) = &self.what;
        let mut explained = Explained {
            who: self.who.clone(),
            fingerprint: leaf.map(|print| print.to_string()).unwrap_or_default(),
            what: format!("{}:{target}", kind.as_str()),
            allowed: false,
            refused: None,
            steps: Vec::new(),
            json: self.json,
        };
        let chain = match trust.chain_of(&presented, now) {
            Ok(chain) => chain,
            Err(refusal) => {
                explained.refused = Some(refusal.reason);
                return Ok(explained);
            }
        };
        explained.who = chain.name.to_string();
        store.fill(&view, &chain).await?;
        let pin = match trust.standing(&chain, now) {
            Ok(pin) => pin,
            Err(refusal) => {
                explained.refused = Some(refusal.reason);
                return Ok(explained);
            }
        };
        let pin = pin
            .as_ref()
            .and_then(|pin| Some((pin.fingerprint, pin.grants.as_deref()?)));
        let explanation = explain_chain(&config.policy, &chain, pin, *kind, target);
        explained.allowed = explanation.allowed;
        explained.steps = explanation
            .steps
            .into_iter()
            .map(|step| ExplainedStep {
                source: step.source,
                allows: step.allows,
                grants: step.grants,
                unknown_roles: step.unknown_roles,
            })
            .collect();
        Ok(explained)
    }
}

impl Explained {
    /// The process's exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        u8::from(!self.allowed)
    }

    /// What to print: JSON where that was asked for.
    #[must_use]
    pub fn render(&self) -> String {
        if self.json {
            let text = serde_json::to_string_pretty(self).expect("strings and lists are JSON");
            return text + "\n";
        }
        if let Some(reason) = &self.refused {
            return format!("no: {} would not be let in: {reason}\n", self.who);
        }
        let (answer, verb) = if self.allowed {
            ("yes", "may")
        } else {
            ("no", "may not")
        };
        let mut text = format!("{answer}: {} {verb} use `{}`\n\n", self.who, self.what);
        let rows = self.steps.iter().map(|step| {
            let mut grants = step.grants.join(" ");
            for role in &step.unknown_roles {
                grants += &format!(" (role:{role} is not defined)");
            }
            let verdict = if step.allows {
                "lets it pass"
            } else {
                "stands in the way"
            };
            vec![step.source.clone(), verdict.to_owned(), grants]
        });
        text += &table(&["layer", "verdict", "grants"], &rows.collect::<Vec<_>>());
        text.truncate(text.trim_end().len());
        text + "\n"
    }
}

/// The registry, or why there is none: certificates of a file may do without.
struct Registry(Result<Arc<dyn Store>, StoreError>);

impl Registry {
    async fn open(place: &RegistryPlace) -> Self {
        Self(registry::open(place, false).await)
    }

    fn store(&self) -> Result<&Arc<dyn Store>, StoreError> {
        self.0.as_ref().map_err(Clone::clone)
    }

    async fn get(&self, fingerprint: Fingerprint) -> Result<Option<Enrolment>, StoreError> {
        match &self.0 {
            Ok(store) => store.get(fingerprint).await,
            Err(StoreError::Unreachable { .. }) => Ok(None),
            Err(error) => Err(error.clone()),
        }
    }

    /// Puts into `view` what the registry has of this chain.
    async fn fill(&self, view: &View, chain: &Chain) -> Result<(), StoreError> {
        let mut outlines = Vec::new();
        for fingerprint in std::iter::once(&chain.fingerprint).chain(&chain.issuers) {
            outlines.extend(
                self.get(*fingerprint)
                    .await?
                    .map(|enrolment| enrolment.outline()),
            );
        }
        view.apply(&outlines);
        Ok(())
    }
}

/// What somebody would present, DER, leaf first.
async fn presented(
    who: &str,
    registry: &Registry,
    now: UnixTime,
) -> Result<Vec<Vec<u8>>, PolicyCommandError> {
    if Path::new(who).is_file() {
        return Ok(load_chain(Path::new(who))?);
    }
    let leaf = registry.store()?.find(who, now).await?;
    let mut issuer = leaf.issuer;
    let mut chain = vec![leaf.der];
    while let Some(fingerprint) = issuer
        && chain.len() < LONGEST_CHAIN
    {
        let Some(above) = registry.get(fingerprint).await? else {
            break;
        };
        issuer = above.issuer.filter(|next| *next != fingerprint);
        chain.push(above.der);
    }
    Ok(chain)
}

/// `kind:target`, where the target is a name and no pattern.
fn thing(text: &str) -> Result<(Kind, String), String> {
    let (word, target) = text
        .split_once(':')
        .ok_or("write it as `tools:files__read_file`")?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == word);
    let kind = kind.ok_or("the kinds are tools, resources, prompts and admin")?;
    Ok((kind, target.to_owned()))
}
