//! The `switchboard` command; see [`switchboard::cli`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    switchboard::cli::Cli::parse().run()
}
