//! The `switchboard` command; see [`switchboard::cli`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

/// Chosen by measurement: docs/PERFORMANCE.md.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    switchboard::cli::Cli::parse().run()
}
