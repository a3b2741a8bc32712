//! docs/policy-reference.md, written from the JSON Schema of the language and committed.
//! `cargo xtask generate` writes it anew; here it is checked that it is not stale, and that every
//! example of the schema is of the type that it is an example of.

#![allow(
    clippy::unwrap_used,
    reason = "whatever cannot be had fails the test that wanted it"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "the page is a file, and who generates it says so in the environment"
)]

use std::fs;
use std::path::Path;

use model::limits::Limits;
use policy::{SCHEMA, SourceFile, format, load};
use serde_json::Value;

/// Set by `cargo xtask generate`: write instead of compare.
const WRITE: &str = "MESH_GENERATE";
const HEAD: &str = "\
# Policy language

Written by `cargo xtask generate` from [policy.schema.json](policy.schema.json), which editors can use
(`# yaml-language-server: $schema=policy.schema.json` as the first line of a file; `meshctl policy schema` prints it). How it is
meant, and how to work with it: [policy](policy.md). Keys that are not here are refused, not ignored.
";
/// Objects with keys, in the order in which people meet them; the first is the file itself.
const OBJECTS: [(&str, &str); 13] = [
    ("", "A file"),
    ("workload", "workload"),
    ("service", "service"),
    ("timeout", "timeout"),
    ("retry", "retry"),
    ("breaker", "breaker"),
    ("limits", "limits"),
    ("health", "health"),
    ("fallback", "fallback"),
    ("rule", "rule"),
    ("http", "http"),
    ("when", "when"),
    ("test", "test"),
];
/// Values that keys have.
const VALUES: [&str; 15] = [
    "name",
    "rule_id",
    "selector",
    "selectors",
    "port",
    "port_range",
    "port_ranges",
    "request",
    "requests",
    "path",
    "headers",
    "window",
    "duration",
    "percent",
    "check",
];

/// Keys in the order in which people write them.
const ORDER: [&str; 54] = [
    "fleet",
    "cipher",
    "workloads",
    "unit",
    "user",
    "hosts",
    "services",
    "id",
    "from",
    "to",
    "tcp",
    "udp",
    "icmp",
    "port",
    "protocol",
    "endpoints",
    "timeout",
    "retry",
    "sticky",
    "breaker",
    "limits",
    "health",
    "residency",
    "fallback",
    "request",
    "per_try",
    "connect",
    "idle",
    "attempts",
    "budget",
    "idempotent",
    "failures",
    "success_rate",
    "penalty",
    "ejected_max",
    "in_flight",
    "waiting",
    "wait",
    "check",
    "interval",
    "status",
    "type",
    "body",
    "http",
    "when",
    "allow",
    "deny",
    "tests",
    "rule",
    "methods",
    "path",
    "host",
    "headers",
    "at",
];

/// The keys of an object with what they have, as people write them.
fn ordered(object: &Value) -> Vec<(&String, &Value)> {
    let mut keys: Vec<_> = object.as_object().unwrap().iter().collect();
    keys.sort_by_key(|(key, _)| ORDER.iter().position(|it| it == key));
    keys
}

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

fn definition<'s>(schema: &'s Value, name: &str) -> &'s Value {
    match name {
        "" => schema,
        name => &schema["$defs"][name],
    }
}

fn reference(schema: &Value) -> String {
    let mut text = HEAD.to_owned();
    for (name, title) in OBJECTS {
        let object = definition(schema, name);
        text += &format!("\n## {title}\n\n{}\n\n", sentence(object));
        text += "| key | | type | default | what it is |\n|---|---|---|---|---|\n";
        let required = object["required"].as_array().cloned().unwrap_or_default();
        for (key, value) in ordered(&object["properties"]) {
            let must = match required.contains(&Value::from(key.as_str())) {
                true => "required",
                false => "",
            };
            let default = value
                .get("default")
                .map_or(String::new(), |it| code(&it.to_string()));
            let kind = kind(value);
            let told = sentence(value);
            text += &format!("| `{key}` | {must} | {kind} | {default} | {told} |\n");
        }
        text += &examples(object);
    }
    text += "\n## Values\n";
    for name in VALUES.into_iter().chain(["flow"]) {
        let value = definition(schema, name);
        text += &format!("\n### {name}\n\n{}\n\n", sentence(value));
        text += &format!("{}\n", kind(value));
        text += &examples(value);
    }
    text + &limits()
}

/// What a schema says of itself to people.
fn sentence(value: &Value) -> &str {
    value["description"].as_str().unwrap_or("")
}

/// What a value is, with its bounds.
fn kind(value: &Value) -> String {
    if let Some(name) = value["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap();
        return format!("[{name}](#{name})");
    }
    if let Some(choices) = value["anyOf"].as_array() {
        let choices: Vec<String> = choices.iter().map(kind).collect();
        return choices.join("; or ");
    }
    if let Some(only) = value.get("const") {
        return code(only.as_str().unwrap());
    }
    if let Some(words) = value["enum"].as_array() {
        let words: Vec<String> = words.iter().map(|it| code(it.as_str().unwrap())).collect();
        return words.join(" or ");
    }
    let mut text = match &value["type"] {
        Value::Array(types) => {
            let types: Vec<&str> = types.iter().map(|it| it.as_str().unwrap()).collect();
            types.join(" or ")
        }
        Value::String(kind) => match kind.as_str() {
            "array" => format!("list of {}", self::kind(&value["items"])),
            "object" => match value.get("additionalProperties") {
                Some(each @ Value::Object(_)) => {
                    let keys = self::kind(&value["propertyNames"]);
                    format!("{} under each {keys}", self::kind(each))
                }
                _ => "mapping".to_owned(),
            },
            other => other.to_owned(),
        },
        other => panic!("a type that the reference does not know: {other}"),
    };
    let bound = |word: &str| value.get(word).and_then(Value::as_u64);
    for (least, most) in [("minimum", "maximum"), ("minItems", "maxItems")] {
        if let (Some(least), Some(most)) = (bound(least), bound(most)) {
            text += &format!(", {least} to {most}");
        }
    }
    if let Some(pattern) = value["pattern"].as_str() {
        text += &format!(", {}", code(pattern));
    }
    if let Some(words) = value["not"]["enum"].as_array() {
        let words: Vec<String> = words.iter().map(|it| code(it.as_str().unwrap())).collect();
        text += &format!(", not {}", words.join(" "));
    }
    text
}

/// As code in a cell of a table.
fn code(text: &str) -> String {
    format!("`{}`", text.replace('|', "\\|"))
}

fn examples(value: &Value) -> String {
    let Some(examples) = value["examples"].as_array() else {
        return String::new();
    };
    let examples: Vec<String> = examples.iter().map(yaml).collect();
    format!("\n```yaml\n{}\n```\n", examples.join("\n"))
}

/// As YAML on one line: JSON without quotes where none are needed.
fn yaml(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(yaml).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(_) => {
            let keys = ordered(value)
                .into_iter()
                .map(|(key, value)| format!("{key}: {}", yaml(value)));
            format!("{{ {} }}", keys.collect::<Vec<_>>().join(", "))
        }
        Value::String(text)
            if text
                .bytes()
                .all(|byte| byte.is_ascii_alphabetic() || byte == b'_') =>
        {
            text.clone()
        }
        other => other.to_string(),
    }
}

fn limits() -> String {
    let rows = [
        ("rules of a bundle", Limits::RULES.to_string()),
        ("services of a bundle", Limits::SERVICES.to_string()),
        ("workloads of a bundle", Limits::WORKLOADS.to_string()),
        (
            "entries of `http` of a rule",
            Limits::HTTP_MATCHES_PER_RULE.to_string(),
        ),
        (
            "selectors of a list",
            Limits::SELECTORS_PER_LIST.to_string(),
        ),
        (
            "port ranges of a list",
            Limits::PORT_RANGES_PER_LIST.to_string(),
        ),
        ("labels of a host", Limits::LABELS_PER_HOST.to_string()),
        ("bytes of all files", Limits::BUNDLE_BYTES.to_string()),
    ];
    let rows = rows.map(|(what, most)| format!("| {what} | {most} |\n"));
    format!("\n## Limits\n\n| at most | |\n|---|---|\n{}", rows.concat())
}

#[test]
fn the_reference_is_that_of_the_schema() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/policy-reference.md");
    let text = reference(&schema());
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert!(
        fs::read_to_string(&path).is_ok_and(|committed| committed == text),
        "docs/policy-reference.md is stale; run `cargo xtask generate` and commit the result"
    );
}

#[test]
fn every_definition_is_in_the_reference() {
    let schema = schema();
    let told: Vec<&str> = OBJECTS
        .iter()
        .map(|(name, _)| *name)
        .chain(VALUES)
        .collect();
    for name in schema["$defs"].as_object().unwrap().keys() {
        assert!(told.contains(&name.as_str()) || name == "flow", "{name}");
        assert!(!sentence(&schema["$defs"][name]).is_empty(), "{name}");
        assert!(!examples(&schema["$defs"][name]).is_empty(), "{name}");
    }
}

/// A bundle in which every example has its place.
#[test]
fn every_example_is_understood() {
    let schema = schema();
    let all = |name: &str| {
        schema["$defs"][name]["examples"]
            .as_array()
            .unwrap()
            .clone()
    };
    let mut rules: Vec<String> = Vec::new();
    let mut rule = |rest: String| rules.push(format!("  - {{ id: r{}, {rest} }}\n", rules.len()));
    for who in all("selector").iter().chain(&all("selectors")) {
        rule(format!("from: {}, to: any, tcp: [22]", yaml(who)));
    }
    for name in ["port", "port_range", "port_ranges"] {
        for ports in all(name) {
            rule(format!("from: any, to: any, tcp: {}", yaml(&ports)));
        }
    }
    for request in all("request")
        .iter()
        .chain(&all("requests"))
        .chain(&all("http"))
    {
        rule(format!("from: web, to: orders, http: {}", yaml(request)));
    }
    for path in all("path") {
        rule(format!(
            "from: any, to: orders, http: {{ path: {} }}",
            yaml(&path)
        ));
    }
    for headers in all("headers") {
        rule(format!(
            "from: any, to: orders, http: {{ headers: {} }}",
            yaml(&headers)
        ));
    }
    for when in all("window").iter().chain(&all("when")) {
        rule(format!("from: any, to: db, when: {}", yaml(when)));
    }
    for id in all("rule_id").iter().filter(|id| **id != "web-db") {
        rules.push(format!(
            "  - {{ id: {}, from: any, to: any, icmp: true }}\n",
            yaml(id)
        ));
    }
    rules.extend(all("rule").iter().map(|it| format!("  - {}\n", yaml(it))));
    let mut services = String::new();
    let mut service = |name: &str, said: String| services += &format!("  {name}: {said}\n");
    service("db", yaml(&all("service")[0]));
    service("orders", yaml(&all("service")[1]));
    let settings = [
        ("timeout", "timeout"),
        ("timeout", "duration"),
        ("retry", "retry"),
        ("breaker", "breaker"),
        ("limits", "limits"),
        ("health", "health"),
        ("health", "check"),
        ("fallback", "fallback"),
    ];
    for (key, name) in settings {
        for (number, example) in all(name).iter().enumerate() {
            let said = yaml(example);
            service(
                &format!("{key}-{}-{number}", name.replace('_', "-")),
                format!("{{ port: 1, protocol: http, endpoints: web, {key}: {said} }}"),
            );
        }
    }
    for (number, share) in all("percent").iter().enumerate() {
        let said = yaml(share);
        let said =
            format!("{{ port: 1, protocol: http, endpoints: web, retry: {{ budget: {said} }} }}");
        service(&format!("percent-{number}"), said);
    }
    let workloads = [yaml(&all("workload")[0]), yaml(&all("workload")[1])];
    let bundle = format!(
        "fleet: prod\nworkloads:\n  web: {}\n  report: {}\nservices:\n{services}allow:\n{}",
        workloads[0],
        workloads[1],
        rules.concat()
    );
    let file = SourceFile {
        path: "policy.yaml".into(),
        text: bundle,
    };
    if let Err(wrong) = load(std::slice::from_ref(&file)) {
        panic!("{}\n{}", wrong[0].render(), file.text);
    }
    format(&file).unwrap();
    // Each flow is one that a test can ask about, whatever comes of it.
    for flow in all("flow") {
        let text = format!("{}tests:\n  - {{ allow: {} }}\n", file.text, yaml(&flow));
        let path = "policy.yaml".into();
        assert!(load(&[SourceFile { path, text }]).is_ok(), "{flow}");
    }
}
