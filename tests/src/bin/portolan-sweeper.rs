// SPDX-License-Identifier: Apache-2.0
//! `portolan-sweeper LAB`: removes a lab when the process that owns it, and standard input, is gone.

use anyhow::{Context, Result};

fn main() -> Result<()> {
    let name = std::env::args().nth(1).context("Which lab? Usage: portolan-sweeper LAB")?;
    portolan_lab::site::sweep_after_owner(&name)
}
