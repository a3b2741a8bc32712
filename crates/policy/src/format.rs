//! `policy fmt`: one way to write a file. Comments, blank lines between entries, the order of
//! entries and whether an entry stands on one line or several are the author's; spacing,
//! indentation, quotes and the order of an entry's keys are not.
//!
//! What comes out is read again and compared, so that nothing can get lost here: a file that
//! would say something else, or lose a comment, is refused.

use crate::SourceFile;
use crate::diagnostic::{Complaint, Diagnostic, Place, Report};
use crate::yaml::{self, Node, Value};

mod layout;
mod printer;

use layout::Layout;

/// Returns the text of a file as it is written canonically.
///
/// # Errors
/// The file is not strict YAML, or cannot be rewritten without changing what it says.
pub fn format(file: &SourceFile) -> Result<String, Vec<Diagnostic>> {
    let before = read(file)?;
    let unchanged = |place: Option<Place>| {
        let files = std::slice::from_ref(file);
        let mut report = Report::new(files);
        let complaint = Complaint::new(
            "this file cannot be formatted without changing what it says, so it is left as it is",
        );
        report.error(
            place.unwrap_or(Place::whole_file(0)),
            complaint.help("write comments on lines of their own, and values on one line"),
        );
        report.finish().expect_err("an error was added")
    };
    let layout = Layout::read(&file.text).ok_or_else(|| unchanged(None))?;
    let formatted = SourceFile {
        path: file.path.clone(),
        text: printer::print(&layout),
    };
    let after = read(&formatted).map_err(|_| unchanged(None))?;
    let kept = Layout::read(&formatted.text).ok_or_else(|| unchanged(None))?;
    if !same(before.as_ref(), after.as_ref()) || layout.comment_texts() != kept.comment_texts() {
        return Err(unchanged(before.map(|node| node.place)));
    }
    Ok(formatted.text)
}

fn read(file: &SourceFile) -> Result<Option<Node>, Vec<Diagnostic>> {
    let mut report = Report::new(std::slice::from_ref(file));
    let roots = yaml::parse_files(&mut report);
    report.finish()?;
    Ok(roots.into_iter().next().flatten())
}

fn same(a: Option<&Node>, b: Option<&Node>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => says_the_same(&a.value, &b.value),
        _ => false,
    }
}

/// Returns whether both say the same, whatever the order of keys.
fn says_the_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Null, Value::Null) => true,
        (
            Value::Text { text, quoted },
            Value::Text {
                text: other,
                quoted: other_quoted,
            },
        ) => text == other && (quoted == other_quoted || text.contains('\n')),
        (Value::List(items), Value::List(others)) => {
            items.len() == others.len()
                && items
                    .iter()
                    .zip(others)
                    .all(|(item, other)| says_the_same(&item.value, &other.value))
        }
        (Value::Map(entries), Value::Map(others)) => {
            let by_key = |entries: &'_ [yaml::Entry]| {
                let mut order: Vec<usize> = (0..entries.len()).collect();
                order.sort_by(|a, b| entries[*a].key.cmp(&entries[*b].key));
                order
            };
            entries.len() == others.len()
                && by_key(entries).iter().zip(by_key(others)).all(|(at, to)| {
                    let (entry, other) = (&entries[*at], &others[to]);
                    entry.key == other.key && says_the_same(&entry.value.value, &other.value.value)
                })
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formatted(text: &str) -> String {
        let file = |text: &str| SourceFile {
            path: "policy.yaml".to_owned(),
            text: text.to_owned(),
        };
        let once = format(&file(text)).unwrap_or_else(|errors| panic!("{}", errors[0].render()));
        let twice = format(&file(&once)).expect("what was formatted can be formatted");
        assert_eq!(once, twice, "formatting is done after one time");
        once
    }

    #[test]
    fn spacing_quotes_and_the_order_of_keys_become_canonical() {
        let text = "fleet:   prod\nservices: {db: {protocol: tcp,   port: 5432, endpoints: ['role=db']}}\nallow:\n- {to:   any, from: any, icmp: true, id: ping}\ntests: [ {rule: x, deny: 'a -> b'} ]";
        assert_eq!(
            formatted(text),
            "fleet: prod
services:
  db: { port: 5432, protocol: tcp, endpoints: [\"role=db\"] }
allow:
  - { id: ping, from: any, to: any, icmp: true }
tests:
  - { deny: \"a -> b\", rule: x }
"
        );
    }

    #[test]
    fn comments_go_with_their_keys() {
        let text = "fleet: prod
allow:
  # the whole rule
  - tcp: [22] # only this
    # where to
    to:
      - any # really
      # and no more
    # who
    from: \"role=ops\"
    # its name
    id: ssh # short
  # the end
  - { to: any, # all
      icmp: true, from: any, id: ping }
";
        assert_eq!(
            formatted(text),
            "fleet: prod
allow:
  # the whole rule
  # its name
  - id: ssh # short
    # who
    from: \"role=ops\"
    # where to
    to:
      - any # really
      # and no more
    tcp: [22] # only this
  # the end
  - id: ping
    from: any
    to: any # all
    icmp: true
"
        );
    }

    #[test]
    fn comments_and_blank_lines_stay_where_they_belong() {
        let text = "# The policy of prod.


---
fleet: prod # the only one
allow: # who may
      # first
    - { id: a, from: any, to: any, icmp: true }   # a ping


    # second
    - { id: b,   # the id
        from: [x, # here
          y
        # last
        ], to: any, tcp: [22] } # after
    # end of the list

# of the denies
deny: []
# end
";
        assert_eq!(
            formatted(text),
            "# The policy of prod.

---
fleet: prod # the only one
allow: # who may
  # first
  - { id: a, from: any, to: any, icmp: true } # a ping

  # second
  - id: b # the id
    from:
      - x # here
      - y
      # last
    to: any
    tcp: [22] # after
  # end of the list

# of the denies
deny: []
# end
"
        );
    }

    #[test]
    fn an_entry_over_several_lines_stays_so() {
        let text = "allow:\n- from:\n  - a\n  - b\n  id: x\n\n  tcp:\n   - 22\n";
        let expected =
            "allow:\n  - id: x\n    from:\n      - a\n      - b\n\n    tcp:\n      - 22\n";
        assert_eq!(formatted(text), expected);
    }

    #[test]
    fn a_line_that_is_too_long_is_broken_by_its_keys() {
        let hosts: Vec<String> = (0..12).map(|number| format!("database-{number}")).collect();
        let text = format!(
            "allow:\n  - {{ tcp: [22], id: x, from: [{}], to: any }} # long\n",
            hosts.join(",")
        );
        let expected = format!(
            "allow:\n  - id: x\n    from:\n      - {}\n    to: any\n    tcp: [22] # long\n",
            hosts.join("\n      - ")
        );
        assert_eq!(formatted(&text), expected);
    }

    #[test]
    fn comments_in_odd_places_are_kept() {
        for text in [
            "# only a comment",
            "fleet:\n  # which\n  prod\n",
            "fleet: # which\n  prod\n",
            "allow:\n  - # the first\n    id: a\n  -\n    # the second\n    id: b\n",
            "allow:\n- a\n# at the margin\n- b\n# at the end\nfleet: prod\n",
            "allow: [ # x\n]\nfleet: prod\n",
            "allow: {a: [[1, 2], # x\n {b: c}]} # y\n",
            "--- # start\nfleet: prod\n... # done\n# really\n",
            "from: |\n  x\n  y\nid: b # c\n",
            "a: 'x\n\n  y' # z\n",
        ] {
            let formatted = formatted(text);
            let count = |text: &str| text.matches('#').count();
            assert_eq!(count(&formatted), count(text), "{formatted}");
        }
    }

    #[test]
    fn what_is_not_strict_yaml_is_refused() {
        let file = SourceFile {
            path: "policy.yaml".to_owned(),
            text: "a: &x b\n".to_owned(),
        };
        assert!(format(&file).is_err());
    }
}
