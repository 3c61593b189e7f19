// SPDX-License-Identifier: Apache-2.0
//! The CNI plugin `portolan-cni`: see the library of the same crate.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use portolan_cni::plugin::{self, Output};

fn main() -> ExitCode {
    let Output { stdout, stderr, code } = match std::env::args().nth(1) {
        Some(argument) => plugin::explain(&argument),
        None => plugin::run(|name| std::env::var(name).ok(), io::stdin()),
    };
    let written = io::stdout().write_all(stdout.as_bytes()).and_then(|()| io::stdout().flush());
    // Nobody reads what cannot be written to standard error.
    let _ = io::stderr().write_all(stderr.as_bytes());
    match written {
        Ok(()) => ExitCode::from(code),
        Err(_) => ExitCode::FAILURE,
    }
}
