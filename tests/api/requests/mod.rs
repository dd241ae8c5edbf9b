//! `/api/v1/requests`.

mod concurrency;
mod create;
mod database;
mod edit;
mod hostile;
mod list;
mod money;
mod statements;

use serde_json::Value;

const REQUESTS: &str = "/api/v1/requests";

fn path(id: &Value) -> String {
    format!("{REQUESTS}/{id}")
}

/// The pointers of a problem's field errors, sorted.
fn pointers(problem: &Value) -> Vec<&str> {
    let mut pointers: Vec<&str> =
        problem["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect();
    pointers.sort_unstable();
    pointers
}
