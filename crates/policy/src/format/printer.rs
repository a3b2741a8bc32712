//! Writes a layout out again. Comments are a queue in the order of the file: those above a value
//! go out before it, those behind it on its line, and whatever is left at the end.

use std::fmt::Write;

use super::layout::{Comment, Entry, Layout, Node, Position, Value};
use crate::document::Section;

/// Characters of a line; an entry that needs more is broken by its keys.
const WIDTH: usize = 120;

/// How much deeper the inside of something stands.
const STEP: usize = 2;

/// Writes the file.
pub(super) fn print(layout: &Layout) -> String {
    let mut printer = Printer {
        layout,
        comments: &layout.comments,
        lines: Vec::new(),
        is_opening: true,
        takes_comment: false,
    };
    printer.document();
    let mut text = printer.lines.join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

/// What a value is in the language, as far as its form depends on it.
#[derive(Clone, Copy)]
enum Role {
    Root,
    /// The value of a top-level key, whose entries are of this kind.
    Entries(Option<Section>),
    Entry(Section),
    Other,
}

impl Role {
    fn of_value(self, key: &Node) -> Self {
        let Value::Text { text, .. } = &key.value else {
            return Self::Other;
        };
        match (self, text.as_str()) {
            (Self::Root, "workloads") => Self::Entries(Some(Section::Workload)),
            (Self::Root, "services") => Self::Entries(Some(Section::Service)),
            (Self::Root, "allow" | "deny") => Self::Entries(Some(Section::Rule)),
            (Self::Root, "tests") => Self::Entries(Some(Section::Test)),
            (Self::Root, _) => Self::Entries(None),
            _ => self.of_item(),
        }
    }

    fn of_item(self) -> Self {
        match self {
            Self::Entries(Some(section)) => Self::Entry(section),
            _ => Self::Other,
        }
    }

    /// Returns whether it stands on lines of its own, however it was written.
    const fn is_spread(self) -> bool {
        matches!(self, Self::Root | Self::Entries(_))
    }
}

struct Printer<'l> {
    layout: &'l Layout,
    /// Those that are not written yet.
    comments: &'l [Comment],
    lines: Vec<String>,
    /// Nothing stands yet in what was opened last, so that no blank line does.
    is_opening: bool,
    /// The last line may get a comment behind it.
    takes_comment: bool,
}

/// Where the inside of a collection stands, and up to where comments may belong to it.
#[derive(Clone, Copy)]
struct Frame {
    indent: usize,
    /// The column in the file of what the collection belongs to; `None` for the root.
    owner_column: Option<usize>,
    /// Where the next thing begins that does not belong to the collection.
    until: Position,
}

impl<'l> Printer<'l> {
    fn document(&mut self) {
        if let Some(marker) = self.layout.marker {
            self.lead(marker, 0);
            self.line("---".to_owned());
            let until = Position {
                line: marker.line + 1,
                column: 0,
            };
            self.comment_behind(marker.line, until);
        }
        if let Some(root) = &self.layout.root {
            let frame = Frame {
                indent: 0,
                owner_column: None,
                until: Position::END,
            };
            match self.on_one_line(root, Role::Root, 0) {
                Some(text) if text.is_empty() => {}
                Some(text) => {
                    self.lead(root.start, 0);
                    self.line(text);
                    self.comment_behind(root.end.line, Position::END);
                }
                None => self.collection(root, Role::Root, frame, String::new()),
            }
        }
        self.comments_before(Position::END, 0, |_| true);
    }

    /// Writes a list or mapping over several lines; `opener` stands before its first entry.
    fn collection(&mut self, node: &'l Node, role: Role, frame: Frame, opener: String) {
        match &node.value {
            Value::List { items, .. } => self.list(node, items, role, frame, opener),
            Value::Map { entries, .. } => self.map(node, entries, role, frame, opener),
            Value::Absent | Value::Text { .. } => {}
        }
        self.comments_before(frame.until, frame.indent, |comment| {
            comment.start < node.end
                || frame
                    .owner_column
                    .is_none_or(|column| comment.start.column > column)
        });
    }

    fn list(
        &mut self,
        node: &'l Node,
        items: &'l [Node],
        role: Role,
        frame: Frame,
        mut opener: String,
    ) {
        let indent = frame.indent;
        for (position, item) in items.iter().enumerate() {
            let until = items.get(position + 1).map_or(frame.until, |it| it.start);
            let role = role.of_item();
            let start = match std::mem::take(&mut opener) {
                written if !written.is_empty() => format!("{written}- "),
                _ => {
                    self.lead(first_position(item), indent);
                    format!("{:indent$}- ", "")
                }
            };
            if let Some(text) = self.on_one_line(item, role, start.chars().count()) {
                self.line(format!("{start}{text}").trim_end_matches(' ').to_owned());
                self.comment_behind(item.end.line, until);
                continue;
            }
            let is_dash_apart = node.start.column < item.start.column;
            let inside = Frame {
                indent: indent + STEP,
                owner_column: if is_dash_apart {
                    Some(node.start.column)
                } else {
                    frame.owner_column
                },
                until,
            };
            self.collection(item, role, inside, start);
        }
    }

    fn map(
        &mut self,
        node: &'l Node,
        entries: &'l [Entry],
        role: Role,
        frame: Frame,
        mut opener: String,
    ) {
        let indent = frame.indent;
        let order = order(entries, role);
        let is_moved = !order.is_sorted() && self.layout.has_comment_in(node);
        let (shares, left) = self.shares(entries, frame.until);
        for (position, at) in order.iter().enumerate() {
            let entry = &entries[*at];
            let until = match order.get(position + 1) {
                None => frame.until,
                Some(_) if order.is_sorted() => entries[at + 1].key.start,
                Some(_) if is_moved => entries.get(at + 1).map_or(frame.until, |it| it.key.start),
                // There are no comments inside, and those behind go to the last line.
                Some(_) => node.start,
            };
            if is_moved {
                self.comments = shares[*at];
                if !opener.is_empty() {
                    // What stood above the key that comes first now goes above the whole.
                    self.lead(lead_position(entry), indent.saturating_sub(STEP));
                }
            }
            let mut start = std::mem::take(&mut opener);
            if start.is_empty() {
                self.lead(lead_position(entry), indent);
                start = " ".repeat(indent);
            }
            start.push_str(&scalar(&entry.key.value));
            start.push(':');
            let role = role.of_value(&entry.key);
            self.entry(entry, role, indent, until, start);
            if is_moved {
                self.comments_before(Position::END, indent, |_| true);
            }
        }
        if is_moved {
            self.comments = left;
        }
    }

    /// Writes the value of an entry behind its key, or below it.
    fn entry(
        &mut self,
        entry: &'l Entry,
        role: Role,
        indent: usize,
        until: Position,
        start: String,
    ) {
        if let Some(text) = self.on_one_line(&entry.value, role, start.chars().count() + 1) {
            self.line(format!("{start} {text}").trim_end_matches(' ').to_owned());
            self.comment_behind(entry.value.end.line, until);
            return;
        }
        self.line(start);
        self.comment_behind(entry.key.end.line, first_position(&entry.value));
        self.is_opening = true;
        let inside = Frame {
            indent: indent + STEP,
            owner_column: Some(entry.key.start.column),
            until,
        };
        self.collection(&entry.value, role, inside, String::new());
        self.comment_behind(entry.value.end.line, until);
    }

    /// Returns the comments of each entry: those above it, in it and behind it; and what is left.
    fn shares(&self, entries: &[Entry], until: Position) -> (Vec<&'l [Comment]>, &'l [Comment]) {
        let mut left = self.comments;
        let ends = entries.iter().skip(1).map(|next| next.key.start);
        let shares = entries.iter().zip(ends.chain([until])).map(|(entry, end)| {
            let belongs = |comment: &Comment| {
                comment.start < end
                    && (comment.start < entry.value.end || is_behind(comment, entry))
            };
            let count = left.iter().take_while(|it| belongs(it)).count();
            let (share, others) = left.split_at(count);
            left = others;
            share
        });
        (shares.collect(), left)
    }

    /// Returns the value as it stands on one line, `None` when it stands on several.
    fn on_one_line(&self, node: &Node, role: Role, column: usize) -> Option<String> {
        let (in_brackets, is_empty) = match &node.value {
            Value::Absent | Value::Text { .. } => return Some(scalar(&node.value)),
            Value::List { in_brackets, items } => (*in_brackets, items.is_empty()),
            Value::Map {
                in_brackets,
                entries,
            } => (*in_brackets, entries.is_empty()),
        };
        let is_spread = !in_brackets || role.is_spread() || self.layout.has_comment_in(node);
        if is_spread && !is_empty {
            return None;
        }
        let text = self.in_brackets(node, role);
        (is_empty || column + text.chars().count() <= WIDTH).then_some(text)
    }

    fn in_brackets(&self, node: &Node, role: Role) -> String {
        match &node.value {
            Value::Absent => "~".to_owned(),
            Value::Text { .. } => scalar(&node.value),
            Value::List { items, .. } => {
                let items = items.iter().map(|it| self.in_brackets(it, role.of_item()));
                format!("[{}]", items.collect::<Vec<_>>().join(", "))
            }
            Value::Map { entries, .. } if entries.is_empty() => "{}".to_owned(),
            Value::Map { entries, .. } => {
                let order = order(entries, role);
                let entries = order.iter().map(|at| &entries[*at]).map(|entry| {
                    let value = self.in_brackets(&entry.value, role.of_value(&entry.key));
                    format!("{}: {value}", scalar(&entry.key.value))
                });
                format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// Writes what stands above something: comments, and a blank line where there was one.
    fn lead(&mut self, start: Position, indent: usize) {
        self.comments_before(start, indent, |_| true);
        self.blank_line_above(start.line);
    }

    /// Writes the comments before a position on lines of their own, as long as they belong.
    fn comments_before(
        &mut self,
        until: Position,
        indent: usize,
        belongs: impl Fn(&Comment) -> bool,
    ) {
        while let Some((comment, left)) = self.comments.split_first()
            && comment.start < until
            && belongs(comment)
        {
            if comment.is_alone {
                self.blank_line_above(comment.start.line);
            }
            self.line(format!("{:indent$}#{}", "", comment.text));
            self.takes_comment = false;
            self.comments = left;
        }
    }

    /// Writes the comment behind something that ends on a line of the file, if there is one.
    fn comment_behind(&mut self, line: usize, until: Position) {
        if let Some((comment, left)) = self.comments.split_first()
            && !comment.is_alone
            && comment.start.line == line
            && comment.start < until
            && self.takes_comment
            && let Some(last) = self.lines.last_mut()
        {
            let _ = write!(last, " #{}", comment.text);
            self.takes_comment = false;
            self.comments = left;
        }
    }

    fn blank_line_above(&mut self, line: usize) {
        let is_wanted = self.layout.follows_blank(line) && !self.is_opening;
        if is_wanted && self.lines.last().is_some_and(|last| !last.is_empty()) {
            self.lines.push(String::new());
        }
    }

    fn line(&mut self, line: String) {
        self.lines.push(line);
        self.is_opening = false;
        self.takes_comment = true;
    }
}

/// Returns the order in which the entries are written.
fn order(entries: &[Entry], role: Role) -> Vec<usize> {
    let mut order: Vec<usize> = (0..entries.len()).collect();
    if let Role::Entry(section) = role {
        let rank = |at: &usize| {
            let known = match &entries[*at].key.value {
                Value::Text { text, .. } => section.keys().iter().position(|key| key == text),
                _ => None,
            };
            known.unwrap_or(usize::MAX)
        };
        order.sort_by_key(rank);
    }
    order
}

/// Whether a comment after an entry is about it: on its last line, or as deep as what is below it.
fn is_behind(comment: &Comment, entry: &Entry) -> bool {
    let is_same_line = !comment.is_alone && comment.start.line == entry.value.end.line;
    let is_inside = comment.is_alone
        && comment.start.column > entry.key.start.column
        && matches!(
            entry.value.value,
            Value::List {
                in_brackets: false,
                ..
            } | Value::Map {
                in_brackets: false,
                ..
            }
        );
    is_same_line || is_inside
}

/// Returns up to where comments go above the first line of a value.
fn first_position(node: &Node) -> Position {
    match &node.value {
        Value::Map {
            in_brackets: false,
            entries,
        } => entries.first().map_or(node.start, lead_position),
        _ => node.start,
    }
}

/// Returns up to where comments go above an entry: those between its key and a value that stands
/// on the key's line go above both.
fn lead_position(entry: &Entry) -> Position {
    match entry.value.value {
        Value::Text { .. } => entry.value.start,
        _ => entry.key.start,
    }
}

/// Returns a key or single value as it is written.
fn scalar(value: &Value) -> String {
    let Value::Text { text, quoted } = value else {
        return String::new();
    };
    if !quoted && !text.contains('\n') {
        return text.clone();
    }
    let mut out = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            other
                if other.is_control() || matches!(other, '\u{2028}' | '\u{2029}' | '\u{feff}') =>
            {
                let _ = write!(out, "\\u{:04X}", u32::from(other));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
