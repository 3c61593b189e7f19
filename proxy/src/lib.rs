// SPDX-License-Identifier: Apache-2.0
//! The shell of the daemon and of its tools.
