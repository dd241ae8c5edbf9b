//! `/api/v1/users`.

mod administrators;
mod employees;
mod hostile;
mod list;
mod masters;
mod passports;

use serde_json::{Value, json};

use crate::support::{
    TestApp,
    actor::{Actor, number},
};

const MASTERS: &str = "/api/v1/users/masters";
const EMPLOYEES: &str = "/api/v1/users/employees";
const ADMINISTRATORS: &str = "/api/v1/users/administrators";
const ME: &str = "/api/v1/auth/me";

/// The pointers of a problem's field errors, sorted.
fn pointers(problem: &Value) -> Vec<&str> {
    let mut pointers: Vec<&str> =
        problem["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect();
    pointers.sort_unstable();
    pointers
}

fn login() -> String {
    format!("user.{}", number())
}

fn new_master(cities: &[&str]) -> Value {
    json!({ "login": login(), "name": "Ivan Petrov", "cities": cities, "share": "0.5", "password": "horse battery" })
}

fn new_employee(role: &str, cities: &[&str]) -> Value {
    json!({ "login": login(), "name": "Olga Ivanova", "role": role, "cities": cities, "password": "horse battery" })
}

fn new_administrator() -> Value {
    json!({ "login": login(), "name": "Anna Orlova", "password": "horse battery" })
}

fn with(mut body: Value, field: &str, value: Value) -> Value {
    body[field] = value;
    body
}

/// Signs in somebody with the password of the bodies above.
async fn sign_in(app: &TestApp, login: &Value) -> Actor {
    let mut actor = app.stranger();
    let body = json!({ "login": login, "password": "horse battery", "session": "token" });
    let session = actor.post("/api/v1/auth/login", body).await.expect(200);
    actor.id = session["user_id"].as_i64().unwrap();
    actor.token = session["access_token"].as_str().map(str::to_owned);
    actor
}
