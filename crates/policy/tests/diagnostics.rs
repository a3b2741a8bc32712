//! What people read when a bundle is wrong, word by word. The directory `golden/` has a bundle and
//! what is said of it side by side; a line `# --- NAME` begins another file of the directory.

use policy::{Diagnostic, SourceFile, load};

macro_rules! golden {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            let yaml = include_str!(concat!("golden/", stringify!($name), ".yaml"));
            let expected = include_str!(concat!("golden/", stringify!($name), ".txt"));
            let said = said_of(&files(yaml));
            assert!(said == expected, "<<<{}\n{said}>>>", stringify!($name));
        }
    )*};
}

golden! {
    calls cipher deep duplicate_key duplicates empty enforceable hidden later not_yaml null_section rules services_and_requests tests
    unknown_keys warnings whole_language
}

fn said_of(files: &[SourceFile]) -> String {
    match load(files) {
        Ok(checked) => format!("accepted\n{}", rendered(&checked.warnings)),
        Err(diagnostics) => rendered(&diagnostics),
    }
}

fn rendered(diagnostics: &[Diagnostic]) -> String {
    diagnostics
        .iter()
        .map(Diagnostic::render)
        .collect::<Vec<_>>()
        .join("\n")
}

fn files(yaml: &str) -> Vec<SourceFile> {
    let file = |path: &str, text: &str| SourceFile {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    if !yaml.starts_with("# --- ") {
        return vec![file("policy.yaml", yaml)];
    }
    let parts = yaml
        .split("# --- ")
        .skip(1)
        .filter_map(|part| part.split_once('\n'));
    parts.map(|(path, text)| file(path, text)).collect()
}
