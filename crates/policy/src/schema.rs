//! The language as a JSON Schema, for editors. It says less than `document`, which decides.

/// The schema of one file of a bundle, as JSON.
pub const SCHEMA: &str = include_str!("../../../docs/policy.schema.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::document::Section;

    #[test]
    fn the_schema_has_the_keys_that_the_parser_has() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        for (section, place) in [
            (Section::TopLevel, ""),
            (Section::Workload, "/$defs/workload"),
            (Section::Service, "/$defs/service"),
            (Section::Timeout, "/$defs/timeout"),
            (Section::Retry, "/$defs/retry"),
            (Section::Breaker, "/$defs/breaker"),
            (Section::Limits, "/$defs/limits"),
            (Section::Health, "/$defs/health"),
            (Section::Fallback, "/$defs/fallback"),
            (Section::Http, "/$defs/http"),
            (Section::When, "/$defs/when"),
            (Section::Rule, "/$defs/rule"),
            (Section::Test, "/$defs/test"),
        ] {
            let mapping = schema.pointer(place).unwrap();
            let keys = mapping["properties"].as_object().unwrap().keys();
            let keys: BTreeSet<&str> = keys.map(String::as_str).collect();
            assert_eq!(
                keys,
                BTreeSet::from_iter(section.keys().iter().copied()),
                "{section:?}"
            );
            assert_eq!(mapping["additionalProperties"], false, "{section:?}");
        }
    }
}
