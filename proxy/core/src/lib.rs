// SPDX-License-Identifier: Apache-2.0
#![forbid(unsafe_code)]
//! The deciding half of Portolan.
pub mod event;
pub mod object;
pub mod state;
