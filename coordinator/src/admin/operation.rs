//! One operation of the admin API: how it is asked for, what it means, who may, how it is answered.
//! The router and the OpenAPI document are both made of these, so that neither can have what the
//! other has not.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use axum::body::Bytes;
use axum::extract::Query;
use axum::http::{Method, StatusCode, Uri};
use fleet::AdminRequest;
use model::control::{Refusal, RefusalCode};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;

use super::answer::Failure;
use super::body;

/// Writes the schema of a type.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

type Make = Box<dyn Fn(&Given) -> Result<AdminRequest, Failure> + Send + Sync>;

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Any local user learns the version; the rest is a viewer's.
    Anybody,
    /// Any credential.
    Viewer,
    /// An operator or an admin.
    Operator,
    /// A policy editor or an admin.
    PolicyEditor,
    /// An admin.
    Admin,
    /// Root and group `mesh` on the coordinator's own machine, over its socket.
    Machine,
}

impl Needs {
    /// Returns the role that a credential must have at least; `None`: no credential does.
    pub(super) fn role(self) -> Option<&'static str> {
        match self {
            Self::Anybody | Self::Viewer => Some("viewer"),
            Self::Operator => Some("operator"),
            Self::PolicyEditor => Some("policy_editor"),
            Self::Admin => Some("admin"),
            Self::Machine => None,
        }
    }

    /// Returns the sentence for people.
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::Anybody => {
                "Needs the role viewer. Over the local socket any user is told the version alone."
            }
            Self::Viewer => "Needs the role viewer: any credential will do.",
            Self::Operator => "Needs the role operator or admin.",
            Self::PolicyEditor => "Needs the role policy_editor or admin.",
            Self::Admin => "Needs the role admin.",
            Self::Machine => {
                "Only over the local socket of the coordinator's own machine, for root and group mesh."
            }
        }
    }
}

/// What a request brings along.
pub(super) struct Given {
    pub(super) path: BTreeMap<String, String>,
    pub(super) uri: Uri,
    pub(super) body: Bytes,
}

impl Given {
    /// Reads a part of the path.
    pub(super) fn path<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T, Failure> {
        let text = self.path.get(name).map_or("", String::as_str);
        let invalid = |error: T::Err| Refusal::new(RefusalCode::Invalid, error.to_string());
        text.parse().map_err(invalid).map_err(Failure::from)
    }

    fn query<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let read = Query::try_from_uri(&self.uri);
        let Query(query) =
            read.map_err(|error| Refusal::new(RefusalCode::Invalid, error.body_text()))?;
        Ok(query)
    }
}

/// How an operation is carried out.
pub(super) enum Act {
    /// The fleet is asked this.
    Ask(Make),
    /// By a handler of its own.
    Own,
}

/// One operation.
pub(super) struct Operation {
    pub(super) method: Method,
    pub(super) path: &'static str,
    /// For programs that are generated from the document; never changed.
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) description: &'static str,
    pub(super) needs: Needs,
    pub(super) query: Option<SchemaOf>,
    pub(super) body: Option<SchemaOf>,
    pub(super) answer: SchemaOf,
    /// Beside those that every operation of its shape has.
    pub(super) failures: Vec<StatusCode>,
    pub(super) act: Act,
}

impl Operation {
    /// Begins an operation that any credential may ask for, and that has a handler of its own
    /// until it is said what it asks the fleet.
    pub(super) fn new(
        method: Method,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
    ) -> Self {
        Self {
            method,
            path,
            id,
            summary,
            description: "",
            needs: Needs::Viewer,
            query: None,
            body: None,
            answer: |_| Schema::default(),
            failures: Vec::new(),
            act: Act::Own,
        }
    }

    /// Says more than the summary.
    pub(super) fn says(self, description: &'static str) -> Self {
        Self {
            description,
            ..self
        }
    }

    /// Names who may ask.
    pub(super) fn needs(self, needs: Needs) -> Self {
        Self { needs, ..self }
    }

    /// Names the type of the answer.
    pub(super) fn answers<T: JsonSchema>(self) -> Self {
        Self {
            answer: |schemas| schemas.subschema_for::<T>(),
            ..self
        }
    }

    /// Names what else may go wrong.
    pub(super) fn fails(self, failures: &[StatusCode]) -> Self {
        Self {
            failures: failures.to_vec(),
            ..self
        }
    }

    /// Asks the fleet what the path says.
    pub(super) fn asks(
        self,
        make: impl Fn(&Given) -> Result<AdminRequest, Failure> + Send + Sync + 'static,
    ) -> Self {
        Self {
            act: Act::Ask(Box::new(make)),
            ..self
        }
    }

    /// Asks the fleet what the query says.
    pub(super) fn queries<Q: DeserializeOwned + JsonSchema + 'static>(
        self,
        make: fn(Q) -> AdminRequest,
    ) -> Self {
        Self {
            query: Some(|schemas| schemas.root_schema_for::<Q>()),
            ..self.asks(move |given| Ok(make(given.query()?)))
        }
    }

    /// Asks the fleet what the path and the body say.
    pub(super) fn takes<B: DeserializeOwned + JsonSchema + 'static>(
        self,
        make: fn(&Given, B) -> Result<AdminRequest, Failure>,
    ) -> Self {
        Self {
            body: Some(|schemas| schemas.root_schema_for::<B>()),
            ..self.asks(move |given| make(given, body::parse(&given.body)?))
        }
    }

    /// Returns the names of the parts of the path that a request fills in.
    pub(super) fn parameters(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|part| {
            let name = part.strip_prefix('{')?;
            name.strip_suffix('}')
        })
    }

    /// Returns everything that may go wrong.
    pub(super) fn all_failures(&self) -> Vec<StatusCode> {
        let mut all = vec![
            StatusCode::FORBIDDEN,
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::SERVICE_UNAVAILABLE,
        ];
        if self.needs != Needs::Machine {
            all.push(StatusCode::UNAUTHORIZED);
        }
        // Whatever is changed may be undone by somebody else before it can be answered.
        if self.method != Method::GET && self.needs != Needs::Viewer {
            all.push(StatusCode::CONFLICT);
        }
        if self.parameters().next().is_some() {
            all.extend([StatusCode::NOT_FOUND, StatusCode::UNPROCESSABLE_ENTITY]);
        }
        if self.query.is_some() {
            all.push(StatusCode::UNPROCESSABLE_ENTITY);
        }
        if self.body.is_some() {
            all.extend([
                StatusCode::BAD_REQUEST,
                StatusCode::REQUEST_TIMEOUT,
                StatusCode::PAYLOAD_TOO_LARGE,
            ]);
        }
        all.extend(&self.failures);
        all.sort_unstable();
        all.dedup();
        all
    }
}
