//! Commented documents: the complete example, and the one that `countersign up` writes.
//!
//! The comments come from the schema and the values from the same types that are read, so neither
//! can drift from what the program does.

use std::path::PathBuf;

use crate::backend::files::FilesOptions;
use crate::backend::prompts::{ArgumentOptions, ArgumentType, MessageOptions, PromptOptions, Role};
use crate::policy::{Denials, PolicyOptions, RuleOptions};
use crate::tls::{AnchorOptions, CrlMode, NameFrom, Profile};

use super::render::render;
use super::resolved::Config;
use super::written::{
    AuditSection, CaSection, HealthSection, HttpSection, LimitsSection, ListenSection,
    RegistrySection, ServerSection, TlsSection, Written, WrittenRoles,
};

/// Where `countersign up` keeps what it made, as the configuration beside it names it.
#[derive(Clone, Debug)]
pub struct DevPaths {
    /// Where to listen.
    pub address: String,
    /// The server's chain.
    pub certificate: PathBuf,
    /// The server's key.
    pub key: PathBuf,
    /// The root certificate.
    pub bundle: PathBuf,
    /// The registry.
    pub registry: PathBuf,
    /// The audit log.
    pub audit: PathBuf,
    /// The folder whose files are offered.
    pub files: PathBuf,
    /// The CA's folder.
    pub ca: PathBuf,
}

/// The complete example: every key there is, with its meaning, those with a default commented out.
#[must_use]
pub fn example() -> String {
    let head = "# countersign.toml: every key there is. What is commented out is either the default or an\n\
                # example of a key that is usually left out.\n";
    render(&sample(), head, true)
}

impl Config {
    /// The commented `countersign.toml` that `countersign up` writes.
    #[must_use]
    pub fn dev_example(paths: &DevPaths) -> String {
        let head = "# Made by `countersign up`, for trying things out on this machine. It is read again when it\n\
                    # changes. `countersign config check` tells what is wrong with it, `countersign config\n\
                    # example` shows every key there is.\n";
        render(&dev(paths), head, false)
    }
}

/// Values for the complete example. Everything that can be there is there.
pub(super) fn sample() -> Written {
    let some = |text: &str| Some(text.to_owned());
    Written {
        permission_oid: String::from("1.3.6.1.4.1.32473.8.1"),
        listen: ListenSection::default(),
        tls: TlsSection {
            certificate: "server.pem".into(),
            key: "server.key".into(),
            key_passphrase_file: Some("server.passphrase".into()),
            profile: Profile::Modern,
        },
        anchor: vec![AnchorOptions {
            name: String::from("own"),
            bundle: "root.pem".into(),
            mode: some("pinned"),
            identity_from: NameFrom::Spiffe,
            crl: Some(CrlMode::Require),
            crl_file: Some("root.crl".into()),
            ceiling: Some(vec!["tools:*".into(), "resources:*".into()]),
        }],
        registry: RegistrySection {
            path: Some("registry.sqlite".into()),
            url: some("postgres://countersign@db.example.org/registry?sslrootcert=/etc/db-ca.pem"),
            password_file: Some("registry.password".into()),
            ..RegistrySection::default()
        },
        policy: PolicyOptions {
            denials: Denials::Hide,
            roles: roles(),
            rule: vec![RuleOptions {
                name: String::from("agents do not delete"),
                who: vec!["spiffe://countersign.internal/agents/*".into()],
                deny: vec!["tools:files__delete_*".into()],
            }],
        },
        audit: AuditSection::default(),
        limits: LimitsSection {
            calls_per_second: Some(50),
            call_burst: Some(100),
            idle_timeout: "1h".parse().ok(),
            ..LimitsSection::default()
        },
        http: HttpSection {
            allowed_origins: vec!["https://app.example.com".into()],
            allowed_hosts: vec!["mcp.example.com".into()],
            ..HttpSection::default()
        },
        health: HealthSection {
            listen: some("127.0.0.1:8081"),
        },
        server: ServerSection {
            title: some("Files of the docs team"),
            instructions: some("Read before you write."),
            ..ServerSection::default()
        },
        files: vec![FilesOptions {
            writable: true,
            ..FilesOptions::new("files")
        }],
        prompt: vec![prompt()],
        ca: CaSection {
            dir: Some("ca".into()),
            profiles: Some("profiles".into()),
        },
    }
}

fn dev(paths: &DevPaths) -> Written {
    Written {
        permission_oid: String::from("1.3.6.1.4.1.32473.8.1"),
        listen: ListenSection {
            address: vec![paths.address.clone()],
            ..ListenSection::default()
        },
        tls: TlsSection {
            certificate: paths.certificate.clone(),
            key: paths.key.clone(),
            key_passphrase_file: None,
            profile: Profile::Modern,
        },
        anchor: vec![AnchorOptions {
            name: String::from("dev"),
            bundle: paths.bundle.clone(),
            mode: None,
            identity_from: NameFrom::Spiffe,
            crl: None,
            crl_file: None,
            ceiling: None,
        }],
        registry: RegistrySection {
            path: Some(paths.registry.clone()),
            ..RegistrySection::default()
        },
        // A reader should see why it was refused while somebody tries things out.
        policy: PolicyOptions {
            denials: Denials::Explain,
            roles: roles(),
            rule: Vec::new(),
        },
        audit: AuditSection {
            path: paths.audit.clone(),
            ..AuditSection::default()
        },
        limits: LimitsSection::default(),
        http: HttpSection::default(),
        health: HealthSection::default(),
        server: ServerSection::default(),
        files: vec![FilesOptions {
            writable: true,
            ..FilesOptions::new(&paths.files)
        }],
        prompt: vec![prompt()],
        ca: CaSection {
            dir: Some(paths.ca.clone()),
            profiles: None,
        },
    }
}

fn roles() -> WrittenRoles {
    let reader = [
        "tools:*__list_*",
        "tools:*__read_*",
        "tools:*__search_*",
        "tools:*__file_info",
    ];
    let mut reader: Vec<String> = reader.map(str::to_owned).into();
    reader.extend(["tools:self__whoami", "resources:*", "prompts:*"].map(str::to_owned));
    WrittenRoles::from([
        (String::from("operator"), vec!["*".into(), "admin:*".into()]),
        (String::from("reader"), reader),
    ])
}

fn prompt() -> PromptOptions {
    let argument = |name: &str, description: &str| ArgumentOptions {
        name: name.to_owned(),
        title: None,
        description: Some(description.to_owned()),
        required: false,
        kind: ArgumentType::String,
        values: Vec::new(),
        default: None,
    };
    let length = argument("length", "How long the summary may be");
    PromptOptions {
        name: String::from("summarize"),
        title: Some(String::from("Summarize a file")),
        description: Some(String::from("Asks for a summary of one file")),
        arguments: vec![
            ArgumentOptions {
                required: true,
                ..argument("path", "The file, relative to the folder")
            },
            ArgumentOptions {
                title: Some(String::from("Length")),
                kind: ArgumentType::Enum,
                values: ["short", "long"].map(str::to_owned).into(),
                default: Some(String::from("short")),
                ..length
            },
        ],
        messages: vec![MessageOptions {
            role: Role::User,
            text: String::from("Read the file {{path}} and give me a {{length}} summary of it."),
        }],
    }
}

/// Paths as `countersign up` would give them.
#[cfg(test)]
pub(super) fn dev_paths(folder: &std::path::Path) -> DevPaths {
    DevPaths {
        address: String::from("127.0.0.1:8443"),
        certificate: folder.join("server.pem"),
        key: folder.join("server.key"),
        bundle: folder.join("root.pem"),
        registry: folder.join("registry.sqlite"),
        audit: folder.join("audit.jsonl"),
        files: folder.join("files"),
        ca: folder.join("ca"),
    }
}
