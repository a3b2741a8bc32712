//! Whatever the files say, reading them ends with a bundle or with diagnostics that can be shown.

use model::limits::Limits;
use policy::{Diagnostic, SourceFile, format, load, resolve, run_tests};
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        read(&text);
    }

    #[test]
    fn any_mixture_of_the_language_is_read_or_refused(words in vec(word(), 0..60)) {
        read(&words.concat());
    }

    #[test]
    fn any_damage_to_a_good_bundle_is_read_or_refused(
        at in 0..GOOD.len(), length in 0usize..20, instead in word(),
    ) {
        let start = GOOD.floor_char_boundary(at);
        let end = GOOD.floor_char_boundary((at + length).min(GOOD.len()));
        read(&format!("{}{instead}{}", &GOOD[..start], &GOOD[end.max(start)..]));
    }

    #[test]
    fn any_arrangement_of_comments_is_formatted_without_loss(lines in vec(line(), 0..25)) {
        reformat(&lines.concat());
    }
}

/// Lines of a file that often fit together.
fn line() -> impl Strategy<Value = String> {
    let lines = [
        "fleet: prod",
        "allow:",
        "deny: [",
        "  ]",
        "tests: []",
        "  - id: a",
        "    from: b",
        "    to: [c,",
        "      d",
        "    ]",
        "- { id: x,",
        "  tcp: [22] }",
        "  - { to: any, id: y, from: any }",
        "  -",
        "    to:",
        "      - e",
        "      - f",
        "",
        "---",
        "...",
        "services:",
        "  db:",
        "    { port: 1 }",
        "from: |",
        "  text",
        "  ? key",
        "  : value",
        "'quoted",
        "  over lines'",
    ];
    let endings = [
        "",
        "",
        "",
        " # behind",
        "  #close",
        "\n# margin",
        "\n  # two",
        "\n      # six",
        "\r",
        "\n",
    ];
    let (lines, endings) = (lines.to_vec(), endings.to_vec());
    (
        proptest::sample::select(lines),
        proptest::sample::select(endings),
    )
        .prop_map(|(line, ending)| std::format!("{line}{ending}\n"))
}

const GOOD: &str = include_str!("golden/whole_language.yaml");

fn word() -> impl Strategy<Value = String> {
    let words = [
        "fleet",
        "services",
        "allow",
        "deny",
        "tests",
        "id",
        "from",
        "to",
        "tcp",
        "udp",
        "icmp",
        "port",
        "protocol",
        "endpoints",
        "rule",
        "http",
        "prod",
        "any",
        "true",
        "role=a",
        "db",
        "host:a",
        "service:db",
        "any -> db",
        "a -> b:22/udp",
        "22",
        "0-65535",
        "\"",
        "'",
        ": ",
        ":\n",
        "- ",
        ", ",
        "{ ",
        " }",
        "[",
        "]",
        "\n",
        "\n  ",
        "\n    ",
        "#",
        "&a ",
        "*a",
        "!t ",
        "|\n",
        ">\n",
        "? ",
        "---\n",
        "...\n",
        "%YAML 1.2\n",
        "\t",
        "\u{feff}",
        "\u{2028}",
        "\0",
        "é",
        "\u{1f600}",
        "<<: ",
        "~",
        "null",
    ];
    prop_oneof![
        8 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

fn read(text: &str) {
    reformat(text);
    match load(&[file("policy.yaml", text)]) {
        Ok(checked) => {
            render(&checked.warnings);
            run_tests(&checked, None);
            let _ = resolve(&checked, &[]).map_err(|diagnostics| render(&diagnostics));
        }
        Err(diagnostics) => {
            assert!(!diagnostics.is_empty());
            render(&diagnostics);
        }
    }
}

/// A bundle that is right can be formatted, which checks by itself that nothing is lost; what was
/// formatted stays as it is.
fn reformat(text: &str) {
    match format(&file("policy.yaml", text)) {
        Ok(once) => {
            let twice = format(&file("policy.yaml", &once));
            assert_eq!(twice.as_ref(), Ok(&once), "{text:?}");
        }
        Err(_) => assert!(load(&[file("policy.yaml", text)]).is_err(), "{text:?}"),
    }
}

fn render(diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        let rendered = diagnostic.render();
        assert!(
            !rendered.contains(|it: char| it.is_control() && it != '\n'),
            "{rendered:?}"
        );
    }
}

fn file(path: &str, text: &str) -> SourceFile {
    SourceFile {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

fn errors(files: &[SourceFile]) -> Vec<Diagnostic> {
    load(files).expect_err("refused")
}

#[test]
fn too_many_bytes_are_refused_unread() {
    let half = " ".repeat(Limits::BUNDLE_BYTES / 2 + 1);
    let errors = errors(&[file("a.yaml", &half), file("b.yaml", &half)]);
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].message.contains("bytes are too many"),
        "{}",
        errors[0].message
    );
}

#[test]
fn deep_nesting_is_refused_without_recursion() {
    for opener in ["[", "{a: ", "- "] {
        assert!(
            !errors(&[file("a.yaml", &opener.repeat(1_000_000))]).is_empty(),
            "{opener}"
        );
    }
}

#[test]
fn an_alias_bomb_is_refused_without_being_unfolded() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..40 {
        let below = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", [below.as_str(); 9].join(", "));
    }
    assert!(!errors(&[file("a.yaml", &bomb)]).is_empty());
}

#[test]
fn thousands_of_errors_are_cut_to_what_a_person_reads() {
    let rules = "  - { id: x y, from: nobody, to: any }\n".repeat(50_000);
    let errors = errors(&[file("a.yaml", &format!("fleet: prod\nallow:\n{rules}"))]);
    assert_eq!(errors.len(), 101);
    let last = errors.last().expect("not empty");
    assert!(last.message.starts_with("at least "), "{}", last.message);
}

#[test]
fn a_path_that_each_rule_would_carry_has_a_bound() {
    let path = "x".repeat(Limits::TEXT_CHARS + 1);
    let errors = errors(&[file(&path, GOOD)]);
    assert_eq!(errors[0].file, "");
    assert!(
        errors[0].message.contains("longer than"),
        "{}",
        errors[0].message
    );
}
