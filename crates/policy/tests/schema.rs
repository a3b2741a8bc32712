//! The JSON Schema accepts what the parser accepts, and refuses what it can tell is wrong.
//!
//! The validator below knows the words that the schema uses, and panics at any other.

use policy::{SCHEMA, SourceFile, load};
use regex::Regex;
use serde_json::Value;

const RIGHT: &[(&str, &str)] = &[
    ("whole_language", include_str!("golden/whole_language.yaml")),
    ("warnings", include_str!("golden/warnings.yaml")),
    (
        "services_and_requests",
        include_str!("golden/services_and_requests.yaml"),
    ),
    ("documentation", DOCUMENTATION),
    (
        "first policy",
        "fleet: prod\nallow:\n  - { id: ping, from: any, to: any, icmp: true }\n",
    ),
    (
        "odd but right",
        "fleet: prod
services:
  db: { port: \"5432\", protocol: udp, endpoints: [role=db, \"a/b=c , d=e\"] }
allow:
  - { id: 7, from: host:web-1, to: service:db }
  - { id: x_Y.z, from: [any], to: web-1, tcp: 22, udp: [\"1-65535\", 53], icmp: false }
deny: []
tests: [{ allow: \"any -> web-1:22\", rule: x_Y.z }]
",
    ),
];

const DOCUMENTATION: &str = include_str!("../../../docs/policy.md");

/// Returns the first example of the documentation, or the text itself.
fn bundle_in(text: &str) -> &str {
    let example = text
        .split_once("```yaml\n")
        .and_then(|(_, rest)| rest.split_once("```"));
    example.map_or(text, |(example, _)| example)
}

#[test]
fn what_is_right_is_accepted() {
    for (name, text) in RIGHT {
        let text = bundle_in(text);
        assert!(load(&[file(text)]).is_ok(), "{name}");
        assert_eq!(complaint(text), None, "{name}");
    }
}

#[test]
fn the_example_of_the_documentation_is_right_and_formatted() {
    let example = file(bundle_in(DOCUMENTATION));
    let errors = |errors: Vec<policy::Diagnostic>| errors[0].render();
    load(std::slice::from_ref(&example))
        .map_err(errors)
        .expect("right");
    assert_eq!(policy::format(&example).map_err(errors), Ok(example.text));
}

#[test]
fn what_is_wrong_is_refused() {
    for text in [
        "fleet: Prod",
        "fleet: any",
        "fleat: prod",
        "workloads: { web: { unit: web.service } }",
        "limits: []",
        "allow: { id: a }",
        "allow: [{ id: a, from: any }]",
        "allow: [{ id: a b, from: any, to: any, icmp: true }]",
        "allow: [{ id: a, from: [], to: any, icmp: true }]",
        "allow: [{ id: a, from: 10.0.0.1, to: any, icmp: true }]",
        "allow: [{ id: a, from: unit:x, to: any, icmp: true }]",
        "allow: [{ id: a, from: any, to: any, icmp: \"true\" }]",
        "allow: [{ id: a, from: any, to: any, tcp: [0] }]",
        "allow: [{ id: a, from: any, to: any, tcp: [any] }]",
        "allow: [{ id: a, from: any, to: any, tcp: [65536] }]",
        "allow: [{ id: a, from: any, to: any, http: [x] }]",
        "services: { DB: { port: 1, protocol: tcp, endpoints: a } }",
        "services: { db: { port: 1, protocol: sctp, endpoints: a } }",
        "services: { db: { port: 1, protocol: http, endpoints: a, timeout: soon } }",
        "services: { db: { port: 1, protocol: http, endpoints: a, balance: random } }",
        "services: { db: { port: 1, protocol: tcp } }",
        "tests: [{ allow: a }]",
        "tests: [{ allow: a -> b, deny: a -> b }]",
        "tests: [{ rule: a }]",
    ] {
        assert!(complaint(text).is_some(), "{text}");
        let whole = if text.starts_with("fle") {
            text.to_owned()
        } else {
            format!("fleet: prod\n{text}")
        };
        assert!(load(&[file(&whole)]).is_err(), "{text}");
    }
}

fn file(text: &str) -> SourceFile {
    SourceFile {
        path: "policy.yaml".to_owned(),
        text: text.to_owned(),
    }
}

/// Returns where the schema does not accept the file.
fn complaint(yaml: &str) -> Option<String> {
    let schema: Value = serde_json::from_str(SCHEMA).expect("the schema is JSON");
    let value: Value = serde_saphyr::from_str(yaml).expect("the file is YAML");
    Validator { root: &schema }.complaint(&schema, &value)
}

struct Validator<'s> {
    root: &'s Value,
}

impl Validator<'_> {
    fn complaint(&self, schema: &Value, value: &Value) -> Option<String> {
        let words = schema.as_object().expect("a schema is an object");
        let wrong = words
            .iter()
            .find(|(word, with)| !self.holds(word, with, schema, value));
        wrong.map(|(word, with)| format!("{value} against {word} {with}"))
    }

    fn accepts(&self, schema: &Value, value: &Value) -> bool {
        self.complaint(schema, value).is_none()
    }

    fn holds(&self, word: &str, with: &Value, schema: &Value, value: &Value) -> bool {
        let each = |accepts: &mut dyn FnMut(&Value) -> bool| {
            value
                .as_array()
                .is_none_or(|items| items.iter().all(accepts))
        };
        let schemas = || with.as_array().expect("a list of schemas").iter();
        match word {
            "$schema" | "$defs" | "title" | "description" | "default" | "examples" => true,
            "$ref" => {
                let place = with
                    .as_str()
                    .and_then(|it| it.strip_prefix('#'))
                    .expect("a local reference");
                self.accepts(self.root.pointer(place).expect("a definition"), value)
            }
            "type" => match with {
                Value::Array(types) => types.iter().any(|it| is_of_type(it, value)),
                one => is_of_type(one, value),
            },
            "const" => value == with,
            "enum" => schemas().any(|it| it == value),
            "not" => !self.accepts(with, value),
            "anyOf" => schemas().any(|it| self.accepts(it, value)),
            "oneOf" => schemas().filter(|it| self.accepts(it, value)).count() == 1,
            "pattern" => {
                let pattern = Regex::new(with.as_str().expect("a pattern")).expect("a regex");
                value.as_str().is_none_or(|text| pattern.is_match(text))
            }
            "minimum" => value
                .as_i64()
                .is_none_or(|number| Some(number) >= with.as_i64()),
            "maximum" => value
                .as_i64()
                .is_none_or(|number| Some(number) <= with.as_i64()),
            "minItems" => value
                .as_array()
                .is_none_or(|it| Some(it.len() as u64) >= with.as_u64()),
            "maxItems" => value
                .as_array()
                .is_none_or(|it| Some(it.len() as u64) <= with.as_u64()),
            "items" => each(&mut |item| self.accepts(with, item)),
            "required" => schemas().all(|key| {
                let key = key.as_str().expect("a key");
                value
                    .as_object()
                    .is_none_or(|object| object.contains_key(key))
            }),
            "propertyNames" => {
                members(value).all(|(key, _)| self.accepts(with, &Value::from(key.as_str())))
            }
            "properties" => members(value)
                .filter_map(|(key, value)| with.get(key).map(|schema| (schema, value)))
                .all(|(schema, value)| self.accepts(schema, value)),
            "additionalProperties" => members(value)
                .filter(|(key, _)| schema["properties"].get(key).is_none())
                .all(|(_, value)| *with != Value::Bool(false) && self.accepts(with, value)),
            other => panic!("this validator does not know `{other}`"),
        }
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn is_of_type(name: &Value, value: &Value) -> bool {
    match name.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("boolean") => value.is_boolean(),
        other => panic!("this validator does not know the type {other:?}"),
    }
}
