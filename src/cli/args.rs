//! The command line as it is typed.

use clap::{Parser, Subcommand};

use super::exit::EXIT_CODES;

/// A zero-trust MCP server and gateway: mutual TLS in, permissions from the certificate, every
/// decision in the audit log.
#[derive(Debug, Parser)]
#[command(name = "countersign", version, after_help = EXIT_CODES, disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    /// What is logged to stderr: `error`, `warn`, `info`, `debug`, `trace`, or a filter by module.
    /// Default: `info` for `up` and `serve`, nothing for the others
    #[arg(long, global = true, env = "COUNTERSIGN_LOG", value_name = "FILTER")]
    pub log: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Try it out: make a CA, certificates and a configuration in `pki/dev`, and serve
    Up(super::up::UpArgs),
    /// Serve what the configuration says
    Serve(super::serve::ServeArgs),
    /// Call a tool
    Call(super::call::CallArgs),
    /// List the tools that this identity may call
    Tools(super::lists::ListArgs),
    /// List the resources that this identity may read, and their templates
    Resources(super::lists::ListArgs),
    /// Read a resource
    Read(super::read::ReadArgs),
    /// List the prompts that this identity may use
    Prompts(super::lists::ListArgs),
    /// Fill in a prompt
    Prompt(super::prompt::PromptArgs),
    /// Show who the server takes this client for, and what it may do
    Whoami(super::whoami::WhoamiArgs),
    /// Measure round trips to the server
    Ping(super::ping::PingArgs),
    /// Bridge stdin and stdout to the server, for any MCP client
    Connect(super::connect::ConnectArgs),
    /// Enrol with a token of `countersign ca invite`: the key is made here and stays here
    Join(super::join::JoinArgs),
    /// Renew the certificate of an identity that `join` enrolled
    Renew(super::renew::RenewArgs),
    /// Find out why a connection fails
    Doctor(super::doctor::DoctorArgs),
    /// Make a CA, issue certificates, list and revoke them
    Ca(super::administer::CaArgs),
    /// Pin certificates of other CAs, list and unpin them
    Pin(super::administer::PinArgs),
    /// Check and describe the configuration
    Config(super::administer::ConfigCommandArgs),
    /// Ask the policy
    Policy(super::administer::PolicyCommandArgs),
    /// Read and check the audit log
    Audit(super::administer::AuditCommandArgs),
    /// Print a completion script for a shell
    Completions(super::completions::CompletionsArgs),
    /// Print the man page
    Man(super::man::ManArgs),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
