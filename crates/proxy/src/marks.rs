//! The headers in the name of the mesh: what the source tells the destination of a call, and what
//! programs get to see of it.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use model::name::Name;

/// Which service is called.
pub(crate) const SERVICE: HeaderName = HeaderName::from_static("mesh-service");
/// Which port of the host is dialled, where no service is.
pub(crate) const PORT: HeaderName = HeaderName::from_static("mesh-port");
/// The workload that the source vouches for.
pub(crate) const WORKLOAD: HeaderName = HeaderName::from_static("mesh-workload");
/// The call's id, for `meshctl explain`.
pub(crate) const CALL: HeaderName = HeaderName::from_static("mesh-call");
/// Milliseconds that are left of the caller's patience.
pub(crate) const DEADLINE: HeaderName = HeaderName::from_static("mesh-deadline");
/// Which attempt of the call it is, from 1.
pub(crate) const ATTEMPT: HeaderName = HeaderName::from_static("mesh-attempt");
/// What the stream carries; absent: the request itself, or bytes for `CONNECT`.
pub(crate) const CARRIES: HeaderName = HeaderName::from_static("mesh-carries");
/// How long the destination had the call, as it tells the source.
pub(crate) const TIMING: HeaderName = HeaderName::from_static("mesh-timing");
/// Why the mesh answers in a program's place.
pub(crate) const REASON: HeaderName = HeaderName::from_static("mesh-reason");
/// The SPIFFE ID of the caller, for the program that is called.
pub(crate) const CALLER: HeaderName = HeaderName::from_static("mesh-caller");
/// Who called before the last, by address.
pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The `Host` that the caller asked for.
pub(crate) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// How the caller asked.
pub(crate) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Names a call for as long as anybody asks about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(u64);

impl CallId {
    /// Wraps a number.
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// Reads what `Display` wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u64::from_str_radix(text, 16).ok().map(Self))?
    }

    /// Returns it as a header.
    pub fn header(self) -> HeaderValue {
        let mut digits = [0; 16];
        for (position, digit) in digits.iter_mut().enumerate() {
            let nibble = (self.0 >> (60 - 4 * position)) & 15;
            *digit = b"0123456789abcdef"[nibble as usize];
        }
        HeaderValue::from_bytes(&digits).expect("digits may stand in a header")
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Makes ids that no two threads share, but for one chance in billions.
#[derive(Debug)]
pub(crate) struct CallIds(u64);

impl CallIds {
    /// Begins at a place that the seed chooses.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next.
    pub(crate) const fn next(&mut self) -> CallId {
        // splitmix64: each number once in its period, and the next cannot be seen in the last.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        CallId(mixed ^ (mixed >> 31))
    }
}

/// What is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aim {
    /// A service.
    Service(Name),
    /// A TCP port of a host.
    Port(u16),
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "{name}"),
            Self::Port(port) => write!(f, "port {port}"),
        }
    }
}

/// What a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carries {
    /// One request and its answer.
    Request,
    /// One request and its answer; the caller spoke HTTP/2 without asking first, so its server does.
    Http2Request,
    /// The bytes of a connection.
    Bytes,
    /// The bytes of a connection that speaks HTTP/1.1, so that it can be upgraded.
    Http1,
}

/// What the source says of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    /// What is called.
    pub aim: Aim,
    /// Who calls; `None`: the host.
    pub workload: Option<Name>,
    /// Which call it is.
    pub call: CallId,
    /// How long the caller still waits.
    pub deadline: Option<Duration>,
    /// From 1.
    pub attempt: u8,
    /// What follows.
    pub carries: Carries,
}

const HTTP1: HeaderValue = HeaderValue::from_static("http/1.1");
const HTTP2: HeaderValue = HeaderValue::from_static("h2");

impl Marks {
    /// Writes them to the head of a stream.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        match &self.aim {
            Aim::Service(name) => headers.insert(SERVICE, name_value(name)),
            Aim::Port(port) => headers.insert(PORT, HeaderValue::from(*port)),
        };
        if let Some(workload) = &self.workload {
            headers.insert(WORKLOAD, name_value(workload));
        }
        headers.insert(CALL, self.call.header());
        if let Some(deadline) = self.deadline {
            let millis = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
            headers.insert(DEADLINE, HeaderValue::from(millis));
        }
        if self.attempt > 1 {
            headers.insert(ATTEMPT, HeaderValue::from(u16::from(self.attempt)));
        }
        match self.carries {
            Carries::Request | Carries::Bytes => {}
            Carries::Http2Request => _ = headers.insert(CARRIES, HTTP2),
            Carries::Http1 => _ = headers.insert(CARRIES, HTTP1),
        }
    }

    /// Reads them; `is_connect` tells bytes from a request. `None`: they are not whole.
    pub(crate) fn read(headers: &HeaderMap, is_connect: bool) -> Option<Self> {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let aim = match (text(SERVICE), text(PORT)) {
            (Some(name), None) => Aim::Service(name.parse().ok()?),
            (None, Some(port)) => Aim::Port(port.parse().ok()?),
            _ => return None,
        };
        let workload = match headers.get(WORKLOAD) {
            // One that cannot be read must not become none.
            Some(value) => Some(value.to_str().ok()?.parse().ok()?),
            None => None,
        };
        Some(Self {
            aim,
            workload,
            call: CallId::parse(text(CALL)?)?,
            deadline: text(DEADLINE)
                .and_then(|millis| millis.parse().ok())
                .map(Duration::from_millis),
            attempt: text(ATTEMPT)
                .and_then(|attempt| attempt.parse().ok())
                .unwrap_or(1),
            carries: match (is_connect, headers.get(CARRIES)) {
                (true, Some(value)) if value == HTTP1 => Carries::Http1,
                (true, None) => Carries::Bytes,
                (false, Some(value)) if value == HTTP2 => Carries::Http2Request,
                (false, None) => Carries::Request,
                _ => return None,
            },
        })
    }
}

fn name_value(name: &Name) -> HeaderValue {
    HeaderValue::from_str(name.as_str()).expect("a name is a DNS label")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks() -> Marks {
        Marks {
            aim: Aim::Service("orders".parse().unwrap()),
            workload: Some("web".parse().unwrap()),
            call: CallIds::new(7).next(),
            deadline: Some(Duration::from_millis(1500)),
            attempt: 2,
            carries: Carries::Request,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = Marks {
            aim: Aim::Port(5432),
            workload: None,
            deadline: None,
            attempt: 1,
            carries: Carries::Bytes,
            ..marks()
        };
        let http1 = Marks {
            carries: Carries::Http1,
            ..bytes.clone()
        };
        let http2 = Marks {
            carries: Carries::Http2Request,
            ..marks()
        };
        for (marks, is_connect) in [
            (marks(), false),
            (http2, false),
            (bytes, true),
            (http1, true),
        ] {
            let mut headers = HeaderMap::new();
            marks.write(&mut headers);
            assert_eq!(Marks::read(&headers, is_connect), Some(marks));
        }
    }

    #[test]
    fn half_of_them_is_nothing() {
        let mut whole = HeaderMap::new();
        marks().write(&mut whole);
        for missing in [SERVICE, CALL] {
            let mut headers = whole.clone();
            headers.remove(missing);
            assert_eq!(Marks::read(&headers, false), None);
        }
        for (name, broken) in [
            (WORKLOAD, "Not A Name"),
            (CALL, "7"),
            (PORT, "1"),
            (CARRIES, "x"),
        ] {
            let mut headers = whole.clone();
            headers.insert(name, HeaderValue::from_static(broken));
            assert_eq!(Marks::read(&headers, false), None, "{broken}");
        }
    }

    #[test]
    fn ids_are_shown_and_read_alike() {
        let mut ids = CallIds::new(1);
        let (first, second) = (ids.next(), ids.next());
        assert_ne!(first, second);
        assert_eq!(first.header().to_str().unwrap(), first.to_string());
        assert_eq!(CallId::parse(&first.to_string()), Some(first));
        for bad in ["", "1", "zzzzzzzzzzzzzzzz", "+123456789abcdef"] {
            assert_eq!(CallId::parse(bad), None, "{bad}");
        }
    }
}
