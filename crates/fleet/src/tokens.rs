//! Join tokens: made, listed, revoked, and checked when a host shows one. The secret is shown once
//! and kept only as a hash.

use std::collections::BTreeMap;
use std::time::Duration;

use model::admin::{CreateToken, CreatedToken, TokenView};
use model::control::{EnrolRequest, RefusalCode};
use model::ids::TokenId;
use model::limits::Limits;
use model::name::Name;
use model::store::Key;
use model::time::{Now, UnixTime};
use trust::token::{JoinToken, secret_hash, secret_matches};

use crate::audit::Stamp;
use crate::commits::Commits;
use crate::config::FleetLimits;
use crate::fleet::Fleet;
use crate::hosts::check_label_count;
use crate::keys::Place;
use crate::output::{CommitId, Rejection, Reply};
use crate::request::Caller;
use crate::requests::overtaken;
use crate::state::State;
use crate::stored::StoredToken;
use crate::work::{Answer, Draft, Plan};

/// How many uses of a token that has had its time go in one transaction.
const USES_FORGOTTEN_AT_ONCE: usize = 100;

/// How many uses of a token without a limit are remembered, the last ones; of those before only their
/// number is known.
pub(crate) const USES_REMEMBERED: u32 = 1024;

/// What became of the search for a use of a token.
pub(crate) enum Slot {
    Free(u32),
    /// All are taken, some by this commit that may yet fail.
    Wait(CommitId),
    UsedUp,
}

/// Finds the slot for one more use of a token. Slots are claimed by keys of their own, so that a
/// token of five uses is used five times, whoever hurries.
pub(crate) fn find_slot(
    state: &State,
    commits: &Commits,
    id: TokenId,
    token: &StoredToken,
) -> Slot {
    let taken = state.uses.get(&id);
    let is_taken = |slot: u32| taken.is_some_and(|uses| uses.contains_key(&slot));
    // A token without a limit goes on after its last use instead of looking for gaps.
    let last = taken
        .and_then(|uses| uses.last_key_value())
        .map_or(0, |(&slot, _)| slot);
    let (start, end) = match token.uses {
        None => (last, u32::MAX),
        // Slots are taken in order: where as many are taken, the next is mostly free.
        Some(uses) => {
            let used = taken.map_or(0, BTreeMap::len);
            (
                u32::try_from(used).map_or(uses, |used| used.min(uses)),
                uses,
            )
        }
    };
    // Many uses are not looked through for one that is free where there is none.
    if start == end {
        return Slot::UsedUp;
    }
    let before = if token.uses.is_some() { 0..start } else { 0..0 };
    let mut under_way = None;
    for slot in (start..end).chain(before) {
        if is_taken(slot) {
            continue;
        }
        match commits.writer(&Place::Use(id, slot).key()) {
            None => return Slot::Free(slot),
            Some(commit) => under_way = under_way.or(Some(commit)),
        }
    }
    under_way.map_or(Slot::UsedUp, Slot::Wait)
}

impl Fleet {
    pub(crate) fn token_views(&self) -> Vec<TokenView> {
        self.state
            .tokens
            .keys()
            .filter_map(|id| self.token_view(id))
            .collect()
    }

    pub(crate) fn token_view(&self, id: &TokenId) -> Option<TokenView> {
        let token = self.state.tokens.get(id)?;
        Some(TokenView {
            id: *id,
            labels: token.labels.clone(),
            uses: token.uses,
            used: self.state.uses_of(id),
            created_secs: token.created.at_secs,
            expires_secs: token.expires_secs,
            revoked: token.revoked.is_some() || self.is_token_of_former_epoch(*id),
            names: token.names.clone(),
            comment: token.comment.clone(),
        })
    }

    pub(crate) fn plan_token(
        &mut self,
        caller: &Caller,
        create: &CreateToken,
        now: Now,
    ) -> Result<Plan, Rejection> {
        check_token(create)?;
        let forgotten = self.token_to_forget(now.unix)?;
        let (id, secret) = (TokenId::from_bytes(self.random()), self.random::<16>());
        let stored = StoredToken {
            secret_hash: secret_hash(&secret),
            labels: create.labels.clone(),
            uses: create.uses,
            expires_secs: (now.unix + Duration::from_secs(create.valid_for_secs)).as_secs(),
            names: create.names.clone(),
            comment: create.comment.clone(),
            created: Stamp::new(&caller.name, now.unix),
            revoked: None,
        };
        let token = JoinToken {
            id,
            secret,
            pin: self.authority.root_pin(),
            addresses: self.config.advertise.clone(),
        };
        let mut draft = Draft::new(&self.state);
        draft.put(Place::Token(id).key(), &stored);
        for key in forgotten {
            draft.delete(key);
        }
        let answer = Answer::TokenCreated {
            id,
            text: token.encode(),
        };
        Ok(Plan::Commit {
            transaction: draft.finish(),
            answer,
        })
    }

    /// Returns the keys of a token that has had its time, when there are too many tokens.
    fn token_to_forget(&self, now: UnixTime) -> Result<Vec<Key>, Rejection> {
        let max = FleetLimits::TOKENS_MAX;
        if self.state.tokens.len() < max {
            return Ok(Vec::new());
        }
        let is_over =
            |token: &StoredToken| token.revoked.is_some() || token.expires_secs <= now.as_secs();
        let candidates = self.state.tokens.iter().filter(|(_, token)| is_over(token));
        let Some((&id, _)) = candidates.min_by_key(|(_, token)| token.expires_secs) else {
            let text = format!("the fleet has {max} tokens that are good; revoke some first");
            return Err(Rejection::new(RefusalCode::Exhausted, text));
        };
        let slots: Vec<u32> = self
            .state
            .uses
            .get(&id)
            .map_or_else(Vec::new, |uses| uses.keys().copied().collect());
        let mut keys: Vec<Key> = slots
            .iter()
            .take(USES_FORGOTTEN_AT_ONCE)
            .map(|&slot| Place::Use(id, slot).key())
            .collect();
        if slots.len() <= USES_FORGOTTEN_AT_ONCE {
            keys.push(Place::Token(id).key());
        }
        Ok(keys)
    }

    pub(crate) fn token_created(&self, id: TokenId, text: String) -> Result<Reply, Rejection> {
        let view = self.token_view(&id).ok_or_else(overtaken)?;
        Ok(Reply::TokenCreated(CreatedToken { token: text, view }))
    }

    pub(crate) fn plan_token_revocation(
        &mut self,
        caller: &Caller,
        id: TokenId,
        now: Now,
    ) -> Result<Plan, Rejection> {
        let Some(token) = self.state.tokens.get(&id) else {
            let text = format!("there is no token {id}; `meshctl tokens list` shows all");
            return Err(Rejection::new(RefusalCode::NotFound, text));
        };
        if token.revoked.is_some() {
            let view = self.token_view(&id).expect("the token was there just now");
            return Ok(Plan::Answer(Reply::Token(view)));
        }
        let revoked = Some(Stamp::new(&caller.name, now.unix));
        let mut draft = Draft::new(&self.state);
        draft.put(
            Place::Token(id).key(),
            &StoredToken {
                revoked,
                ..token.clone()
            },
        );
        let answer = Answer::TokenRevoked(id);
        Ok(Plan::Commit {
            transaction: draft.finish(),
            answer,
        })
    }

    /// Returns the token that a request shows, when its secret is right and it is not revoked. An
    /// unknown token and a wrong secret look the same, also to a clock.
    pub(crate) fn shown_token(&self, request: &EnrolRequest) -> Result<&StoredToken, Rejection> {
        let token = self.state.tokens.get(&request.token);
        let expected = token.map_or_else(|| secret_hash(&[0; 16]), |token| token.secret_hash);
        let is_right = secret_matches(&request.token_secret, &expected);
        let Some(token) = token.filter(|_| is_right) else {
            return Err(Rejection::new(
                RefusalCode::Denied,
                "this join token is not known here; make one with `meshctl tokens create`",
            ));
        };
        if token.revoked.is_some() {
            return Err(Rejection::new(
                RefusalCode::Denied,
                "this join token was revoked; make a new one with `meshctl tokens create`",
            ));
        }
        Ok(token)
    }
}

impl StoredToken {
    pub(crate) fn check_not_expired(&self, now: UnixTime) -> Result<(), Rejection> {
        if now.as_secs() < self.expires_secs {
            return Ok(());
        }
        let ago = now.as_secs() - self.expires_secs;
        let text = format!(
            "this join token expired at {} ({} ago by the coordinator's clock); make a new one \
             with `meshctl tokens create`",
            crate::clock_text::utc(self.expires_secs),
            crate::clock_text::span(ago),
        );
        Err(Rejection::new(RefusalCode::Denied, text))
    }

    pub(crate) fn used_up(&self) -> Rejection {
        let uses = self.uses.unwrap_or(0);
        let text = format!(
            "this join token is used up: {uses} of {uses} hosts have joined with it; make a new \
             one with `meshctl tokens create`"
        );
        // As one that is revoked or expired: it permits nothing any more.
        Rejection::new(RefusalCode::Denied, text)
    }

    pub(crate) fn check_name(&self, name: &Name) -> Result<(), Rejection> {
        if self.names.is_empty() || self.names.iter().any(|it| pattern_matches(it, name)) {
            return Ok(());
        }
        let text = format!(
            "this join token does not permit the name {name}: it is for {}; choose one of those \
             with --name",
            self.names.join(", ")
        );
        Err(Rejection::new(RefusalCode::Denied, text))
    }
}

fn pattern_matches(pattern: &str, name: &Name) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.as_str().starts_with(prefix),
        None => name.as_str() == pattern,
    }
}

fn check_token(create: &CreateToken) -> Result<(), Rejection> {
    let invalid = |text: String| Err(Rejection::new(RefusalCode::Invalid, text));
    let valid_max = FleetLimits::TOKEN_VALID_MAX.as_secs();
    if create.valid_for_secs == 0 || create.valid_for_secs > valid_max {
        let secs = create.valid_for_secs;
        return invalid(format!(
            "a token is good for 1 to {valid_max} seconds, not for {secs}"
        ));
    }
    if create.uses == Some(0) {
        return invalid("a token that no host may use is of no use; give --uses 1 or more".into());
    }
    if let Some(uses) = create.uses.filter(|uses| *uses as usize > Limits::HOSTS) {
        let max = Limits::HOSTS;
        return invalid(format!(
            "each of {uses} uses would be remembered; give --uses {max} or fewer, or none for a \
             token without a limit"
        ));
    }
    check_label_count(&create.labels)?;
    if create.names.len() > FleetLimits::TOKEN_NAMES_MAX {
        let (count, max) = (create.names.len(), FleetLimits::TOKEN_NAMES_MAX);
        return invalid(format!("{count} name patterns; a token has at most {max}"));
    }
    if let Some(wrong) = create.names.iter().find(|it| !is_pattern(it)) {
        let shown: String = wrong.chars().take(80).collect();
        return invalid(format!(
            "{shown:?} is neither a name nor a prefix ending in *"
        ));
    }
    if create.comment.chars().count() > Limits::TEXT_CHARS {
        return invalid(format!(
            "the comment is longer than {} characters",
            Limits::TEXT_CHARS
        ));
    }
    Ok(())
}

fn is_pattern(pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        // Followed by something it must be a name; `web-` alone is none.
        Some("") => true,
        Some(prefix) => format!("{prefix}0").parse::<Name>().is_ok(),
        None => pattern.parse::<Name>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_names_or_prefixes() {
        for good in ["*", "web-*", "web*", "web-1"] {
            assert!(is_pattern(good), "{good}");
        }
        for bad in ["", "web-", "*web", "we*b", "Web*", "any", "web.*"] {
            assert!(!is_pattern(bad), "{bad}");
        }
    }

    #[test]
    fn a_prefix_matches_what_begins_with_it() {
        let name: Name = "web-1".parse().unwrap();
        for (pattern, matches) in [
            ("*", true),
            ("web-*", true),
            ("web-1", true),
            ("web-10", false),
            ("db-*", false),
        ] {
            assert_eq!(pattern_matches(pattern, &name), matches, "{pattern}");
        }
    }
}
