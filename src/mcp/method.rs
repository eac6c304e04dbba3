//! The method table: every request and notification that is served, and in which era.
//!
//! What is not here is refused: an unknown method has no field that could be authorized.

use super::revision::Era;

/// A request that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// `initialize`
    Initialize,
    /// `server/discover`
    Discover,
    /// `ping`
    Ping,
    /// `tools/list`
    ToolsList,
    /// `tools/call`
    ToolsCall,
    /// `resources/list`
    ResourcesList,
    /// `resources/templates/list`
    TemplatesList,
    /// `resources/read`
    ResourcesRead,
    /// `resources/subscribe`
    Subscribe,
    /// `resources/unsubscribe`
    Unsubscribe,
    /// `prompts/list`
    PromptsList,
    /// `prompts/get`
    PromptsGet,
    /// `completion/complete`
    Complete,
    /// `logging/setLevel`
    SetLevel,
    /// `subscriptions/listen`
    Listen,
    /// Any other method.
    Unknown,
}

/// A row: name, method, whether the legacy and the modern era have it.
const TABLE: [(&str, Method, bool, bool); 15] = [
    ("tools/call", Method::ToolsCall, true, true),
    ("tools/list", Method::ToolsList, true, true),
    ("resources/read", Method::ResourcesRead, true, true),
    ("resources/list", Method::ResourcesList, true, true),
    (
        "resources/templates/list",
        Method::TemplatesList,
        true,
        true,
    ),
    ("resources/subscribe", Method::Subscribe, true, false),
    ("resources/unsubscribe", Method::Unsubscribe, true, false),
    ("prompts/list", Method::PromptsList, true, true),
    ("prompts/get", Method::PromptsGet, true, true),
    ("completion/complete", Method::Complete, true, true),
    ("logging/setLevel", Method::SetLevel, true, false),
    ("subscriptions/listen", Method::Listen, false, true),
    ("server/discover", Method::Discover, false, true),
    ("initialize", Method::Initialize, true, false),
    ("ping", Method::Ping, true, false),
];

impl Method {
    /// The method of that name in that era; [`Method::Unknown`] where the era does not have it.
    #[must_use]
    pub fn named(name: &str, era: Era) -> Self {
        TABLE
            .iter()
            .find(|row| row.0 == name)
            .filter(|row| if era == Era::Modern { row.3 } else { row.2 })
            .map_or(Self::Unknown, |row| row.1)
    }

    /// Its name on the wire; none for an unknown one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        TABLE.iter().find(|row| row.1 == self).map(|row| row.0)
    }

    /// Whether its complete results carry `ttlMs` and `cacheScope` in the modern era.
    #[must_use]
    pub const fn is_cacheable(self) -> bool {
        matches!(
            self,
            Self::Discover
                | Self::ToolsList
                | Self::PromptsList
                | Self::ResourcesList
                | Self::TemplatesList
                | Self::ResourcesRead
        )
    }
}

/// A notification that is understood; every other one is ignored, as JSON-RPC asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// `notifications/initialized`
    Initialized,
    /// `notifications/cancelled`
    Cancelled,
}

impl Note {
    /// The notification of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "notifications/initialized" => Some(Self::Initialized),
            "notifications/cancelled" => Some(Self::Cancelled),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_of_the_other_era_is_unknown() {
        assert_eq!(Method::named("ping", Era::Legacy), Method::Ping);
        assert_eq!(Method::named("ping", Era::Modern), Method::Unknown);
        assert_eq!(
            Method::named("subscriptions/listen", Era::Modern),
            Method::Listen
        );
        assert_eq!(
            Method::named("subscriptions/listen", Era::Legacy),
            Method::Unknown
        );
        assert_eq!(Method::named("tools/Call", Era::Modern), Method::Unknown);
    }
}
