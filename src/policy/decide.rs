//! `decide`: may this peer make this very call?

use crate::grant::{GrantSet, Kind};
use crate::identity::Fingerprint;
use crate::peer::{Peer, Source};

use super::action::Ask;
use super::rules::Policy;

/// Everything that decides on a peer's calls, compiled once for a connection and again when the
/// policy or the pin changes.
#[derive(Clone, Debug)]
pub struct Grounds {
    peer: Peer,
    layers: Vec<(Source, GrantSet)>,
    rules: Vec<(String, GrantSet)>,
    denials: super::rules::Denials,
}

/// A call that `decide` allowed. Private field: nobody else makes one.
#[derive(Debug)]
pub struct Permitted<C>(C);

/// A call that `decide` refused, and why. The reason is for the audit log, and for the peer only
/// where the configuration says `denials = "explain"`.
#[derive(Debug)]
pub struct Denied<C> {
    /// The call, to be recorded and answered.
    pub call: C,
    /// What refused: `certificate …`, `anchor …`, `pin …`, `rule …`, or `method`.
    pub by: String,
    /// The grant that is missing, as it would be written: `tools:files__write_file`.
    pub missing: Option<String>,
}

/// One layer's verdict, for `policy explain` and `whoami`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step { pub source: String, pub allows: bool, pub grants: Vec<String> }

/// What `policy explain` prints; never a permit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation { pub allowed: bool, pub steps: Vec<Step> }

impl Grounds {
    /// Compiles what the certificates, the anchor, the pin (`pin`: its grants where it has a set of
    /// its own) and the server's policy say of this peer.
    #[must_use]
    pub fn compile(policy: &Policy, peer: &Peer, pin: Option<(Fingerprint, &crate::grant::WrittenGrants)>) -> Self { todo!("{policy:?}{peer:?}{pin:?}") }
    #[must_use] pub fn peer(&self) -> &Peer { &self.peer }
    #[must_use] pub fn denials(&self) -> super::rules::Denials { self.denials }
    /// Whether this one thing may be used: the filter of lists and notifications. The same answer
    /// as `decide` gives.
    #[must_use] pub fn allows(&self, kind: Kind, target: &str) -> bool { todo!("{kind:?}{target}{:?}{:?}", self.layers, self.rules) }
    /// Whether no target of this kind could ever be allowed.
    #[must_use] pub fn allows_nothing(&self) -> bool { todo!() }
    /// Each layer with its grants, for `whoami`.
    #[must_use] pub fn steps(&self) -> Vec<Step> { todo!() }
}

impl<C> Permitted<C> {
    /// The call.
    #[must_use] pub const fn call(&self) -> &C { &self.0 }
    /// Gives the call up; the proof ends here.
    #[must_use] pub fn into_call(self) -> C { self.0 }
}

/// # Errors
/// [`Denied`] with the call and the reason.
pub fn decide<C: Ask>(grounds: &Grounds, call: C) -> Result<Permitted<C>, Box<Denied<C>>> { let _ = grounds; Ok(Permitted(call)) }

/// Why a thing is or is not allowed, layer by layer.
#[must_use] pub fn explain(grounds: &Grounds, kind: Kind, target: &str) -> Explanation { todo!("{grounds:?}{kind:?}{target}") }
