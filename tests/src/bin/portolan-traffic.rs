// SPDX-License-Identifier: Apache-2.0
//! The process in a node or pod that serves and asks. It reads commands of [`portolan_lab::wire`] from standard input,
//! writes replies to standard output, and ends when its input does.

use anyhow::Result;

fn main() -> Result<()> {
    portolan_lab::traffic::run()
}
