// SPDX-License-Identifier: Apache-2.0
//! The command `portolan`.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use portolan::cli::{Cli, FAILED};

fn main() -> ExitCode {
    Cli::parse().execute().unwrap_or_else(|error| {
        // Nothing is left to be done when even this cannot be said.
        let _ = writeln!(io::stderr(), "portolan: {error:#}");
        ExitCode::from(FAILED)
    })
}
