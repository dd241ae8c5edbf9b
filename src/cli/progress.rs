//! Progress of slow steps: a spinner or a bar on a terminal, plain lines elsewhere, always on
//! standard error, so that standard output stays log lines and results.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A step without a known length.
#[must_use]
pub fn spinner(message: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(message.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    announce(&bar, message);
    bar
}

/// A step of `length` equal parts.
#[must_use]
pub fn bar(message: &str, length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(length).with_style(style).with_message(message.to_owned());
    announce(&bar, message);
    bar
}

/// Replaces what a spinner says.
pub fn say(bar: &ProgressBar, message: &str) {
    bar.set_message(message.to_owned());
    announce(bar, message);
}

/// Without a terminal indicatif draws nothing; a log should still tell what takes so long.
fn announce(bar: &ProgressBar, message: &str) {
    if bar.is_hidden() {
        eprintln!("{message}");
    }
}
