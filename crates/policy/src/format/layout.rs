//! A file as its author laid it out: values with where they begin and end, comments, blank lines.
//! Only for files that `yaml` has read already; it has refused what is not strict.

use serde_saphyr::granit_parser::{self, Event, Marker, Parser, ScalarStyle, Span, StructureStyle};

/// A line from 1 and a column from 0, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Position {
    /// After everything.
    pub(super) const END: Self = Self {
        line: usize::MAX,
        column: usize::MAX,
    };
}

/// White space of YAML within a line (YAML 1.2.2, 5.5).
const WHITE: [char; 2] = [' ', '\t'];

/// What stands in a file.
#[derive(Debug)]
pub(super) struct Layout {
    /// Where `---` stands, if it does.
    pub(super) marker: Option<Position>,
    pub(super) root: Option<Node>,
    /// In the order of the file.
    pub(super) comments: Vec<Comment>,
    /// By line, from 0.
    is_blank: Vec<bool>,
}

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) start: Position,
    /// Where its last line ends that says something.
    pub(super) end: Position,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    /// Not written at all, as after `key:`.
    Absent,
    Text {
        text: String,
        quoted: bool,
    },
    List {
        in_brackets: bool,
        items: Vec<Node>,
    },
    Map {
        in_brackets: bool,
        entries: Vec<Entry>,
    },
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Node,
    pub(super) value: Node,
}

#[derive(Debug)]
pub(super) struct Comment {
    pub(super) start: Position,
    /// Nothing stands before it on its line.
    pub(super) is_alone: bool,
    /// What follows the `#`.
    pub(super) text: String,
}

impl Layout {
    /// Reads a file; `None` when it is not what `yaml` lets through.
    pub(super) fn read(text: &str) -> Option<Self> {
        let options = granit_parser::options! {
            disallow_directives: true,
            emit_comments: true,
            max_buffered_comment_events: usize::MAX,
        };
        let mut reader = Reader {
            parser: Parser::new_from_str_with_options(text, options),
            comments: Vec::new(),
        };
        let (marker, root) = reader.document()?;
        let mut comments = reader.comments;
        let lines: Vec<&str> = text.lines().collect();
        for comment in &mut comments {
            let line = lines.get(comment.start.line - 1)?;
            let mut before = line.chars().take(comment.start.column);
            comment.is_alone = before.all(|it| WHITE.contains(&it) || it == '\u{feff}');
        }
        comments.sort_by_key(|comment| comment.start);
        Some(Self {
            marker,
            root,
            comments,
            is_blank: lines
                .iter()
                .map(|line| line.trim_matches(WHITE).is_empty())
                .collect(),
        })
    }

    /// Returns whether the line above is blank.
    pub(super) fn follows_blank(&self, line: usize) -> bool {
        line.checked_sub(2)
            .and_then(|above| self.is_blank.get(above))
            .is_some_and(|is_blank| *is_blank)
    }

    /// Returns whether a comment stands inside the value.
    pub(super) fn has_comment_in(&self, node: &Node) -> bool {
        let first = self
            .comments
            .partition_point(|comment| comment.start < node.start);
        self.comments
            .get(first)
            .is_some_and(|comment| comment.start < node.end)
    }

    /// Returns what all comments say, in an order that does not depend on where they stand.
    pub(super) fn comment_texts(&self) -> Vec<&str> {
        let mut texts: Vec<&str> = self
            .comments
            .iter()
            .map(|comment| comment.text.as_str())
            .collect();
        texts.sort_unstable();
        texts
    }
}

struct Reader<'i> {
    parser: Parser<'i, granit_parser::StrInput<'i>>,
    comments: Vec<Comment>,
}

impl<'i> Reader<'i> {
    fn document(&mut self) -> Option<(Option<Position>, Option<Node>)> {
        let (mut marker, mut root) = (None, None);
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Some((marker, root)),
                (Event::StreamStart | Event::DocumentEnd, _) => {}
                (Event::DocumentStart(is_written, _), span) => {
                    marker = is_written.then(|| position(span.start));
                }
                (event, span) => root = Some(self.node(event, span)?),
            }
        }
    }

    /// Returns the next event that is not a comment.
    fn next(&mut self) -> Option<(Event<'i>, Span)> {
        loop {
            let (event, span) = self.parser.next()?.ok()?;
            let Event::Comment(text, _) = event else {
                return Some((event, span));
            };
            self.comments.push(Comment {
                start: position(span.start),
                is_alone: false,
                text: text.trim_end_matches(WHITE).to_owned(),
            });
        }
    }

    fn node(&mut self, event: Event<'i>, span: Span) -> Option<Node> {
        let start = position(span.start);
        let (value, end) = match event {
            Event::Scalar(text, style, ..) => scalar(&text, style, span),
            Event::SequenceStart(style, ..) => self.list(style == StructureStyle::Flow, start)?,
            Event::MappingStart(style, ..) => self.map(style == StructureStyle::Flow, start)?,
            _ => return None,
        };
        Some(Node { start, end, value })
    }

    fn list(&mut self, in_brackets: bool, start: Position) -> Option<(Value, Position)> {
        let mut items: Vec<Node> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                let last = items.last().map_or(start, |item| item.end);
                let end = if in_brackets {
                    position(span.end)
                } else {
                    last
                };
                return Some((Value::List { in_brackets, items }, end));
            }
            items.push(self.node(event, span)?);
        }
    }

    fn map(&mut self, in_brackets: bool, start: Position) -> Option<(Value, Position)> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                let last = entries.last().map_or(start, |entry| entry.value.end);
                let end = if in_brackets {
                    position(span.end)
                } else {
                    last
                };
                let value = Value::Map {
                    in_brackets,
                    entries,
                };
                return Some((value, end));
            }
            let key = self.node(event, span)?;
            let (event, span) = self.next()?;
            let value = self.node(event, span)?;
            entries.push(Entry { key, value });
        }
    }
}

fn scalar(text: &str, style: ScalarStyle, span: Span) -> (Value, Position) {
    let (start, mut end) = (position(span.start), position(span.end));
    if style == ScalarStyle::Plain && start == end {
        return (Value::Absent, end);
    }
    if matches!(style, ScalarStyle::Literal | ScalarStyle::Folded) {
        // The span of a block of text reaches to what comes after it.
        end = start.max(Position {
            line: end.line - 1,
            column: usize::MAX,
        });
    }
    let value = Value::Text {
        text: text.to_owned(),
        quoted: style != ScalarStyle::Plain,
    };
    (value, end)
}

fn position(marker: Marker) -> Position {
    Position {
        line: marker.line(),
        column: marker.col(),
    }
}
