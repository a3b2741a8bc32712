//! What readers of the audit log get.

use model::admin::{AuditEntry, AuditPage, AuditQuery};

use crate::fleet::Fleet;

impl Fleet {
    /// Returns the entries that a query asks for, in their order.
    pub(crate) fn audit_page(&self, query: &AuditQuery) -> AuditPage {
        let chain = &self.state.audit;
        let limit = query.limit.clamp(1, AuditPage::LIMIT_MAX);
        let after = query.after.saturating_add(1);
        let mut wanted = chain
            .entries()
            .range(after..)
            .map(|(_, entry)| entry)
            .filter(|entry| is_wanted(entry, query));
        let (entries, next) = if query.newest {
            let mut entries: Vec<_> = wanted.rev().take(limit).cloned().collect();
            entries.reverse();
            (entries, None)
        } else {
            let entries: Vec<_> = wanted.by_ref().take(limit).cloned().collect();
            let next = wanted.next().and(entries.last().map(|it| it.number));
            (entries, next)
        };
        let tip = chain.tip();
        AuditPage {
            entries,
            first: chain.entries().keys().next().copied().unwrap_or(0),
            last: tip.number,
            last_hash: tip.hash,
            next,
        }
    }
}

fn is_wanted(entry: &AuditEntry, query: &AuditQuery) -> bool {
    let is_theirs = query.who.as_ref().is_none_or(|who| entry.who == *who);
    is_theirs && entry.at_secs >= query.since
}
