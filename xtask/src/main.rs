// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask`: the one door to building, testing, demonstrating and measuring Portolan.
//!
//! Each subcommand has its module; what they share is [`workspace`] (where things are) and [`process`] (how programs
//! are run and what their failure says). Every command first makes sure, through [`setup`], that what it needs is there.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to the person who typed it")]

mod bench;
mod build;
mod demo;
mod fuzz;
mod lab;
mod lint;
mod process;
mod setup;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Build, test, demonstrate and measure Portolan.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Find or install what building needs: rust-src and bpf-linker.
    Setup,
    /// Compile the eBPF programs, the daemon and the CNI plugin.
    Build(build::Args),
    /// Check style, lints, documentation, licences, duplicate dependencies and the rules of the tree.
    Lint,
    /// Lint, then run every test; needs root.
    Test,
    /// Send random packets through the programs and compare with a model of them; needs root.
    Fuzz(fuzz::Args),
    /// Show a three-node cluster of network namespaces at work; needs root.
    Demo(demo::Args),
    /// Start that cluster to play with, or remove what a killed run left; needs root.
    Lab(lab::Args),
    /// Measure: instructions per connection, time to program Services, time of a pod's attachment.
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Setup => setup::run(),
        Task::Build(args) => build::run(&args),
        Task::Lint => lint::run(),
        Task::Test => test::run(),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Demo(args) => demo::run(&args),
        Task::Lab(args) => lab::run(&args),
        Task::Bench(args) => bench::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
