//! The OpenAPI 3.1 document of the admin API: its operations, and the schemas of the types that it
//! is served with.

use axum::http::StatusCode;
use model::admin::ErrorBody;
use model::ids::{HostId, TokenId};
use model::name::Name;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::operation::{Needs, Operation, SchemaOf};

const DESCRIPTION: &str = "\
What `meshctl` asks the coordinator of a fleet, over the TLS port (7443 by default) with an operator's credential, \
and on the coordinator's own machine over /run/mesh/coordinator.sock as root or group mesh.

The certificate of the TLS port is signed by the fleet's own root; pin its SHA-256, which stands in a credential file as `root_pin`. \
Unknown keys in a request are errors. Answers may get more keys within v1, and never lose one. \
The header `Mesh-Reason` (percent-encoded text) says why, for the audit log.";

/// Parts of paths that requests fill in.
const PARAMETERS: [(&str, &str, SchemaOf); 5] = [
    ("host", "The host's name", |it| it.root_schema_for::<Name>()),
    ("id", "The host's id", |it| it.root_schema_for::<HostId>()),
    ("token", "The token's id, which is not secret", |it| {
        it.root_schema_for::<TokenId>()
    }),
    ("admin", "Whose credential it is", |it| {
        it.root_schema_for::<Name>()
    }),
    ("version", "The number of the version", |it| {
        it.root_schema_for::<u64>()
    }),
];

/// Returns the document.
pub(super) fn document(operations: &[Operation]) -> Value {
    let mut answers = answer_schemas();
    let mut named = Map::new();
    let error = answers.subschema_for::<ErrorBody>();
    let mut paths = Map::new();
    for operation in operations {
        let path = paths
            .entry(operation.path)
            .or_insert_with(|| Value::Object(Map::new()));
        let method = operation.method.as_str().to_lowercase();
        path[method] = described(operation, &mut answers, &mut named);
    }
    named.extend(answers.take_definitions(true));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "mesh-coordinator",
            "summary": "The admin API of a mesh's coordinator.",
            "description": DESCRIPTION,
            "version": "1",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{
            "url": "https://{coordinator}",
            "variables": { "coordinator": { "default": "localhost:7443" } },
        }],
        "security": [{ "credential": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "credential": {
                "type": "http",
                "scheme": "bearer",
                "description": "The `secret` of a credential file; `meshctl admins create` makes one.",
            } },
            "responses": failures(&serde_json::to_value(error).expect("a schema is JSON")),
            "schemas": named,
        },
    })
}

/// Answers are described as they are written, under names.
fn answer_schemas() -> SchemaGenerator {
    let mut settings = SchemaSettings::draft2020_12().for_serialize();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    settings.into_generator()
}

/// What is sent is described as it is read, each with all that it is made of: a type that goes both
/// ways may be stricter on the way in.
fn request_schemas() -> SchemaGenerator {
    let mut settings = SchemaSettings::draft2020_12().for_deserialize();
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    settings.into_generator()
}

fn described(
    operation: &Operation,
    answers: &mut SchemaGenerator,
    named: &mut Map<String, Value>,
) -> Value {
    let answer = (operation.answer)(answers);
    let mut responses = Map::new();
    responses.insert(
        "200".into(),
        json!({
            "description": "Done",
            "content": { "application/json": { "schema": answer } },
        }),
    );
    for failure in operation.all_failures() {
        let name = format!("#/components/responses/{}", failure.as_u16());
        responses.insert(failure.as_str().into(), json!({ "$ref": name }));
    }
    let more = match operation.description {
        "" => String::new(),
        more => format!("{more}\n\n"),
    };
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "description": format!("{more}{}", operation.needs.sentence()),
        "tags": [tag(operation.path)],
        "security": security(operation.needs),
        "parameters": parameters(operation),
        "responses": responses,
    });
    if let Some(body) = operation.body {
        let schema = body(&mut request_schemas()).to_value();
        described["requestBody"] = json!({
            "required": true,
            "content": { "application/json": { "schema": name_it(schema, named) } },
        });
    }
    described
}

/// The second part of the path is what it is about.
fn tag(path: &str) -> &str {
    path.split('/').nth(2).unwrap_or_default()
}

/// OpenAPI 3.1 takes the role in the list of a bearer scheme.
fn security(needs: Needs) -> Value {
    match needs.role() {
        Some(role) => json!([{ "credential": [role] }]),
        None => json!([]),
    }
}

fn parameters(operation: &Operation) -> Vec<Value> {
    let mut parameters: Vec<Value> = operation
        .parameters()
        .map(|name| {
            let known = PARAMETERS.iter().find(|(known, ..)| *known == name);
            let (_, description, schema) = known.expect("a part of a path is described");
            let mut schema = schema(&mut request_schemas());
            schema.remove("title");
            json!({
                "name": name,
                "in": "path",
                "required": true,
                "description": description,
                "schema": schema,
            })
        })
        .collect();
    let query = operation.query.map(|query| query(&mut request_schemas()));
    let properties = query
        .as_ref()
        .and_then(|it| it.get("properties")?.as_object());
    for (name, schema) in properties.into_iter().flatten() {
        let mut schema = schema.clone();
        let description = schema
            .as_object_mut()
            .and_then(|it| it.remove("description"));
        parameters.push(json!({
            "name": name,
            "in": "query",
            "required": false,
            "description": description,
            "schema": schema,
        }));
    }
    parameters
}

/// Puts a schema under its title and refers to it.
fn name_it(mut schema: Value, named: &mut Map<String, Value>) -> Value {
    let title = schema.as_object_mut().and_then(|it| it.remove("title"));
    let Some(Value::String(title)) = title else {
        return schema;
    };
    let reference = json!({ "$ref": format!("#/components/schemas/{title}") });
    named.insert(title, schema);
    reference
}

fn failures(error: &Value) -> Map<String, Value> {
    let mut failures = Map::new();
    for (status, description) in [
        (
            StatusCode::BAD_REQUEST,
            "The body is not the JSON that is expected",
        ),
        (
            StatusCode::UNAUTHORIZED,
            "There is no credential, or it is nobody's",
        ),
        (
            StatusCode::FORBIDDEN,
            "The credential's role may not do this",
        ),
        (StatusCode::NOT_FOUND, "What it is about does not exist"),
        (
            StatusCode::REQUEST_TIMEOUT,
            "The body did not arrive in time",
        ),
        (
            StatusCode::CONFLICT,
            "It clashes with what is there: a name, a version, a state",
        ),
        (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
        (
            StatusCode::UNPROCESSABLE_ENTITY,
            "It makes no sense; do not repeat it",
        ),
        (
            StatusCode::TOO_MANY_REQUESTS,
            "A limit is reached, or this credential asks too often",
        ),
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "Not now; what was asked was not done, unless the message says otherwise",
        ),
    ] {
        let mut response = json!({
            "description": description,
            "content": { "application/json": { "schema": error } },
        });
        let headers = match status {
            StatusCode::UNAUTHORIZED => json!({ "WWW-Authenticate": {
                "description": "`Bearer`",
                "schema": { "type": "string" },
            } }),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                json!({ "Retry-After": {
                "description": "Seconds until the same may be asked again, where that is known",
                "schema": { "type": "integer", "minimum": 0 },
            } })
            }
            _ => json!({}),
        };
        response["headers"] = headers;
        failures.insert(status.as_str().into(), response);
    }
    failures
}
