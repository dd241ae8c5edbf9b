//! placeholder until the simulator lands.
use crate::config::Config;
use std::process::ExitCode;
/// a
#[derive(Debug, clap::Args)]
pub struct Arguments {}
/// a
pub async fn run(_: Arguments, _: &Config) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
