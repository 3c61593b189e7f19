// SPDX-License-Identifier: Apache-2.0
//! `lab`: a cluster of empty nodes to try things in, until Enter or Ctrl-C.

use anyhow::Result;
use clap::Parser;
use portolan_lab::Lab;
use portolan_lab::keep::{End, how_to_enter};

/// A cluster of network namespaces to try things in, until Enter or Ctrl-C.
#[derive(Parser)]
struct Args {
    /// How many nodes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// Start no daemons
    #[arg(long)]
    bare: bool,
}

#[expect(clippy::print_stdout, reason = "a command prints")]
fn main() -> Result<()> {
    let args = Args::parse();
    let end = End::hold_signals()?;
    let mut lab = Lab::new()?;
    for number in 1..=args.nodes {
        lab.node(&format!("n{number}"))?;
    }
    println!("The lab is {}", lab.name());
    if !args.bare {
        lab.start()?;
        println!("{}", how_to_enter(&lab, &[])?);
    }
    println!("Enter or Ctrl-C ends it.");
    end.wait();
    Ok(())
}
