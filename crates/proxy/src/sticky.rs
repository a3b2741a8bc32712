//! What keeps a caller at one endpoint.

use std::hash::Hasher;

use http::HeaderMap;
use http::header::COOKIE;
use model::rule::Sticky;

use crate::asking::Asked;
use crate::snapshot::Snapshot;

/// Returns what keeps the caller at one endpoint, as a number; `None`: nothing does.
pub(crate) fn sticky_key(
    sticky: &Sticky,
    headers: &HeaderMap,
    asked: &Asked,
    snapshot: &Snapshot,
) -> Option<u64> {
    let mut hasher = Fnv::default();
    match sticky {
        Sticky::Header(name) => hasher.write(headers.get(name.as_str())?.as_bytes()),
        Sticky::Cookie(name) => hasher.write(cookie(headers, name)?),
        Sticky::Identity => {
            hasher.write(asked.origin.host().as_bytes());
            if let Some(workload) = asked.origin.workload(&snapshot.gate) {
                hasher.write(workload.as_str().as_bytes());
            }
        }
    }
    Some(hasher.finish())
}

fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let cookies = headers.get_all(COOKIE).iter();
    let mut pairs = cookies.flat_map(|cookies| cookies.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        pair.trim_ascii()
            .strip_prefix(name.as_bytes())?
            .strip_prefix(b"=")
    })
}

/// FNV-1a: the same on every host and in every version, so that all send a caller to the same place.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(
            COOKIE,
            HeaderValue::from_static("user2=x; user=7;theme=dark"),
        );
        headers.append(COOKIE, HeaderValue::from_static("cart=9"));
        assert_eq!(cookie(&headers, "user"), Some(&b"7"[..]));
        assert_eq!(cookie(&headers, "cart"), Some(&b"9"[..]));
        assert_eq!(cookie(&headers, "use"), None);
    }

    /// FNV's own test vector: other hosts and versions have to agree.
    #[test]
    fn the_number_is_the_same_everywhere() {
        let mut hasher = Fnv::default();
        hasher.write(b"foobar");
        assert_eq!(hasher.finish(), 0x8594_4171_f739_67e8);
    }
}
