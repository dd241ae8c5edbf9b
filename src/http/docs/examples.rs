//! An example for every body, answer and parameter of the document. What a schema says itself is taken;
//! the rest is put together from the examples of its fields, so that a new field shows up without
//! anybody's help.

use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;

use crate::error::{PROBLEMS, ProblemKind};

/// Schemas nest, and one that contains itself would never end.
const DEEPEST: usize = 6;

/// Adds the examples that are missing.
pub fn add(document: &mut OpenApi) {
    let Ok(mut value) = serde_json::to_value(&*document) else { return };
    let schemas = value.pointer("/components/schemas").cloned().unwrap_or_default();
    if let Some(paths) = value.get_mut("paths").and_then(Value::as_object_mut) {
        for (path, item) in paths {
            for operation in item.as_object_mut().into_iter().flat_map(Map::values_mut) {
                complete(operation, path, &schemas);
            }
        }
    }
    // What came out of the document goes back into it; a part that it cannot hold would be our own bug,
    // which the tests of the document see.
    if let Ok(completed) = serde_json::from_value(value) {
        *document = completed;
    }
}

fn complete(operation: &mut Value, path: &str, schemas: &Value) {
    for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap_or_default().to_owned();
        fill(parameter, |schema| named(&name).unwrap_or_else(|| of(schema, schemas, 0)));
    }
    let bodies = operation.pointer_mut("/requestBody/content").and_then(Value::as_object_mut);
    for content in bodies.into_iter().flat_map(Map::values_mut) {
        fill(content, |schema| of(schema, schemas, 0));
    }
    let answers = operation.get_mut("responses").and_then(Value::as_object_mut);
    for (status, answer) in answers.into_iter().flatten() {
        let contents = answer.get_mut("content").and_then(Value::as_object_mut);
        for (media_type, content) in contents.into_iter().flatten() {
            if media_type == "application/problem+json" {
                fill(content, |_| problem(status, path));
            } else {
                fill(content, |schema| of(schema, schemas, 0));
            }
        }
    }
}

/// Sets `example`, unless there is one or `schema` is about bytes.
fn fill(content: &mut Value, example: impl Fn(&Value) -> Value) {
    let Some(content) = content.as_object_mut() else { return };
    if content.contains_key("example") || content.contains_key("examples") {
        return;
    }
    if let Some(schema) = content.get("schema") {
        let example = example(schema);
        if !example.is_null() {
            content.insert("example".to_owned(), example);
        }
    }
}

/// Parameters whose name says what they are.
fn named(name: &str) -> Option<Value> {
    Some(match name {
        "If-Match" | "If-None-Match" => json!("\"3\""),
        // The page sends what it shows, and everybody who tries it would send the same.
        "Idempotency-Key" => Value::Null,
        "cursor" => json!("AAZTm6aJQAAAAAAAAAAEEg"),
        "If-Range" => json!("\"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\""),
        "text" => json!("olga"),
        "limit" => json!(50),
        "from" => json!("2026-10-01"),
        "to" => json!("2026-10-31"),
        "city" => json!("novosibirsk"),
        "type" => json!("first_time"),
        "campaign" => json!("novosibirsk_avito"),
        "provider" => json!("mango"),
        "kind" => json!("call"),
        "detail" => json!("added"),
        "phone" => json!("8 913 000-00-01"),
        _ => return None,
    })
}

/// An example of a schema: its own, or one put together from its parts.
fn of(schema: &Value, schemas: &Value, depth: usize) -> Value {
    if depth > DEEPEST {
        return Value::Null;
    }
    if let Some(example) = schema.get("example") {
        return example.clone();
    }
    if let Some(example) =
        schema.pointer("/examples/0").or_else(|| schema.pointer("/enum/0")).or_else(|| schema.get("const"))
    {
        return example.clone();
    }
    if let Some(name) = schema.get("$ref").and_then(Value::as_str).and_then(|target| target.rsplit('/').next()) {
        return of(&schemas[name], schemas, depth + 1);
    }
    if let Some(parts) = schema.get("allOf").and_then(Value::as_array) {
        let fields = parts.iter().filter_map(|part| of(part, schemas, depth + 1).as_object().cloned()).flatten();
        return Value::Object(fields.collect());
    }
    if let Some(choices) = ["oneOf", "anyOf"].iter().find_map(|name| schema.get(*name)?.as_array()) {
        // "This or null" is more telling as this.
        let examples = choices.iter().map(|choice| of(choice, schemas, depth + 1));
        return examples.into_iter().find(|example| !example.is_null()).unwrap_or(Value::Null);
    }
    let is = |name: &str| match &schema["type"] {
        Value::String(kind) => kind == name,
        Value::Array(kinds) => kinds.iter().any(|kind| kind == name),
        _ => false,
    };
    if is("object") {
        let fields = schema["properties"].as_object().into_iter().flatten();
        return Value::Object(fields.map(|(name, field)| (name.clone(), of(field, schemas, depth + 1))).collect());
    }
    if is("array") {
        return Value::Array(vec![of(&schema["items"], schemas, depth + 1)]);
    }
    if is("string") {
        return match schema["format"].as_str() {
            Some("date-time") => json!("2026-10-05T03:20:00Z"),
            Some("date") => json!("2026-10-05"),
            Some("binary") => Value::Null,
            _ => json!("…"),
        };
    }
    if is("integer") || is("number") {
        return schema.get("minimum").cloned().unwrap_or_else(|| json!(1));
    }
    if is("boolean") { json!(true) } else { Value::Null }
}

/// The problem that a status most often means on a path.
fn problem(status: &str, path: &str) -> Value {
    let wanted = match status {
        "401" if path.ends_with("/login") => "bad_credentials",
        "401" if path.contains("/webhooks/") => "bad_signature",
        "401" => "unauthenticated",
        "403" if path.contains("/auth/") => "csrf_token",
        "409" if path.ends_with("/transitions") || path.ends_with("/assign") => "transition_not_allowed",
        "409" => "conflict",
        "503" if path.ends_with("/login") => "overloaded",
        "503" => "database_unavailable",
        _ => "",
    };
    let of_status = |kind: &&ProblemKind| kind.status.as_str() == status;
    let kind = PROBLEMS.iter().filter(of_status).find(|kind| kind.code == wanted);
    let Some(kind) = kind.or_else(|| PROBLEMS.iter().find(of_status)) else { return Value::Null };
    let mut example = json!({
        "type": format!("urn:switchboard:problem:{}", kind.code),
        "title": kind.title,
        "status": kind.status.as_u16(),
        "code": kind.code,
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    });
    if kind.code == "invalid" {
        example["errors"] = json!([{ "pointer": "/address", "detail": "must not be empty" }]);
    }
    if kind.code == "transition_not_allowed" {
        example["allowed"] = json!(["accepted", "waiting"]);
    }
    example
}
