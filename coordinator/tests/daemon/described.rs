//! The OpenAPI document of a coordinator that runs, held against what it answers: nothing of another
//! type than described, nothing missing, and nothing that the document does not tell of.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// The document, and which of its answers were seen.
pub(crate) struct Described {
    document: Value,
    pub(crate) seen: BTreeSet<(String, u16)>,
}

/// An operation of the document.
pub(crate) struct Operation {
    pub(crate) id: String,
    pub(crate) method: String,
    pub(crate) path: String,
    /// The least role that may ask; `None`: nobody with a credential.
    pub(crate) role: Option<String>,
    pub(crate) takes_body: bool,
    pub(crate) answers: BTreeSet<u16>,
}

impl Described {
    pub(crate) fn new(document: Value) -> Self {
        Self {
            document,
            seen: BTreeSet::new(),
        }
    }

    pub(crate) fn operations(&self) -> Vec<Operation> {
        let paths = self.document["paths"].as_object().unwrap();
        let mut operations = Vec::new();
        for (path, methods) in paths {
            for (method, described) in methods.as_object().unwrap() {
                let role = &described["security"][0]["credential"][0];
                let answers = described["responses"].as_object().unwrap();
                operations.push(Operation {
                    id: described["operationId"].as_str().unwrap().to_owned(),
                    method: method.to_uppercase(),
                    path: path.clone(),
                    role: role.as_str().map(str::to_owned),
                    takes_body: described.get("requestBody").is_some(),
                    answers: answers.keys().map(|it| it.parse().unwrap()).collect(),
                });
            }
        }
        operations
    }

    /// Checks an answer, and what was asked where it was understood.
    pub(crate) fn check(&mut self, asked: (&str, &str), body: &Value, answered: (u16, &Value)) {
        let (method, path) = asked;
        let path = path.split('?').next().unwrap();
        let operations = self.operations();
        let is_asked = |it: &&Operation| it.method == method && fits(&it.path, path);
        let operation = operations.iter().find(is_asked);
        let operation = operation.unwrap_or_else(|| panic!("{method} {path} is not described"));
        let (status, answer) = answered;
        let at = format!("{method} {path}: {status} {answer}");
        assert!(operation.answers.contains(&status), "{at}: not described");
        let described = &self.document["paths"][&operation.path][method.to_lowercase()];
        let response = self.resolved(&described["responses"][status.to_string()]);
        let schema = &response["content"]["application/json"]["schema"];
        assert_eq!(
            self.complaints(schema, answer),
            Vec::<String>::new(),
            "{at}"
        );
        let taken = &described["requestBody"]["content"]["application/json"]["schema"];
        if operation.takes_body && status == 200 {
            assert_eq!(self.complaints(taken, body), Vec::<String>::new(), "{at}");
        }
        if status == 400 {
            assert_ne!(self.complaints(taken, body), Vec::<String>::new(), "{at}");
        }
        self.seen.insert((operation.id.clone(), status));
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(reference) => self.document.pointer(&reference[1..]).unwrap(),
            None => value,
        }
    }

    fn complaints(&self, schema: &Value, value: &Value) -> Vec<String> {
        let mut whole = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "components": self.document["components"]["schemas"].clone(),
            "allOf": [schema],
        });
        whole["components"] = json!({ "schemas": whole["components"] });
        close(&mut whole);
        let validator = jsonschema::validator_for(&whole).unwrap();
        let errors = validator.iter_errors(value);
        errors
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect()
    }
}

/// Returns whether a path is one of those that a template stands for.
fn fits(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) =
        (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len()
        && template
            .iter()
            .zip(&path)
            .all(|(wanted, part)| wanted.starts_with('{') || wanted == part)
}

/// Lets no object have keys that it is not described with.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(words) => {
            if words.contains_key("properties") && !words.contains_key("additionalProperties") {
                close_object(words);
            }
            words.values_mut().for_each(close);
        }
        Value::Array(list) => list.iter_mut().for_each(close),
        _ => {}
    }
}

fn close_object(words: &mut Map<String, Value>) {
    words.insert("unevaluatedProperties".into(), false.into());
}
