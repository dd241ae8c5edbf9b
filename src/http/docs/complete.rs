//! What every operation has in common is said here once, and not by its handler: an id that is unique in
//! the document, who may call it, the media type of problems, the errors that layers and extractors
//! give, and an example of everything.

use std::fmt::Write as _;

use serde_json::{Map, Value};
use utoipa::openapi::{
    Content, Object, ObjectBuilder, OpenApi, Ref, RefOr, Required, ResponseBuilder, Type,
    extensions::ExtensionsBuilder,
    path::{Operation, ParameterBuilder, ParameterIn},
};

use super::examples;
use crate::{
    auth::{
        Action, Role,
        policy::{self, Scope},
    },
    error::{self, ProblemKind},
    http::idempotency,
    requests::state,
};

/// The `x-action` of an operation that needs no session.
pub const PUBLIC: &str = "public";
const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
/// What If-Match takes (RFC 9110 §13.1.1).
const ENTITY_TAGS: &str = r#"^(\*|(W/)?"[^",]*"( *, *(W/)?"[^",]*")*)$"#;

/// Completes the document that the handlers' annotations make.
pub fn complete(document: &mut OpenApi) {
    for item in document.paths.paths.values_mut() {
        if let Some(operation) = &mut item.post {
            say_how_to_send_again(operation);
        }
        let reads = item.get.iter_mut().map(|operation| (operation, false));
        let changes = [&mut item.post, &mut item.patch, &mut item.put, &mut item.delete].into_iter().flatten();
        for (operation, changes) in reads.chain(changes.map(|operation| (operation, true))) {
            name_within_feature(operation);
            say_what_if_match_takes(operation);
            if !changes {
                say_what_is_spared(operation);
            }
            let mut common = say_who_may(operation, changes);
            common.extend(common_errors(operation));
            for kind in common {
                let response = || ResponseBuilder::new().description(kind.title).content("application/json", problem());
                let status = kind.status.as_str().to_owned();
                operation.responses.responses.entry(status).or_insert_with(|| response().build().into());
            }
            name_problems(operation);
        }
    }
    document_moves(document);
    drop_unused_schemas(document);
    examples::add(document);
}

fn tag(operation: &Operation) -> &str {
    operation.tags.iter().flatten().next().map_or("", String::as_str)
}

/// Handlers are named within their feature.
fn name_within_feature(operation: &mut Operation) {
    if let Some(name) = &operation.operation_id {
        operation.operation_id = Some(format!("{}_{name}", tag(operation)));
    }
}

/// ETags in quotes, or `*`. A header is there or it is not: it is never null.
fn say_what_if_match_takes(operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter
            && parameter.name == "If-Match"
        {
            let schema = ObjectBuilder::new().schema_type(Type::String).pattern(Some(ENTITY_TAGS));
            parameter.schema = Some(schema.into());
        }
    }
}

/// A POST takes a key, unless it gives tokens, which are not kept, or is a provider's, whose events have keys of
/// their own.
fn say_how_to_send_again(operation: &mut Operation) {
    if ["auth", "webhooks"].contains(&tag(operation)) {
        return;
    }
    let parameter = ParameterBuilder::new()
        .name(IDEMPOTENCY_KEY)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "Makes it safe to send the same again: whatever was done under this key is not done twice, and answered as the \
             first time, with `Idempotency-Replayed: true`. While the first is being worked on the answer is 409 \
             `idempotency_in_flight`; something else under the same key is 422 `idempotency_key_reused`.",
        ))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String).pattern(Some(idempotency::PATTERN))));
    operation.parameters.get_or_insert_default().push(parameter.build().into());
}

/// Whoever has what would be given, and says so, is not given it again ([`crate::http::caching::spare`]).
fn say_what_is_spared(operation: &mut Operation) {
    let Some(RefOr::T(whole)) = operation.responses.responses.get_mut("200") else { return };
    let Some(RefOr::T(tag)) = whole.headers.get_mut("ETag") else { return };
    tag.description = Some("What If-None-Match wants".to_owned());
    let same = ResponseBuilder::new().description("It still is what If-None-Match says").header("ETag", tag.clone());
    operation.responses.responses.insert("304".to_owned(), same.build().into());
    // Any text: what is no list of tags names nothing, and costs the client no more than the whole answer.
    let parameter = ParameterBuilder::new()
        .name("If-None-Match")
        .parameter_in(ParameterIn::Header)
        .description(Some("The ETag of what the client has"))
        .schema(Some(Object::with_type(Type::String)));
    operation.parameters.get_or_insert_default().push(parameter.build().into());
}

/// Writes the policy's answer for the operation's action, and returns the errors that follow from it.
fn say_who_may(operation: &mut Operation, changes: bool) -> Vec<ProblemKind> {
    let action = operation.extensions.as_ref().and_then(|extensions| extensions.get("x-action")?.as_str());
    let Some(action) = action.and_then(|name| Action::ALL.iter().find(|action| action.as_str() == name)) else {
        return Vec::new();
    };
    let scopes = Role::ALL.iter().map(|role| (*role, policy::scope(*role, *action)));
    let roles: Map<String, Value> = scopes
        .clone()
        .filter_map(|(role, scope)| {
            let scope = match scope? {
                Scope::All => "all",
                Scope::Cities => "cities",
                Scope::Own => "own",
            };
            Some((role.as_str().to_owned(), scope.into()))
        })
        .collect();
    let extensions = operation.extensions.get_or_insert_default();
    extensions.merge(ExtensionsBuilder::new().add("x-roles", Value::Object(roles)).build());
    let everybody = scopes.clone().all(|(_, scope)| scope.is_some());
    let mut errors = vec![error::UNAUTHENTICATED];
    if !everybody {
        errors.push(error::FORBIDDEN);
    }
    if changes {
        // With a cookie and no token of its page.
        errors.push(error::CSRF_TOKEN);
    }
    errors
}

/// The errors of layers and extractors.
fn common_errors(operation: &Operation) -> Vec<ProblemKind> {
    let takes = |name: &str| {
        operation
            .parameters
            .iter()
            .flatten()
            .any(|parameter| matches!(parameter, RefOr::T(parameter) if parameter.name == name))
    };
    let mut common = Vec::new();
    let has_json =
        matches!(&operation.request_body, Some(RefOr::T(body)) if body.content.contains_key("application/json"));
    // What a provider posts is stored before anybody reads it.
    if has_json && tag(operation) != "webhooks" {
        common.extend([error::MALFORMED, error::TOO_LARGE, error::WRONG_MEDIA_TYPE]);
    }
    if takes("If-Match") {
        common.push(error::MALFORMED);
    }
    if takes(IDEMPOTENCY_KEY) {
        common.extend([error::MALFORMED, error::IDEMPOTENCY_IN_FLIGHT, error::IDEMPOTENCY_KEY_REUSED]);
    }
    if operation.request_body.is_some() {
        common.push(error::BODY_TOO_SLOW);
    }
    if tag(operation) != "ops" {
        common.extend([error::RATE_LIMITED, error::INTERNAL, error::DATABASE_UNAVAILABLE, error::TIMED_OUT]);
    }
    common
}

/// Gives problems their media type, which annotations leave at JSON.
fn name_problems(operation: &mut Operation) {
    if tag(operation) == "ops" {
        return;
    }
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && (status.starts_with('4') || status.starts_with('5'))
            && let Some(content) = response.content.shift_remove("application/json")
        {
            response.content.insert("application/problem+json".to_owned(), content);
        }
    }
}

/// The state machine, where its moves are made.
fn document_moves(document: &mut OpenApi) {
    let operations = document.paths.paths.values_mut().filter_map(|item| item.post.as_mut());
    let moving =
        operations.into_iter().find(|operation| operation.operation_id.as_deref() == Some("requests_transition"));
    if let Some(operation) = moving {
        let mut text = String::from("Who may make which move:\n\n| from | to | roles |\n|---|---|---|\n");
        for rule in state::TABLE {
            let roles: Vec<&str> = rule.roles.iter().map(|role| role.as_str()).collect();
            let _ = writeln!(text, "| {} | {} | {} |", rule.from.as_str(), rule.to.as_str(), roles.join(", "));
        }
        operation.description = Some(text);
    }
}

/// A page spells its items out, so that some of their schemas are referred to by nobody.
fn drop_unused_schemas(document: &mut OpenApi) {
    let Ok(text) = document.to_json() else { return };
    if let Some(components) = &mut document.components {
        components.schemas.retain(|name, _| text.contains(&format!("\"#/components/schemas/{name}\"")));
    }
}

fn problem() -> Content {
    Content::new(Some(Ref::from_schema_name("Problem")))
}
