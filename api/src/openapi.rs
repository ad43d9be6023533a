//! The OpenAPI 3.1 document, made from the declarations.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::endpoint::{Access, Method, Operation};
use crate::problem::{Problem, ProblemCode};

/// The whole document. The same build always makes the same bytes.
pub fn document(operations: &[Operation], version: &str) -> Value {
    // JSON Schema 2020-12 is what OpenAPI 3.1 speaks; only the place of shared
    // definitions differs.
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for operation in operations {
        let item = paths.entry(operation.path).or_default();
        item.insert(
            operation.method.as_str().to_lowercase(),
            describe(operation, &mut generator),
        );
    }
    generator.subschema_for::<Problem>();
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Loopback",
            "version": version,
            "description": "Self-hosted host control plane. Every problem is application/problem+json with a stable code.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "api_key": { "type": "http", "scheme": "bearer", "description": "An API key: `lbk_…`" },
            },
        },
    })
}

fn describe(operation: &Operation, generator: &mut SchemaGenerator) -> Value {
    let mut parameters = parameters_of((operation.path_schema)(generator), "path");
    parameters.extend(parameters_of((operation.query_schema)(generator), "query"));
    if operation.method == Method::Post && matches!(operation.access, Access::Needs(_)) {
        parameters.push(json!({
            "name": "Idempotency-Key",
            "in": "header",
            "required": false,
            "description": "Repeat a request with the same key and it is carried out once; kept for 24 hours.",
            "schema": { "type": "string", "pattern": "^[A-Za-z0-9_-]{8,64}$" },
        }));
    }
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary.trim(),
        "tags": [tag(operation.path)],
        "parameters": parameters,
        "responses": responses(operation, generator),
    });
    match operation.access {
        Access::Public(why) => {
            described["security"] = json!([]);
            described["x-public-because"] = json!(why);
        }
        Access::Needs(permission) => {
            described["security"] = json!([{ "api_key": [] }]);
            described["x-permission"] = json!(permission);
        }
    }
    if let Some(schema) = operation.body_schema {
        described["requestBody"] = json!({
            "required": true,
            "content": { "application/json": { "schema": schema(generator) } },
        });
    }
    if operation.raw_body {
        described["requestBody"] = json!({
            "required": true,
            "content": { "application/octet-stream": {} },
        });
    }
    described
}

fn responses(operation: &Operation, generator: &mut SchemaGenerator) -> Value {
    let mut responses = Map::new();
    let mut success = json!({ "description": "success" });
    if let Some(schema) = operation.reply_schema {
        success["content"] = json!({ operation.media: { "schema": schema(generator) } });
    } else if operation.media != "application/json" {
        success["content"] = json!({ operation.media: {} });
    }
    responses.insert(operation.success.to_string(), success);

    let mut codes: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for code in problems_of(operation) {
        codes.entry(code.status()).or_default().push(code.as_str());
    }
    let problem = generator.subschema_for::<Problem>();
    for (status, codes) in codes {
        responses.insert(
            status.to_string(),
            json!({
                "description": codes.join(", "),
                "content": { "application/problem+json": { "schema": problem } },
            }),
        );
    }
    Value::Object(responses)
}

/// The problems an operation can answer: its own, and those that follow from
/// how it is declared.
pub fn problems_of(operation: &Operation) -> Vec<ProblemCode> {
    use ProblemCode as Code;
    let mut codes = vec![
        Code::MalformedRequest,
        Code::ForeignOrigin,
        Code::Misdirected,
        Code::RateLimited,
        Code::HeadersTooLarge,
        Code::Internal,
        Code::Unavailable,
        Code::Timeout,
    ];
    if matches!(operation.access, Access::Needs(_)) {
        codes.extend([Code::Unauthenticated, Code::Forbidden]);
    }
    if operation.path.contains('{') {
        codes.push(Code::NotFound);
    }
    if operation.body_schema.is_some() {
        codes.extend([
            Code::BodyTooLarge,
            Code::UnsupportedMediaType,
            Code::Invalid,
        ]);
    }
    let query = (operation.query_schema)(&mut SchemaGenerator::default());
    if !parameters_of(query, "query").is_empty() {
        codes.push(Code::Invalid);
    }
    if operation.method != Method::Get {
        codes.extend([Code::StorageFull, Code::Conflict]);
    }
    if operation.method == Method::Post {
        codes.extend([Code::IdempotencyMismatch, Code::IdempotencyInProgress]);
    }
    codes.extend(operation.problems);
    codes.sort_unstable();
    codes.dedup();
    codes
}

/// The fields of an object schema as parameters.
fn parameters_of(schema: Schema, place: &str) -> Vec<Value> {
    let schema = schema.to_value();
    let required: Vec<_> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let fields = schema["properties"].as_object();
    let describe = |(name, schema): (&String, &Value)| {
        let mut parameter = json!({
            "name": name,
            "in": place,
            "required": place == "path" || required.contains(&name.as_str()),
            "schema": schema,
        });
        if let Some(text) = schema.get("description") {
            parameter["description"] = text.clone();
        }
        parameter
    };
    fields.into_iter().flatten().map(describe).collect()
}

/// `/v1/workspaces/{workspace}/hosts/{host}` is about `hosts`.
fn tag(path: &str) -> &str {
    let words = path
        .split('/')
        .filter(|word| !word.is_empty() && !word.starts_with('{'));
    let words: Vec<_> = words.collect();
    match words.as_slice() {
        ["v1", "workspaces" | "projects", about, ..] | ["v1", about, ..] => about,
        _ => "gateway",
    }
}

/// The schema of `T` alone, for tests.
pub fn schema_of<T: JsonSchema>() -> Value {
    SchemaGenerator::default()
        .into_root_schema_for::<T>()
        .to_value()
}
