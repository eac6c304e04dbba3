//! The provider itself: which tool or resource goes to which work.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::grant::Kind as GrantKind;

use super::super::{
    Answer, Arguments, Cancel, Completion, CompletionTarget, Context, Events, Failure, Page,
    Provider, ReadResult, Resource, ResourceTemplate, Tool, ToolResult,
};
use super::options::FilesOptions;
use super::root::{OpenError, Refused, Root};
use super::watch::Watches;
use super::work::Halt;
use super::{read, resources, search, tools, work, write};

/// A folder as tools and resources.
pub struct FilesProvider {
    core: Arc<Core>,
    watches: Watches,
}

struct Core {
    root: Arc<Root>,
    options: FilesOptions,
    tools: Vec<Tool>,
    permits: Arc<Semaphore>,
    searches: Arc<Semaphore>,
}

impl FilesProvider {
    /// Opens the folder.
    ///
    /// # Errors
    /// The folder cannot be read, its path is not UTF-8, or the provider's name is none.
    pub fn open(options: FilesOptions) -> Result<Self, OpenError> {
        if !is_name(&options.name) {
            return Err(OpenError::Name {
                folder: options.root,
                name: options.name,
            });
        }
        let root = Arc::new(Root::open(&options.root, options.hidden)?);
        let tools = tools::tools(&options).map_err(|why| OpenError::Io {
            folder: options.root.clone(),
            cause: std::io::Error::other(why),
        })?;
        let concurrent = usize::try_from(options.max_concurrent).unwrap_or(1).max(1);
        let watches = Watches::new(
            Arc::clone(&root),
            usize::try_from(options.max_watches).unwrap_or(usize::MAX),
        );
        let core = Core {
            root,
            options,
            tools,
            permits: Arc::new(Semaphore::new(concurrent)),
            searches: Arc::new(Semaphore::new((concurrent / 2).max(1))),
        };
        Ok(Self {
            core: Arc::new(core),
            watches,
        })
    }

    /// The provider's name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.core.options.name
    }

    /// `file:///srv/docs/`: what the URIs of its resources begin with.
    #[must_use]
    pub fn uri_prefix(&self) -> &str {
        self.core.root.prefix()
    }

    fn template(&self) -> String {
        // The template's own characters cannot stand in the prefix: braces are encoded in it.
        format!("{}{{+path}}", self.core.root.prefix())
    }

    fn work<T: Send + 'static>(
        &self,
        cancel: Cancel,
        job: impl FnOnce(&Core, &Halt) -> Result<T, Failure> + Send + 'static,
    ) -> Answer<T> {
        let core = Arc::clone(&self.core);
        let permits = vec![Arc::clone(&core.permits)];
        Answer::later(work::run(permits, cancel, move |halt| job(&core, halt)))
    }

    fn tool(
        &self,
        context: &Context,
        job: impl FnOnce(&Core, &Halt) -> Result<ToolResult, Refused> + Send + 'static,
    ) -> Answer<ToolResult> {
        self.work(context.cancel.clone(), |core, halt| {
            as_result(job(core, halt))
        })
    }

    fn search(&self, context: Context, arguments: Arguments) -> Answer<ToolResult> {
        let core = Arc::clone(&self.core);
        // The search's own permit first: searches that wait hold no place of the others.
        let permits = vec![Arc::clone(&core.searches), Arc::clone(&core.permits)];
        let cancel = context.cancel.clone();
        Answer::later(async move {
            let arguments = arguments.parse()?;
            work::run(permits, cancel, move |halt| {
                let found = search::search(&core.root, &core.options, &arguments, &context, halt);
                as_result(found)
            })
            .await
        })
    }
}

/// Two underscores part the provider's name from the tool's.
fn is_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    !name.is_empty() && name.len() <= 64 && name.bytes().all(fits) && !name.contains("__")
}

/// What went wrong with a file is the tool's answer: a model can read it and do better.
fn as_result(done: Result<ToolResult, Refused>) -> Result<ToolResult, Failure> {
    match done {
        Err(Refused::Stopped) => Err(Failure::Cancelled),
        Err(refused) => Ok(ToolResult::error(refused.to_string())),
        Ok(result) => Ok(result),
    }
}

/// What went wrong with a resource: too large is told, everything else does not exist.
fn as_resource<T>(done: Result<T, Refused>) -> Result<T, Failure> {
    done.map_err(|refused| match refused {
        Refused::Stopped => Failure::Cancelled,
        Refused::Other(why) => Failure::InvalidParams(why),
        Refused::Io { path, cause } if cause.kind() != std::io::ErrorKind::PermissionDenied => {
            Failure::Internal(format!("`{path}`: {cause}"))
        }
        _ => Failure::NotFound,
    })
}

/// Parses the arguments, then runs the rest, or answers at once.
macro_rules! parsed {
    ($arguments:expr) => {
        match $arguments.parse() {
            Ok(parsed) => parsed,
            Err(failure) => return Answer::Now(Err(failure)),
        }
    };
}

impl Provider for FilesProvider {
    fn attach(&self, events: Events) {
        self.watches.attach(events);
    }

    fn tools(&self) -> Vec<Tool> {
        self.core.tools.clone()
    }

    fn resource_templates(&self) -> Vec<ResourceTemplate> {
        vec![ResourceTemplate {
            uri_template: self.template(),
            name: self.core.options.name.clone(),
            title: Some("Files".to_owned()),
            description: Some("A file by its path, relative to the folder.".to_owned()),
            mime_type: None,
            more: String::new(),
        }]
    }

    fn owns_uri(&self, uri: &str) -> bool {
        uri.starts_with(self.core.root.prefix())
    }

    fn resources(&self, after: Option<String>, limit: usize) -> Answer<Page<Resource>> {
        self.work(Cancel::default(), move |core, halt| {
            as_resource(resources::page(&core.root, after.as_deref(), limit, halt))
        })
    }

    fn call_tool(&self, context: Context, name: &str, arguments: Arguments) -> Answer<ToolResult> {
        if !self.core.tools.iter().any(|tool| tool.name == name) {
            return Answer::Now(Err(Failure::NotFound));
        }
        match name {
            "list_directory" => {
                let list = parsed!(arguments);
                self.tool(&context, move |core, halt| {
                    read::list_directory(&core.root, &core.options, &list, halt)
                })
            }
            "read_file" => {
                let range = parsed!(arguments);
                self.tool(&context, move |core, _| {
                    read::read_file(&core.root, &core.options, &range)
                })
            }
            "search_files" => self.search(context, arguments),
            "file_info" => {
                let one = parsed!(arguments);
                self.tool(&context, move |core, _| read::file_info(&core.root, &one))
            }
            "write_file" => {
                let file = parsed!(arguments);
                self.tool(&context, move |core, halt| {
                    write::write_file(&core.root, &core.options, &file, halt)
                })
            }
            "delete_file" => {
                let one = parsed!(arguments);
                self.tool(&context, move |core, halt| {
                    write::delete_file(&core.root, &one, halt)
                })
            }
            _ => Answer::Now(Err(Failure::NotFound)),
        }
    }

    fn read_resource(&self, context: Context, uri: &str) -> Answer<ReadResult> {
        let Some(path) = self.core.root.resolve(uri) else {
            return Answer::Now(Err(Failure::NotFound));
        };
        let uri = uri.to_owned();
        self.work(context.cancel, move |core, _| {
            as_resource(read::resource(&core.root, &core.options, &uri, &path))
        })
    }

    fn complete(
        &self,
        context: Context,
        target: CompletionTarget,
        argument: &str,
        value: &str,
        _given: Vec<(String, String)>,
    ) -> Answer<Completion> {
        if target != CompletionTarget::Resource(self.template()) || argument != "path" {
            return Answer::Now(Ok(Completion::default()));
        }
        let value = value.to_owned();
        let grounds = Arc::clone(&context.caller.grounds);
        self.work(context.cancel, move |core, halt| {
            let visible = |uri: &str| grounds.allows(GrantKind::Resources, uri);
            as_resource(resources::complete(&core.root, &value, halt, visible))
        })
    }

    fn watch(&self, uri: &str) -> Result<(), Failure> {
        if !self.core.options.watch {
            let why = format!("`{uri}` cannot be watched: this server does not watch its files");
            return Err(Failure::InvalidParams(why));
        }
        self.watches.watch(uri)
    }

    fn unwatch(&self, uri: &str) {
        self.watches.unwatch(uri);
    }
}
