//! All providers under one roof: full names, who owns what, and every list element encoded once.
//!
//! A tool or prompt of provider `files` is called `files__read_file`; a provider with an empty name
//! puts nothing before its own. Filtering by what a caller may use is not done here.

use std::sync::Arc;

use bytes::Bytes;
// Each call is looked up by its name. Which names are in there the configured providers say: no peer
// can fill it with names that collide.
use hashbrown::HashMap;
use tokio::sync::broadcast;

use crate::grant::Kind;

use super::header::{HeaderError, ParamHeader, param_headers};
use super::provider::{Events, Happening, Provider};
use super::schema::Schema;

/// Between a provider's name and the name of its tool.
const SEPARATOR: &str = "__";
/// Happenings that a slow session may fall behind before it loses the oldest.
const EVENTS: usize = 1024;

/// Providers by name, in the order of the configuration, and what they offer.
pub struct Catalogue {
    providers: Vec<(String, Arc<dyn Provider>)>,
    tools: Vec<ToolEntry>,
    tools_by_name: HashMap<String, usize>,
    /// Whether any tool has some: most have none, and each call would look.
    any_headers: bool,
    any_requires: bool,
    prompts: Vec<Listed>,
    prompts_by_name: HashMap<String, usize>,
    templates: Vec<Listed>,
    events: broadcast::Sender<Happening>,
}

/// One element of a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The full name, or the URI template: what is authorized and what pages are ordered by.
    pub key: String,
    /// The element, raw JSON.
    pub json: Bytes,
    /// Index of the provider.
    pub provider: usize,
    /// The provider's own name for it.
    pub local: Arc<str>,
}

/// A tool of the list.
#[derive(Clone, Debug)]
pub struct ToolEntry {
    /// As it is listed.
    pub listed: Listed,
    /// Checked before it runs.
    pub input: Arc<Schema>,
    /// Arguments that HTTP clients repeat in headers, from the schema.
    pub headers: Arc<[ParamHeader]>,
    /// Grants that it needs besides its own.
    pub requires: Arc<[(Kind, String)]>,
}

/// Why providers cannot stand together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogueError {
    /// Two providers have one name.
    #[error("two providers are called `{0}`")]
    Provider(String),
    /// Two tools or prompts have one full name.
    #[error("two {kind} are called `{name}`")]
    Twice {
        /// `tools` or `prompts`.
        kind: &'static str,
        /// The full name.
        name: String,
    },
    /// An `x-mcp-header` in a tool's schema that clients would refuse the tool for.
    #[error("tool `{tool}`: {why}")]
    Header {
        /// The full name.
        tool: String,
        /// What is wrong.
        why: HeaderError,
    },
    /// A name that MCP does not allow.
    #[error("`{0}` cannot be the name of a tool: it must be 1 to 128 of `A-Z a-z 0-9 _ - .`")]
    Name(String),
}

impl Catalogue {
    /// Asks every provider what it offers and attaches it to the events.
    ///
    /// # Errors
    /// Names that clash or that MCP does not allow.
    pub fn new(providers: Vec<(String, Arc<dyn Provider>)>) -> Result<Self, CatalogueError> {
        let (events, _) = broadcast::channel(EVENTS);
        let mut catalogue = Self {
            providers: Vec::new(),
            tools: Vec::new(),
            tools_by_name: HashMap::new(),
            any_headers: false,
            any_requires: false,
            prompts: Vec::new(),
            prompts_by_name: HashMap::new(),
            templates: Vec::new(),
            events,
        };
        for (name, provider) in providers {
            catalogue.add(name, provider)?;
        }
        Ok(catalogue)
    }

    fn add(&mut self, name: String, provider: Arc<dyn Provider>) -> Result<(), CatalogueError> {
        if self.providers.iter().any(|(known, _)| *known == name) {
            return Err(CatalogueError::Provider(name));
        }
        let index = self.providers.len();
        provider.attach(Events(self.events.clone()));
        for tool in provider.tools() {
            let key = full_name(&name, &tool.name);
            check_name(&key)?;
            let mut json = Vec::new();
            tool.encode(&key, &mut json);
            if self
                .tools_by_name
                .insert(key.clone(), self.tools.len())
                .is_some()
            {
                return Err(CatalogueError::Twice {
                    kind: "tools",
                    name: key,
                });
            }
            let listed = Listed {
                key,
                json: json.into(),
                provider: index,
                local: tool.name.into(),
            };
            self.any_requires |= !tool.requires.is_empty();
            let headers =
                param_headers(tool.input.text()).map_err(|why| CatalogueError::Header {
                    tool: listed.key.clone(),
                    why,
                })?;
            self.any_headers |= !headers.is_empty();
            self.tools.push(ToolEntry {
                listed,
                input: tool.input,
                headers: headers.into(),
                requires: tool.requires.into(),
            });
        }
        for prompt in provider.prompts() {
            let key = full_name(&name, &prompt.name);
            let mut json = Vec::new();
            prompt.encode(&key, &mut json);
            if self
                .prompts_by_name
                .insert(key.clone(), self.prompts.len())
                .is_some()
            {
                return Err(CatalogueError::Twice {
                    kind: "prompts",
                    name: key,
                });
            }
            let local = prompt.name.into();
            self.prompts.push(Listed {
                key,
                json: json.into(),
                provider: index,
                local,
            });
        }
        for template in provider.resource_templates() {
            let mut json = Vec::new();
            template.encode(&mut json);
            let (key, local) = (template.uri_template.clone(), template.uri_template.into());
            self.templates.push(Listed {
                key,
                json: json.into(),
                provider: index,
                local,
            });
        }
        self.providers.push((name, provider));
        Ok(())
    }

    /// Providers by name, in the order of the configuration.
    #[must_use]
    pub fn providers(&self) -> &[(String, Arc<dyn Provider>)] {
        &self.providers
    }

    /// The provider of that index.
    #[must_use]
    pub fn provider(&self, index: usize) -> Option<&Arc<dyn Provider>> {
        self.providers.get(index).map(|(_, provider)| provider)
    }

    /// Tools in the order in which they are listed.
    #[must_use]
    pub fn tools(&self) -> &[ToolEntry] {
        &self.tools
    }

    /// Arguments of the tool of that full name that HTTP clients repeat in headers.
    #[must_use]
    pub fn headers(&self, name: &str) -> &[ParamHeader] {
        let tool = self.any_headers.then(|| self.tool(name)).flatten();
        tool.map_or(&[], |tool| &tool.headers)
    }

    /// Grants that the tool of that full name needs besides its own, where it needs any.
    #[must_use]
    pub fn requires(&self, name: &str) -> Option<&Arc<[(Kind, String)]>> {
        let tool = self.any_requires.then(|| self.tool(name)).flatten()?;
        (!tool.requires.is_empty()).then_some(&tool.requires)
    }

    /// The tool of that full name.
    #[must_use]
    pub fn tool(&self, name: &str) -> Option<&ToolEntry> {
        self.tools_by_name
            .get(name)
            .map(|index| &self.tools[*index])
    }

    /// Prompts in the order in which they are listed.
    #[must_use]
    pub fn prompts(&self) -> &[Listed] {
        &self.prompts
    }

    /// The prompt of that full name.
    #[must_use]
    pub fn prompt(&self, name: &str) -> Option<&Listed> {
        self.prompts_by_name
            .get(name)
            .map(|index| &self.prompts[*index])
    }

    /// Resource templates in the order in which they are listed.
    #[must_use]
    pub fn templates(&self) -> &[Listed] {
        &self.templates
    }

    /// The provider that this URI belongs to.
    #[must_use]
    pub fn owner(&self, uri: &str) -> Option<&Arc<dyn Provider>> {
        let provider = self
            .providers
            .iter()
            .find(|(_, provider)| provider.owns_uri(uri));
        provider.map(|(_, provider)| provider)
    }

    /// What happens behind the door, from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Happening> {
        self.events.subscribe()
    }
}

fn full_name(provider: &str, local: &str) -> String {
    if provider.is_empty() {
        local.to_owned()
    } else {
        format!("{provider}{SEPARATOR}{local}")
    }
}

fn check_name(name: &str) -> Result<(), CatalogueError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if name.is_empty() || name.len() > 128 || !name.bytes().all(fits) {
        return Err(CatalogueError::Name(name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::offer::Tool;
    use super::*;

    struct Two(&'static str);

    impl Provider for Two {
        fn tools(&self) -> Vec<Tool> {
            let schema = Arc::new(Schema::new(r#"{"type":"object"}"#).unwrap());
            vec![
                Tool::new(self.0, "d", schema.clone()),
                Tool::new("b", "d", schema),
            ]
        }
    }

    fn catalogue(names: &[(&str, &'static str)]) -> Result<Catalogue, CatalogueError> {
        let provider = |local| Arc::new(Two(local)) as Arc<dyn Provider>;
        Catalogue::new(
            names
                .iter()
                .map(|(n, local)| ((*n).to_owned(), provider(*local)))
                .collect(),
        )
    }

    #[test]
    fn names_are_prefixed_and_must_not_clash() {
        let both = catalogue(&[("x", "a"), ("", "c")]).unwrap();
        let names: Vec<_> = both
            .tools()
            .iter()
            .map(|tool| tool.listed.key.as_str())
            .collect();
        assert_eq!(names, ["x__a", "x__b", "c", "b"]);
        assert_eq!(both.tool("x__b").unwrap().listed.local.as_ref(), "b");
        assert!(both.tool("a").is_none());
        let error = |names: &[(&str, &'static str)]| catalogue(names).err().unwrap();
        let twice = |name: &str| CatalogueError::Twice {
            kind: "tools",
            name: name.into(),
        };
        assert_eq!(
            error(&[("x", "a"), ("x", "c")]),
            CatalogueError::Provider("x".into())
        );
        assert_eq!(error(&[("x", "b")]), twice("x__b"));
        assert_eq!(
            error(&[("", "a"), ("", "c")]),
            CatalogueError::Provider(String::new())
        );
        assert_eq!(
            error(&[("x", "a/b")]),
            CatalogueError::Name("x__a/b".into())
        );
    }
}
