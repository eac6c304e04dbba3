//! What can be asked of the policy.

use crate::grant::Kind;

/// One thing that a peer wants to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Needs nothing but to be admitted (`ping`, lists, `initialize` …).
    Admitted,
    /// Needs a grant of this kind that matches this target.
    Use(Kind, &'a str),
    /// Needs some target of this URI template to be allowed.
    UseSome(Kind, &'a str),
    /// Never: an unknown method.
    Refused,
}

/// A request that can be decided on and recorded.
pub trait Ask {
    /// What it needs.
    fn action(&self) -> Action<'_>;
    /// The JSON-RPC method.
    fn method(&self) -> &str;
    /// The tool, URI or prompt that it names, for the audit log; empty when it names none.
    fn target(&self) -> &str;
    /// The request id as a raw JSON token; empty for a notification.
    fn request_id(&self) -> &[u8];
    /// The arguments as raw JSON, of which the audit log keeps a digest.
    fn arguments(&self) -> Option<&[u8]>;
    /// Grants that the target needs besides its own; every one must be allowed.
    fn also(&self) -> &[(Kind, String)] {
        &[]
    }
    /// The protocol revision that the request is served in.
    fn revision(&self) -> &'static str;
}

/// A call is passed on from step to step; in a box it is not copied each time.
impl<A: Ask> Ask for Box<A> {
    fn action(&self) -> Action<'_> {
        (**self).action()
    }

    fn method(&self) -> &str {
        (**self).method()
    }

    fn target(&self) -> &str {
        (**self).target()
    }

    fn request_id(&self) -> &[u8] {
        (**self).request_id()
    }

    fn arguments(&self) -> Option<&[u8]> {
        (**self).arguments()
    }

    fn also(&self) -> &[(Kind, String)] {
        (**self).also()
    }

    fn revision(&self) -> &'static str {
        (**self).revision()
    }
}
