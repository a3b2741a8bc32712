//! Strict YAML as a tree with places: no anchors, aliases, tags or directives, one document a
//! file, keys are plain text and unique, and everything has a bound. What the values mean is
//! `document`'s.

use std::collections::BTreeMap;

use model::limits::Limits;
use serde_saphyr::granit_parser::{self, Event, Parser, ScalarStyle, Span};

use crate::SourceFile;
use crate::diagnostic::{Complaint, Place, Report, quoted};

/// A value and where it stands.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// A value as it is written; what a text means is decided by who reads it.
#[derive(Debug)]
pub(crate) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// `quoted` tells `"true"` from `true`.
    Text {
        text: Box<str>,
        quoted: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One `key: value`.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Box<str>,
    pub(crate) key_place: Place,
    pub(crate) value: Node,
}

impl Value {
    /// Returns what it is, for messages.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Text { .. } => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// How deep lists and mappings may stand in each other; the language needs four.
const DEPTH_MAX: usize = 12;

/// Values in all files of a bundle; a rule has about twelve.
const NODES_MAX: usize = 2_000_000;

/// Files of a bundle.
const FILES_MAX: usize = 1_000;

/// Parses all files; `None` for those without content.
pub(crate) fn parse_files(report: &mut Report<'_>) -> Vec<Option<Node>> {
    let files = report.files();
    if !check_sizes(files, report) {
        return Vec::new();
    }
    let mut nodes_left = NODES_MAX;
    let numbered = (0..).zip(files);
    numbered
        .map(|(file, source)| parse(file, source, &mut nodes_left, report))
        .collect()
}

fn check_sizes(files: &[SourceFile], report: &mut Report<'_>) -> bool {
    let bytes: usize = files.iter().map(|file| file.text.len()).sum();
    // Each rule carries the path of its file.
    let path_is_long = |file: &SourceFile| file.path.chars().count() > Limits::TEXT_CHARS;
    if files.len() > FILES_MAX {
        report.error_of_bundle(Complaint::new(format!(
            "{} files are too many: a bundle has at most {FILES_MAX}",
            files.len()
        )));
    } else if bytes > Limits::BUNDLE_BYTES {
        report.error_of_bundle(Complaint::new(format!(
            "{bytes} bytes are too many: all files of a bundle have at most {}",
            Limits::BUNDLE_BYTES
        )));
    } else if files.iter().any(path_is_long) {
        report.error_of_bundle(Complaint::new(format!(
            "the path of a file is longer than {} characters",
            Limits::TEXT_CHARS
        )));
    } else {
        return true;
    }
    false
}

fn parse(
    file: u32,
    source: &SourceFile,
    nodes_left: &mut usize,
    report: &mut Report<'_>,
) -> Option<Node> {
    let options = granit_parser::options! {
        disallow_directives: true,
        emit_unresolved_aliases: true,
        emit_comments: false,
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
    };
    let parser = Parser::new_from_str_with_options(&source.text, options);
    let mut builder = Builder {
        file,
        parser,
        nodes_left,
        report,
    };
    match builder.document() {
        Ok(node) => node,
        Err(Stop { place, complaint }) => {
            report.error(place, complaint);
            None
        }
    }
}

/// Why a file cannot be read any further.
struct Stop {
    place: Place,
    complaint: Complaint,
}

struct Builder<'i, 'r, 'f> {
    file: u32,
    parser: Parser<'i, granit_parser::StrInput<'i>>,
    nodes_left: &'r mut usize,
    report: &'r mut Report<'f>,
}

impl<'i> Builder<'i, '_, '_> {
    fn document(&mut self) -> Result<Option<Node>, Stop> {
        let mut root = None;
        loop {
            let (event, place) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(..) if root.is_some() => {
                    let complaint = Complaint::new("a second YAML document begins here")
                        .help("one file is one document: put this into a file of its own");
                    return Err(Stop { place, complaint });
                }
                Event::DocumentStart(..) => {}
                event => root = Some(self.node(event, place, 0)?),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'i>, Place), Stop> {
        match self.parser.next() {
            Some(Ok((event, span))) => {
                let place = self.place(span);
                Ok((event, place))
            }
            Some(Err(error)) => {
                let place = self.place(Span::empty(*error.marker()));
                Err(Stop {
                    place,
                    complaint: not_yaml(&error.info()),
                })
            }
            None => Err(Stop {
                place: Place::whole_file(self.file),
                complaint: not_yaml("the file ends in the middle of something"),
            }),
        }
    }

    fn node(&mut self, event: Event<'i>, place: Place, depth: usize) -> Result<Node, Stop> {
        match self.nodes_left.checked_sub(1) {
            Some(left) => *self.nodes_left = left,
            None => {
                let message =
                    format!("a bundle has at most {NODES_MAX} values, and this is one more");
                return Err(Stop {
                    place,
                    complaint: Complaint::new(message),
                });
            }
        }
        if depth > DEPTH_MAX {
            let message = format!("lists and mappings are nested deeper than {DEPTH_MAX} levels");
            return Err(Stop {
                place,
                complaint: Complaint::new(message),
            });
        }
        self.refuse_what_hides(&event, place);
        let value = match event {
            Event::Scalar(text, style, ..) => scalar(&text, style),
            Event::SequenceStart(..) => self.list(depth)?,
            Event::MappingStart(..) => self.map(depth)?,
            // Reported already, and stands for nothing.
            _ => Value::Null,
        };
        Ok(Node { place, value })
    }

    fn list(&mut self, depth: usize) -> Result<Value, Stop> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, place) => items.push(self.node(event, place, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Stop> {
        let mut entries = Vec::new();
        let mut seen: BTreeMap<Box<str>, Place> = BTreeMap::new();
        loop {
            let (event, key_place) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(Value::Map(entries));
            }
            let key = self.node(event, key_place, depth + 1)?;
            let (event, place) = self.next()?;
            let value = self.node(event, place, depth + 1)?;
            let Value::Text { text: key, .. } = key.value else {
                let message = format!("a key is a word, not {}", key.value.kind());
                self.report.error(key_place, Complaint::new(message));
                continue;
            };
            match seen.get(&key) {
                Some(first) => {
                    let first = self.report.named(*first);
                    let message = format!("the key {} stands twice", quoted(&key));
                    let help = format!("the first one is at {first}; join them or remove one");
                    self.report
                        .error(key_place, Complaint::new(message).help(help));
                }
                None => {
                    seen.insert(key.clone(), key_place);
                    entries.push(Entry {
                        key,
                        key_place,
                        value,
                    });
                }
            }
        }
    }

    /// What is written at one place has to stand there in full.
    fn refuse_what_hides(&mut self, event: &Event<'i>, place: Place) {
        let (anchor, tag) = match event {
            Event::Scalar(_, _, anchor, tag)
            | Event::SequenceStart(_, anchor, tag)
            | Event::MappingStart(_, anchor, tag) => (*anchor, tag.is_some()),
            _ => (0, false),
        };
        let is_alias = matches!(event, Event::Alias(_) | Event::UnresolvedAlias(_));
        if anchor != 0 || is_alias {
            let complaint = Complaint::new("anchors and aliases (`&name`, `*name`) are not allowed")
                .help("write the value out, so that a reviewer sees it; quote text that begins with & or *");
            self.report.error(place, complaint);
        }
        if tag {
            let complaint = Complaint::new("tags (`!name`) are not allowed")
                .help("remove the tag; quote text that begins with !");
            self.report.error(place, complaint);
        }
    }

    fn place(&self, span: Span) -> Place {
        let (start, end) = (span.start, span.end);
        let length = if start.line() == end.line() {
            end.col().saturating_sub(start.col())
        } else {
            1
        };
        Place {
            file: self.file,
            line: bounded(start.line()),
            column: bounded(start.col()).saturating_add(1),
            length: bounded(length),
        }
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    let quoted = style != ScalarStyle::Plain;
    match text {
        "" | "~" | "null" | "Null" | "NULL" if !quoted => Value::Null,
        _ => Value::Text {
            text: text.into(),
            quoted,
        },
    }
}

fn not_yaml(why: &str) -> Complaint {
    Complaint::new(format!("this is not valid YAML: {why}"))
}

fn bounded(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
