//! `http:` of a rule: `"GET /v1/**"`, or a mapping with methods, path, host and headers.

use model::limits::Limits;
use model::rule::{
    HeaderMatch, HeaderName, HeaderText, HeaderValue, HttpMatch, Method, PathPattern,
};

use super::reader::{Fields, Section, one_or_more, present, text};
use crate::diagnostic::{Complaint, Report, quoted};
use crate::yaml::{Node, Value};

/// Reads one entry or a list of them.
pub(super) fn read(node: &Node, report: &mut Report<'_>) -> Option<Vec<HttpMatch>> {
    let items = one_or_more(node, "`http`", Limits::HTTP_MATCHES_PER_RULE, report)?;
    let read: Vec<_> = items.iter().map(|item| entry(item, report)).collect();
    read.into_iter().collect()
}

fn entry(node: &Node, report: &mut Report<'_>) -> Option<HttpMatch> {
    if let Value::Map(_) = node.value {
        return mapping(node, report);
    }
    let written = text(node, "an entry of `http`", report)?;
    report.check(node.place, short(written))
}

const FORM: &str = "write `GET /v1/**`, `GET,POST /v1/orders` or `* /admin/**`: `*` is one segment, \
                    `**` at the end any rest";

fn short(written: &str) -> Result<HttpMatch, Complaint> {
    let not_a_request = || {
        let complaint = Complaint::new(format!("{} is not a request", quoted(written)));
        match written.starts_with('/') {
            true => complaint.help(format!("say the method too: `* {written}` for any")),
            false => complaint.help(FORM),
        }
    };
    let (methods, path) = written.split_once(' ').ok_or_else(not_a_request)?;
    let methods = match methods {
        "*" => Vec::new(),
        methods => methods.split(',').map(method).collect::<Result<_, _>>()?,
    };
    if methods.len() > Limits::METHODS_PER_MATCH {
        return Err(not_a_request());
    }
    Ok(HttpMatch {
        methods,
        path: path_pattern(path.trim_start())?,
        host: None,
        headers: Vec::new(),
    })
}

/// Parses a method.
///
/// # Errors
/// Says how methods are written.
pub(super) fn method(written: &str) -> Result<Method, Complaint> {
    written.parse().map_err(|error: model::name::InvalidName| {
        let upper = written.to_ascii_uppercase();
        let complaint = Complaint::new(error.to_string());
        match upper != written && upper.parse::<Method>().is_ok() {
            true => complaint.suggest(Some(upper)),
            false => complaint.help(FORM),
        }
    })
}

fn path_pattern(written: &str) -> Result<PathPattern, Complaint> {
    let parsed = written.parse();
    parsed.map_err(|error: model::name::InvalidName| Complaint::new(error.to_string()).help(FORM))
}

fn mapping(node: &Node, report: &mut Report<'_>) -> Option<HttpMatch> {
    let fields = Fields::read(node, Section::Http, report)?;
    let is_said = Section::Http.keys().iter().any(|key| fields.has(key));
    if !is_said {
        let complaint = Complaint::new("this entry of `http` says nothing")
            .help("add `methods`, `path`, `host` or `headers`, or remove it");
        report.error(node.place, complaint);
        return None;
    }
    let methods = present(&fields, "methods", report, methods)?;
    let path = present(&fields, "path", report, |node, report| {
        let written = text(node, "`path`", report)?;
        report.check(node.place, path_pattern(written))
    })?;
    let host = present(&fields, "host", report, |node, report| {
        let written = text(node, "`host`", report)?;
        let parsed = written.parse();
        let parsed = parsed.map_err(|error: model::name::InvalidName| {
            Complaint::new(error.to_string())
                .help("the host as callers call it: `api.example`, or `*.example` for all below")
        });
        report.check(node.place, parsed)
    })?;
    let headers = present(&fields, "headers", report, headers)?;
    Some(HttpMatch {
        methods: methods.unwrap_or_default(),
        path: path.unwrap_or_else(PathPattern::any),
        host,
        headers: headers.unwrap_or_default(),
    })
}

fn methods(node: &Node, report: &mut Report<'_>) -> Option<Vec<Method>> {
    let items = one_or_more(node, "`methods`", Limits::METHODS_PER_MATCH, report)?;
    let read = items.iter().map(|item| {
        let written = text(item, "a method", report)?;
        report.check(item.place, method(written))
    });
    let read: Vec<_> = read.collect();
    read.into_iter().collect()
}

/// Reads `{ NAME: VALUE }`.
pub(super) fn headers(node: &Node, report: &mut Report<'_>) -> Option<Vec<HeaderMatch>> {
    let Value::Map(entries) = &node.value else {
        let complaint =
            Complaint::new(format!("`headers` is a mapping, not {}", node.value.kind()))
                .help("for example `headers: { x-team: billing }`; `\"*\"` is any value");
        report.error(node.place, complaint);
        return None;
    };
    if entries.len() > Limits::HEADERS_PER_MATCH {
        let most = Limits::HEADERS_PER_MATCH;
        let message = format!("{} headers are too many: at most {most} fit", entries.len());
        report.error(node.place, Complaint::new(message));
        return None;
    }
    let read = entries.iter().map(|entry| {
        let name = report.check(entry.key_place, header_name(&entry.key));
        let written = text(&entry.value, "a header", report)?;
        let value = report.check(entry.value.place, header_value(written));
        Some(HeaderMatch {
            name: name?,
            value: value?,
        })
    });
    let read: Vec<_> = read.collect();
    read.into_iter().collect()
}

/// Parses the name of a header.
///
/// # Errors
/// Says how headers are written.
pub(super) fn header_name(written: &str) -> Result<HeaderName, Complaint> {
    written.parse().map_err(|error: model::name::InvalidName| {
        let lower = written.to_ascii_lowercase();
        let complaint = Complaint::new(error.to_string());
        match lower != written && lower.parse::<HeaderName>().is_ok() {
            true => complaint.suggest(Some(lower)),
            false => complaint,
        }
    })
}

fn header_value(written: &str) -> Result<HeaderValue, Complaint> {
    let parse = |text: &str| -> Result<HeaderText, Complaint> {
        text.parse().map_err(|error: model::name::InvalidName| {
            Complaint::new(error.to_string())
                .help("write the value, its beginning with * behind, or `*` for any")
        })
    };
    match written.strip_suffix('*') {
        Some("") => Ok(HeaderValue::Present),
        Some(prefix) => parse(prefix).map(HeaderValue::Prefix),
        None => parse(written).map(HeaderValue::Exact),
    }
}
