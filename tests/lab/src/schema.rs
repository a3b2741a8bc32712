//! Whether an answer of `meshctl --json` is what its committed schema says: nothing missing, nothing
//! of another type, and nothing that the schema does not tell of.
//!
//! Knows the words of JSON Schema that the schema uses, and refuses others.

use serde_json::{Map, Value};

/// The schema of every answer.
const SCHEMA: &str = include_str!("../../../docs/meshctl.schema.json");
/// Words that only tell people something.
const FOR_PEOPLE: [&str; 6] = [
    "$schema",
    "title",
    "description",
    "$defs",
    "default",
    "format",
];
/// Words that bound a value, which its type keeps to.
const BOUNDS: [&str; 3] = ["maximum", "pattern", "uniqueItems"];

/// What is wrong with an answer, one line each; nothing: it is as the schema says.
///
/// # Panics
///
/// When the schema itself is wrong.
pub fn complaints(answer: &Value) -> Vec<String> {
    let root: Value = serde_json::from_str(SCHEMA).expect("the schema is JSON");
    let schema = Schema { root: &root };
    let kind = &answer["kind"];
    let branches = root["oneOf"].as_array().expect("one branch for each kind");
    let branch = branches
        .iter()
        .find(|branch| branch["properties"]["kind"]["const"] == *kind);
    let Some(branch) = branch else {
        return vec![format!("{kind} is no kind of the schema")];
    };
    let mut found = Vec::new();
    schema.check(
        &answer["data"],
        &branch["properties"]["data"],
        "data",
        &mut found,
    );
    for (name, value) in answer.as_object().into_iter().flatten() {
        match name.as_str() {
            "kind" | "data" => {}
            "version" => schema.check(value, &root["properties"]["version"], name, &mut found),
            other => found.push(format!("{other}: the envelope has no such field")),
        }
    }
    found
}

struct Schema<'s> {
    root: &'s Value,
}

impl Schema<'_> {
    fn check(&self, value: &Value, schema: &Value, at: &str, found: &mut Vec<String>) {
        if schema == &Value::Bool(true) {
            return;
        }
        let words = schema.as_object().expect("a schema is an object");
        for (word, says) in words {
            match word.as_str() {
                "$ref" => self.check(value, self.named(says), at, found),
                "type" => check_type(value, says, at, found),
                "const" if value != says => found.push(format!("{at}: {value} is not {says}")),
                "enum" if !list(says).contains(value) => {
                    found.push(format!("{at}: {value} is none of {says}"));
                }
                "minimum" if value.as_f64() < says.as_f64() && value.is_number() => {
                    found.push(format!("{at}: {value} is below {says}"));
                }
                "anyOf" | "oneOf" => self.check_any(value, list(says), at, found),
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(item, says, &format!("{at}[{index}]"), found);
                    }
                }
                "properties" => self.check_fields(value, words, at, found),
                // A map; which names it may have is its type's.
                "patternProperties" => {
                    for says in says.as_object().into_iter().flat_map(Map::values) {
                        self.check_all(value, says, at, found);
                    }
                }
                "additionalProperties" if says.is_object() => {
                    self.check_all(value, says, at, found);
                }
                "additionalProperties" => {}
                "const" | "enum" | "minimum" | "required" => {}
                word => assert!(
                    FOR_PEOPLE.contains(&word) || BOUNDS.contains(&word),
                    "{at}: {word} is not known here"
                ),
            }
        }
    }

    fn check_all(&self, value: &Value, says: &Value, at: &str, found: &mut Vec<String>) {
        for (name, field) in value.as_object().into_iter().flatten() {
            self.check(field, says, &format!("{at}.{name}"), found);
        }
    }

    fn check_any(&self, value: &Value, choices: &[Value], at: &str, found: &mut Vec<String>) {
        let mut closest: Option<Vec<String>> = None;
        for choice in choices {
            let mut wrong = Vec::new();
            self.check(value, choice, at, &mut wrong);
            if closest
                .as_ref()
                .is_none_or(|closest| wrong.len() < closest.len())
            {
                closest = Some(wrong);
            }
        }
        found.extend(closest.into_iter().flatten());
    }

    fn check_fields(
        &self,
        value: &Value,
        words: &Map<String, Value>,
        at: &str,
        found: &mut Vec<String>,
    ) {
        let Some(fields) = value.as_object() else {
            return;
        };
        for (name, field) in fields {
            match words["properties"].get(name) {
                Some(schema) => self.check(field, schema, &format!("{at}.{name}"), found),
                None => found.push(format!("{at}.{name}: the schema does not tell of it")),
            }
        }
        for name in words.get("required").map(list).unwrap_or_default() {
            let name = name.as_str().expect("a field has a name");
            if !fields.contains_key(name) {
                found.push(format!("{at}.{name}: it is missing"));
            }
        }
    }

    fn named(&self, reference: &Value) -> &Value {
        let pointer = reference.as_str().and_then(|it| it.strip_prefix('#'));
        pointer
            .and_then(|pointer| self.root.pointer(pointer))
            .unwrap_or_else(|| panic!("{reference} is not in the schema"))
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn check_type(value: &Value, says: &Value, at: &str, found: &mut Vec<String>) {
    let is = |name: &Value| match name.as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("string") => value.is_string(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => panic!("{at}: the type {name} is not known here"),
    };
    let fits = match says {
        Value::Array(choices) => choices.iter().any(is),
        one => is(one),
    };
    if !fits {
        found.push(format!("{at}: {value} is no {says}"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn left(data: Value) -> Value {
        json!({ "version": 1, "kind": "Left", "data": data })
    }

    #[test]
    fn an_answer_is_what_the_schema_says_or_it_is_told_what_is_not() {
        let good = left(json!({ "coordinator_told": true }));
        assert_eq!(complaints(&good), Vec::<String>::new());
        for (data, complaint) in [
            (json!({}), "coordinator_told: it is missing"),
            (json!({ "coordinator_told": 1 }), "1 is no \"boolean\""),
            (
                json!({ "coordinator_told": true, "new": 1 }),
                "new: the schema does not tell of it",
            ),
            (json!([]), "[] is no \"object\""),
        ] {
            let found = complaints(&left(data)).join("\n");
            assert!(found.contains(complaint), "{found}");
        }
        let other = json!({ "version": 2, "kind": "Left", "data": { "coordinator_told": true } });
        assert_eq!(complaints(&other), ["version: 2 is not 1"]);
        let unknown = json!({ "version": 1, "kind": "What", "data": 1 });
        assert_eq!(complaints(&unknown).len(), 1);
    }
}
