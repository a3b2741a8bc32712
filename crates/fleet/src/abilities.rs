//! What the daemons of the fleet can enforce, as each says in its hello. A policy that a connected
//! one is too old to enforce is refused with its name: left out or widened, a rule would be a hole.

use std::collections::BTreeSet;

use model::admin::DiagnosticView;
use model::control::RefusalCode;
use model::ids::HostId;
use model::rule::Bundle;

use crate::fleet::Fleet;
use crate::output::Rejection;

/// Hosts that a refusal names.
const NAMED_MAX: usize = 10;

/// A daemon that cannot do what a policy needs.
struct Unable {
    /// Its name, its version, what it lacks.
    text: String,
    is_online: bool,
}

impl Fleet {
    /// Refuses a policy that a connected daemon cannot enforce; returns warnings about those that
    /// were connected before.
    pub(crate) fn check_enforceable(
        &self,
        bundle: &Bundle,
    ) -> Result<Vec<DiagnosticView>, Rejection> {
        let unable = self.unable(bundle);
        let (online, offline): (Vec<_>, Vec<_>) = unable.into_iter().partition(|it| it.is_online);
        if !online.is_empty() {
            let text = format!(
                "{} too old to enforce this policy; upgrade meshd there, or take out what it lacks",
                named(&online)
            );
            return Err(Rejection::new(RefusalCode::Conflict, text));
        }
        let warning = |offline: &[Unable]| DiagnosticView {
            severity: "warning".to_owned(),
            file: String::new(),
            line: 0,
            column: 0,
            message: format!(
                "{} too old to enforce this policy, when last seen",
                named(offline)
            ),
            help: Some("upgrade meshd there; until then the policy of before holds".to_owned()),
        };
        Ok((!offline.is_empty())
            .then(|| warning(&offline))
            .into_iter()
            .collect())
    }

    /// Returns the connected daemons that lack a feature which their part of a bundle needs.
    pub(crate) fn online_without(&self, feature: &str, bundle: &Bundle) -> Vec<String> {
        let lacks = |host: &HostId| {
            let presence = self.presences.of(*host)?;
            let features = presence.features.as_ref()?;
            let record = &self.state.hosts[host].record;
            let needs = || policy::features(bundle, Some(record)).contains(feature);
            let is_unable =
                !features.contains(feature) && self.sessions.is_online(*host) && needs();
            let version = presence.software_version.as_deref().unwrap_or("unknown");
            is_unable.then(|| format!("{} (meshd {version})", record.name))
        };
        self.state
            .hosts
            .keys()
            .filter_map(lacks)
            .take(NAMED_MAX)
            .collect()
    }

    fn unable(&self, bundle: &Bundle) -> Vec<Unable> {
        let needed = policy::features(bundle, None);
        let unable = self.state.hosts.keys().filter_map(|host| {
            let lacks = self.lacks(*host, bundle, &needed)?;
            let presence = self.presences.of(*host)?;
            let version = presence.software_version.as_deref().unwrap_or("unknown");
            let name = &self.state.hosts[host].record.name;
            Some(Unable {
                text: format!("{name} (meshd {version} lacks {lacks})"),
                is_online: self.sessions.is_online(*host),
            })
        });
        unable.collect()
    }

    /// Returns what a daemon that has said hello lacks for its part of a bundle.
    fn lacks(
        &self,
        host: HostId,
        bundle: &Bundle,
        needed: &BTreeSet<&'static str>,
    ) -> Option<String> {
        let features = self.presences.of(host)?.features.as_ref()?;
        if needed.iter().all(|feature| features.contains(*feature)) {
            return None;
        }
        // Perhaps it lacks only what is not for it.
        let record = &self.state.hosts.get(&host)?.record;
        let lacking: Vec<&str> = policy::features(bundle, Some(record))
            .into_iter()
            .filter(|feature| !features.contains(*feature))
            .collect();
        (!lacking.is_empty()).then(|| lacking.join(", "))
    }

    /// Takes over what a daemon says that it can do, and tells of one that is too old already.
    pub(crate) fn note_features(&mut self, host: HostId, features: Vec<String>) {
        self.presences.entry(host).features = Some(features.into_iter().collect());
        let bundle = &self.state.policy.bundle;
        let Some(lacks) = self.lacks(host, bundle, &policy::features(bundle, None)) else {
            return;
        };
        let name = &self.state.hosts[&host].record.name;
        let version = self.state.policy.version;
        self.notice(format!(
            "{name} is too old to enforce policy version {version}: it lacks {lacks}; upgrade \
             meshd there, until then the policy that it has holds"
        ));
    }
}

fn named(unable: &[Unable]) -> String {
    let shown: Vec<&str> = unable
        .iter()
        .take(NAMED_MAX)
        .map(|it| it.text.as_str())
        .collect();
    let more = match unable.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let are = if unable.len() == 1 { "is" } else { "are" };
    format!("{}{more} {are}", shown.join(", "))
}
