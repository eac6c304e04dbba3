//! Finds why a connection fails: one step after the other, each with what to do next.
//!
//! Changes nothing, here or on the server, beyond one connection that the audit log will show.

use std::time::Duration;

use serde_json::value::RawValue;
use tokio::net::{TcpStream, lookup_host};

use super::credentials::{Credentials, CredentialsError};
use super::dial::{Dialer, TlsClient};
use super::fault::ClientError;
use super::message::Request;
use super::target::Target;
use crate::cert::{DEFAULT_PERMISSION_OID, KeyUri, Parsed, check_private, load_chain};
use crate::clock::{UnixTime, unix_now};

/// How long one step on the network may take.
const STEP: Duration = Duration::from_secs(5);
/// How far two clocks may differ before certificates look too young.
const SKEW: Duration = Duration::from_secs(300);

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StepState {
    /// As it should be.
    Passed,
    /// Works, but not for long or not fully.
    Warning,
    /// The reason.
    Failed,
    /// Not looked at, because an earlier step failed.
    Skipped,
}

/// One step of the examination.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Step {
    /// What was looked at.
    pub name: &'static str,
    /// How it ended.
    pub state: StepState,
    /// What was found.
    pub detail: String,
    /// What to do next, where something is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

const STEPS: [&str; 9] = [
    "credentials",
    "file modes",
    "validity",
    "key",
    "name resolution",
    "TCP",
    "TLS",
    "admission",
    "permissions",
];

/// Goes through every step; those after a failure that they need are skipped. The network is looked
/// at even when the credentials are unusable, as far as it goes without them.
pub async fn examine(
    target: &Target,
    credentials: Result<Credentials, CredentialsError>,
) -> Vec<Step> {
    let mut steps = Vec::with_capacity(STEPS.len());
    let dialer = files(&mut steps, target, credentials);
    let reachable = network(&mut steps, target).await;
    if let (Some(dialer), true) = (dialer, reachable) {
        server(&mut steps, &dialer).await;
    }
    for name in STEPS {
        if !steps.iter().any(|step| step.name == name) {
            steps.push(Step {
                name,
                state: StepState::Skipped,
                detail: "an earlier step failed".into(),
                hint: None,
            });
        }
    }
    steps.sort_by_key(|step| STEPS.iter().position(|name| *name == step.name));
    steps
}

fn passed(name: &'static str, detail: impl Into<String>) -> Step {
    Step {
        name,
        state: StepState::Passed,
        detail: detail.into(),
        hint: None,
    }
}

fn failed(name: &'static str, detail: impl ToString, hint: impl Into<String>) -> Step {
    Step {
        name,
        state: StepState::Failed,
        detail: detail.to_string(),
        hint: Some(hint.into()),
    }
}

fn of_error(name: &'static str, error: &ClientError) -> Step {
    Step {
        name,
        state: StepState::Failed,
        detail: error.to_string(),
        hint: error.hint().map(str::to_owned),
    }
}

/// Credentials, modes, validity, key.
fn files(
    steps: &mut Vec<Step>,
    target: &Target,
    credentials: Result<Credentials, CredentialsError>,
) -> Option<Dialer> {
    let credentials = match credentials {
        Ok(credentials) => credentials,
        Err(error) => {
            steps.push(failed(STEPS[0], &error, error.hint()));
            return None;
        }
    };
    let in_token = KeyUri::is_one(&credentials.key);
    let files = [&credentials.cert, &credentials.key, &credentials.ca];
    for file in files.into_iter().filter(|file| !KeyUri::is_one(file)) {
        if let Err(cause) = std::fs::metadata(file) {
            let hint = "check the path, or choose an identity by `--as NAME`";
            steps.push(failed(
                STEPS[0],
                format!("`{}`: {cause}", file.display()),
                hint,
            ));
            return None;
        }
    }
    steps.push(passed(
        STEPS[0],
        format!("`{}`", credentials.cert.display()),
    ));
    match check_private(&credentials.key) {
        _ if in_token => {
            let what = format!("`{}` stays in its token", credentials.key.display());
            steps.push(passed(STEPS[1], what));
        }
        Ok(()) => steps.push(passed(
            STEPS[1],
            format!("`{}` is private", credentials.key.display()),
        )),
        Err(cause) => {
            let hint = format!("chmod 600 {}", credentials.key.display());
            steps.push(failed(STEPS[1], cause, hint));
        }
    }
    steps.push(validity(&credentials));
    match Dialer::new(target.clone(), &credentials, STEP) {
        Ok(dialer) => {
            steps.push(passed(STEPS[3], "fits the certificate"));
            Some(dialer)
        }
        Err(error) => {
            steps.push(of_error(STEPS[3], &error));
            None
        }
    }
}

fn validity(credentials: &Credentials) -> Step {
    let name = STEPS[2];
    let parsed = load_chain(&credentials.cert)
        .map_err(|cause| cause.to_string())
        .and_then(|chain| {
            let leaf = chain.first().ok_or("no certificate")?;
            Parsed::from_der(leaf, DEFAULT_PERMISSION_OID).map_err(|cause| cause.to_string())
        });
    match parsed {
        Ok(parsed) => judge(
            &parsed.display_name(),
            parsed.not_before,
            parsed.not_after,
            unix_now(),
        ),
        Err(cause) => failed(
            name,
            format!("`{}`: {cause}", credentials.cert.display()),
            "issue it again",
        ),
    }
}

fn judge(who: &str, not_before: UnixTime, not_after: UnixTime, now: UnixTime) -> Step {
    let name = STEPS[2];
    if now < not_before {
        let detail = format!("{who} is valid from {not_before}, and the clock says {now}");
        let hint = if not_before.since(now) < SKEW {
            "the clocks of this machine and of the CA differ: set this one"
        } else {
            "set this machine's clock, or wait"
        };
        return failed(name, detail, hint);
    }
    if now > not_after {
        let detail = format!("{who} ended at {not_after}, and the clock says {now}");
        let hint = "issue a new one with `countersign ca issue NAME` (in development `countersign up` renews it), or set the clock";
        return failed(name, detail, hint);
    }
    let left = not_after.since(now);
    let detail = format!("{who} is valid until {not_after}");
    if left < Duration::from_secs(600) {
        let hint = Some("renew it: connections end when it does".to_owned());
        return Step {
            name,
            state: StepState::Warning,
            detail,
            hint,
        };
    }
    passed(name, detail)
}

/// Name resolution and TCP.
async fn network(steps: &mut Vec<Step>, target: &Target) -> bool {
    let found: Vec<_> = match tokio::time::timeout(STEP, lookup_host(target.address())).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(cause)) => {
            steps.push(failed(
                STEPS[4],
                format!("`{}`: {cause}", target.host()),
                "check the name given by `--server`",
            ));
            return false;
        }
        Err(_) => {
            steps.push(failed(
                STEPS[4],
                "the resolver does not answer",
                "check this machine's name servers",
            ));
            return false;
        }
    };
    let shown: Vec<String> = found
        .iter()
        .map(|address| address.ip().to_string())
        .collect();
    steps.push(passed(
        STEPS[4],
        format!("`{}` is {}", target.host(), shown.join(", ")),
    ));
    let mut last = "no address".to_owned();
    for address in found {
        match tokio::time::timeout(STEP, TcpStream::connect(address)).await {
            Ok(Ok(_)) => {
                steps.push(passed(STEPS[5], format!("{address} accepts connections")));
                return true;
            }
            Ok(Err(cause)) => last = format!("{address}: {cause}"),
            Err(_) => last = format!("{address}: no answer within {STEP:?}"),
        }
    }
    let hint = "is the server running and listening on this port? a firewall in between?";
    steps.push(failed(STEPS[5], last, hint));
    false
}

/// TLS, admission, permissions.
async fn server(steps: &mut Vec<Step>, dialer: &Dialer) {
    let mut client = match dialer.client().await {
        Ok(client) => client,
        Err(error) => return steps.push(of_error(STEPS[6], &error)),
    };
    let agreed = client.agreed().map_or_else(String::new, |a| {
        let group = if a.group.is_empty() {
            "no key exchange"
        } else {
            a.group
        };
        format!("the server is trusted; {}, {}, {group}", a.version, a.suite)
    });
    steps.push(passed(STEPS[6], agreed));
    match ask(&mut client, &Request::new("server/discover")).await {
        Ok(result) => steps.push(passed(STEPS[7], served(&result))),
        Err(error) => {
            let error = dialer.reason(error).await;
            return steps.push(of_error(STEPS[7], &error));
        }
    }
    let whoami = Request::new("tools/call").with_text("name", "self__whoami");
    steps.push(match ask(&mut client, &whoami).await {
        Ok(result) => passed(STEPS[8], permissions(&result)),
        Err(ClientError::Answered(error)) => Step {
            name: STEPS[8],
            state: StepState::Warning,
            detail: format!("`self__whoami` is not to be had: {}", error.message),
            hint: Some("`countersign tools` shows what this identity may call".to_owned()),
        },
        Err(error) => of_error(STEPS[8], &error),
    });
    client.close().await;
}

async fn ask(client: &mut TlsClient, request: &Request<'_>) -> Result<Box<RawValue>, ClientError> {
    match tokio::time::timeout(STEP, client.request(request)).await {
        Ok(answer) => answer,
        Err(_) => Err(ClientError::Timeout {
            peer: client.peer().to_owned(),
            after: STEP,
        }),
    }
}

fn served(result: &RawValue) -> String {
    let value: serde_json::Value = serde_json::from_str(result.get()).unwrap_or_default();
    let info = &value["_meta"]["io.modelcontextprotocol/serverInfo"];
    let name = info["name"].as_str().unwrap_or("a server without a name");
    let version = info["version"].as_str().unwrap_or("");
    format!("{} {} answers", plain(name), plain(version)).replace("  ", " ")
}

fn permissions(result: &RawValue) -> String {
    let value: serde_json::Value = serde_json::from_str(result.get()).unwrap_or_default();
    let facts = &value["structuredContent"];
    let name = plain(facts["name"].as_str().unwrap_or("this identity"));
    let layers = facts["permissions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|layer| {
            let grants: Vec<&str> = layer["grants"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|grant| grant.as_str())
                .collect();
            let (source, effect) = (
                layer["source"].as_str().unwrap_or("?"),
                layer["effect"].as_str().unwrap_or("allows"),
            );
            plain(&format!("{source} {effect} {}", grants.join(", ")))
        });
    let layers: Vec<String> = layers.collect();
    if layers.is_empty() {
        name
    } else {
        format!("{name}: {}", layers.join("; "))
    }
}

/// A peer's text without control characters, which could drive a terminal.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judges_validity_by_the_clock() {
        let at = |now: i64| judge("me", UnixTime(10_000), UnixTime(20_000), UnixTime(now));
        assert_eq!(at(15_000).state, StepState::Passed);
        assert_eq!(at(19_900).state, StepState::Warning);
        assert_eq!(at(20_001).state, StepState::Failed);
        assert!(at(9_900).hint.unwrap().contains("clocks"));
        assert!(at(1_000).hint.unwrap().contains("or wait"));
    }

    #[tokio::test]
    async fn looks_at_the_network_without_credentials_and_names_every_step() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target: Target = listener.local_addr().unwrap().to_string().parse().unwrap();
        let none = || {
            Err(CredentialsError::Empty {
                folder: "nowhere".into(),
            })
        };
        let steps = examine(&target, none()).await;
        assert_eq!(steps.iter().map(|s| s.name).collect::<Vec<_>>(), STEPS);
        let state = |steps: &[Step], name| steps.iter().find(|s| s.name == name).unwrap().state;
        assert_eq!(state(&steps, "credentials"), StepState::Failed);
        assert_eq!(state(&steps, "TCP"), StepState::Passed);
        assert_eq!(state(&steps, "TLS"), StepState::Skipped);
        drop(listener);
        assert_eq!(
            state(&examine(&target, none()).await, "TCP"),
            StepState::Failed
        );
    }
}
