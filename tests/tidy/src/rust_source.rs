//! Rules about `unsafe`, which need to tell code from comments and strings.

use crate::Tracked;

/// The only places where the compiler's promises may be replaced by ours: system calls that no
/// safe crate offers.
const UNSAFE_PLACES: [&str; 2] = ["meshd/src/linux/", "crates/runtime/src/linux/"];
/// How far above an `unsafe` its justification may start.
const JUSTIFICATION_LINES: usize = 12;

/// Uses of `unsafe` outside the one place for it.
pub fn misplaced_unsafe(files: &[Tracked]) -> Vec<String> {
    rust_files(files)
        .filter(|file| {
            !UNSAFE_PLACES
                .iter()
                .any(|place| file.path.starts_with(place))
        })
        .flat_map(|file| {
            unsafe_lines(&file.text).into_iter().map(|line| {
                format!(
                    "{}:{}: `unsafe` belongs in {}, in a small safe function: \
                     move it there or find a safe crate for the call",
                    file.path,
                    line + 1,
                    UNSAFE_PLACES.join(" or "),
                )
            })
        })
        .collect()
}

/// Uses of `unsafe` that do not say which invariant makes them sound.
pub fn undocumented_unsafe(files: &[Tracked]) -> Vec<String> {
    rust_files(files)
        .flat_map(|file| {
            let lines: Vec<&str> = file.text.lines().collect();
            unsafe_lines(&file.text)
                .into_iter()
                .filter(|line| !is_justified(&lines, *line))
                .map(|line| {
                    format!(
                        "{}:{}: write `// SAFETY:` above this `unsafe` and name the invariant \
                         that makes it sound",
                        file.path,
                        line + 1
                    )
                })
                .collect::<Vec<_>>()
        })
        .collect()
}

fn rust_files(files: &[Tracked]) -> impl Iterator<Item = &Tracked> {
    files
        .iter()
        .filter(|file| file.is_rust() && !file.is_generated())
}

fn is_justified(lines: &[&str], line: usize) -> bool {
    let above = line.saturating_sub(JUSTIFICATION_LINES);
    lines[above..=line]
        .iter()
        .any(|line| line.contains("// SAFETY:") || line.contains("/// # Safety"))
}

/// The lines, counted from 0, on which the keyword `unsafe` stands in code.
fn unsafe_lines(text: &str) -> Vec<usize> {
    code_only(text)
        .lines()
        .enumerate()
        .filter(|(_, line)| has_word(line, "unsafe"))
        .map(|(index, _)| index)
        .collect()
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|character: char| !character.is_alphanumeric() && character != '_')
        .any(|found| found == word)
}

/// The text with comments, strings and character literals blanked out, line breaks kept.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = comment(rest)
            .or_else(|| raw_string(rest))
            .or_else(|| quoted(rest, '"'))
            .or_else(|| character(rest));
        match skipped {
            Some(length) => {
                code.extend(rest[..length].chars().filter(|c| *c == '\n'));
                code.push(' ');
                rest = &rest[length..];
            }
            None => {
                code.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    code
}

/// The length of the comment at the start of `text`; block comments nest.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if !text.starts_with("/*") {
        return None;
    }
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 {
            return Some(at);
        }
    }
    Some(text.len())
}

/// The length of the raw string, such as `r#"…"#`, at the start of `text`.
fn raw_string(text: &str) -> Option<usize> {
    let hashes_at = if text.starts_with("br") {
        2
    } else {
        usize::from(text.starts_with('r'))
    };
    if hashes_at == 0 {
        return None;
    }
    let hashes = text[hashes_at..].chars().take_while(|c| *c == '#').count();
    let body_at = hashes_at + hashes + 1;
    if !text[hashes_at + hashes..].starts_with('"') {
        return None;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let length = text[body_at..]
        .find(&end)
        .map(|found| body_at + found + end.len());
    Some(length.unwrap_or(text.len()))
}

/// The length of the literal between two `quote`s at the start of `text`.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let body = text.strip_prefix(quote)?;
    let mut escaped = false;
    for (at, character) in body.char_indices() {
        if escaped {
            escaped = false;
        } else if character == '\\' {
            escaped = true;
        } else if character == quote {
            return Some(at + 2);
        }
    }
    Some(text.len())
}

/// The length of the character literal at the start of `text`; `'a` alone is a lifetime.
fn character(text: &str) -> Option<usize> {
    let mut body = text.strip_prefix('\'')?.chars();
    let first = body.next()?;
    if first == '\\' {
        return quoted(text, '\'');
    }
    (body.next() == Some('\'')).then(|| first.len_utf8() + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_told_from_comments_strings_and_lifetimes() {
        let text = "// unsafe\nlet a: &'static str = \"unsafe \\\" unsafe\";\n\
                    /* /* unsafe */ unsafe */ let q = '\"'; let r = r#\"unsafe \" \"#;\n\
                    #![allow(unsafe_code)]\nlet x = unsafe { y };\n";
        assert_eq!(unsafe_lines(text), [4]);
    }

    #[test]
    fn unsafe_outside_its_place_is_found() {
        let source = "//! x\nfn f() { unsafe { g() } }\n";
        let files = [
            Tracked::new("meshd/src/linux/sys.rs", source),
            Tracked::new("meshd/src/daemon.rs", source),
        ];
        let complaints = misplaced_unsafe(&files);
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].starts_with("meshd/src/daemon.rs:2:"));
    }

    #[test]
    fn unsafe_without_a_reason_is_found() {
        let bare = "//! x\nfn f() {\n    unsafe { g() }\n}\n";
        let told =
            "//! x\nfn f() {\n    // SAFETY: g has no preconditions.\n    unsafe { g() }\n}\n";
        let files = [Tracked::new("a.rs", bare), Tracked::new("b.rs", told)];
        let complaints = undocumented_unsafe(&files);
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].starts_with("a.rs:3:"));
    }
}
