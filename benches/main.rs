//! What Countersign costs, against a floor that lives beside it. `scripts/bench` runs this.
//!
//! One program with several parts: `run` (the load and the table), `floor` (the floor's server, which
//! `run` starts), `served` (Countersign as a library, with a tool that moves as many bytes as it is
//! told to), `registry` and `crowd` (parts that need a process of their own) and `soak` (the load for
//! a long time). Floor and server are measured in turns within one run, so that a machine that
//! changes its speed changes it for both; of the turns the median counts, of calls the lower quartile.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a load generator reads the clock and the environment, and its output is a table"
)]

mod apart;
mod calls;
mod est;
mod floor;
mod floor_web;
mod issuer;
mod load;
mod ours;
mod pki;
mod process;
mod registry;
mod report;
mod run;
mod served;
mod soak;
mod web;
mod web_rows;

use clap::{Parser, Subcommand};

#[derive(Parser, Debug)]
#[command(about = "Measures Countersign against its floor")]
struct Arguments {
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand, Debug)]
enum Part {
    /// The floor's server.
    Floor(floor::FloorArgs),
    /// Countersign as a library, with a tool that moves bytes.
    Served(served::ServedArgs),
    /// Loads a server for a long time and looks whether it comes to rest.
    Soak(soak::SoakArgs),
    /// One part of the measures of the registry, which `run` starts.
    Registry(registry::RegistryArgs),
    /// A crowd of idle connections, which `run` starts.
    Crowd(issuer::CrowdArgs),
    /// Measures everything and prints the table.
    Run(run::RunArgs),
}

fn main() -> std::process::ExitCode {
    let done = match Arguments::parse().part {
        Part::Floor(arguments) => floor::main(&arguments).map(|()| true),
        Part::Served(arguments) => served::main(&arguments).map(|()| true),
        Part::Registry(arguments) => registry::main(&arguments).map(|()| true),
        Part::Crowd(arguments) => issuer::main(&arguments).map(|()| true),
        Part::Soak(arguments) => soak::main(&arguments),
        Part::Run(arguments) => run::main(&arguments),
    };
    match done {
        Ok(true) => std::process::ExitCode::SUCCESS,
        Ok(false) => std::process::ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::from(2)
        }
    }
}
