//! Which requests a rule is about.

use crate::limits::Limits;
use crate::rule::{HeaderMatch, HeaderValue, HttpMatch};
use crate::wire::generated::header_match;
use crate::wire::{WireError, field, generated};

impl From<HttpMatch> for generated::HttpMatch {
    fn from(it: HttpMatch) -> Self {
        Self {
            methods: it.methods.into_iter().map(Into::into).collect(),
            path: it.path.into(),
            host: it.host.map(String::from).unwrap_or_default(),
            headers: it.headers.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<generated::HttpMatch> for HttpMatch {
    type Error = WireError;

    fn try_from(message: generated::HttpMatch) -> Result<Self, WireError> {
        Ok(Self {
            methods: field::list(
                "HttpMatch.methods",
                message.methods,
                Limits::METHODS_PER_MATCH,
                |method| field::parsed("HttpMatch.methods", &method),
            )?,
            path: field::parsed("HttpMatch.path", &message.path)?,
            host: field::optional("HttpMatch.host", &message.host)?,
            headers: field::list(
                "HttpMatch.headers",
                message.headers,
                Limits::HEADERS_PER_MATCH,
                TryInto::try_into,
            )?,
        })
    }
}

impl From<HeaderMatch> for generated::HeaderMatch {
    fn from(header: HeaderMatch) -> Self {
        let value = match header.value {
            HeaderValue::Present => header_match::Value::Present(true),
            HeaderValue::Exact(text) => header_match::Value::Exact(text.into()),
            HeaderValue::Prefix(text) => header_match::Value::Prefix(text.into()),
        };
        Self {
            name: header.name.into(),
            value: Some(value),
        }
    }
}

impl TryFrom<generated::HeaderMatch> for HeaderMatch {
    type Error = WireError;

    fn try_from(message: generated::HeaderMatch) -> Result<Self, WireError> {
        let value = match field::required("HeaderMatch.value", message.value)? {
            header_match::Value::Present(true) => HeaderValue::Present,
            header_match::Value::Present(false) => {
                return Err(WireError::new("HeaderMatch.present", "it is false"));
            }
            header_match::Value::Exact(text) => {
                HeaderValue::Exact(field::parsed("HeaderMatch.exact", &text)?)
            }
            header_match::Value::Prefix(text) => {
                HeaderValue::Prefix(field::parsed("HeaderMatch.prefix", &text)?)
            }
        };
        Ok(Self {
            name: field::parsed("HeaderMatch.name", &message.name)?,
            value,
        })
    }
}
