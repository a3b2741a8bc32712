//! The policies that the documentation shows are policies: they check, their tests pass, and they
//! are written as `meshctl policy fmt` writes.

use policy::{SourceFile, TestVerdict, format, load, run_tests};

const DOCUMENTS: [(&str, &str); 2] = [
    ("README.md", include_str!("../../../README.md")),
    ("docs/policy.md", include_str!("../../../docs/policy.md")),
];

/// Every block of YAML that is a whole bundle, with where it is from.
fn bundles_of(document: &str, text: &str) -> Vec<SourceFile> {
    let blocks = text.split("```yaml\n").skip(1);
    blocks
        .filter_map(|rest| Some(rest.split_once("```")?.0.to_owned()))
        .filter(|block| block.starts_with("fleet:"))
        .enumerate()
        .map(|(number, text)| SourceFile {
            path: format!("{document}-{number}.yaml"),
            text,
        })
        .collect()
}

#[test]
fn every_policy_of_the_documentation_is_good() {
    for (document, text) in DOCUMENTS {
        let bundles = bundles_of(document, text);
        assert!(!bundles.is_empty(), "{document} shows a policy");
        for file in bundles {
            assert_eq!(format(&file).unwrap(), file.text, "{}", file.path);
            let checked = load(std::slice::from_ref(&file)).unwrap_or_else(|wrong| {
                panic!("{}", wrong.iter().map(|it| it.render()).collect::<String>())
            });
            assert!(!checked.tests.is_empty(), "{}", file.path);
            for outcome in run_tests(&checked, None) {
                assert_eq!(outcome.verdict, TestVerdict::Passed, "{outcome:?}");
            }
        }
    }
}
