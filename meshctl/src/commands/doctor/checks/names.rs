//! Names: whether programs of this host come to ask mesh DNS, and what they get.

use model::local::ResolverState;

use super::super::facts::Facts;
use super::super::finding::Finding;

const WHY: &str = "programs of this host do not find the mesh's names";

pub(super) fn resolver(facts: &Facts) -> Finding {
    const CHECK: &str = "resolver";
    let Ok(dns) = &facts.dns else {
        let text = facts.resolv_conf.as_deref().unwrap_or_default();
        let is_gone = facts.daemon.is_err() && !facts.is_hung();
        if is_gone && text.contains("# begin of meshd") {
            return Finding::failure(
                CHECK,
                "/etc/resolv.conf names mesh DNS, and meshd does not run",
                "programs of this host wait for an answer with each name",
                "start meshd; or take the block between \"begin of meshd\" and \"end of meshd\" out",
            );
        }
        return Finding::skipped(CHECK, "meshd does not tell");
    };
    let detail = &dns.resolver.detail;
    match dns.resolver.state {
        ResolverState::Set | ResolverState::AsksUs => {
            Finding::ok(CHECK, format!("programs ask mesh DNS: {detail}"))
        }
        ResolverState::Off => Finding::ok(CHECK, "left alone, as the settings say"),
        ResolverState::Waiting => Finding::skipped(CHECK, "the overlay is not up"),
        ResolverState::LeftAlone => Finding::warning(
            CHECK,
            detail.clone(),
            WHY,
            "docs/dns.md tells what each kind of resolver needs; `resolver = \"off\"` where that is wanted",
        ),
        ResolverState::Failed => Finding::failure(
            CHECK,
            detail.clone(),
            WHY,
            "it is tried again every half minute; `meshctl dns show` says how it goes",
        ),
        ResolverState::Changed => Finding::failure(
            CHECK,
            detail.clone(),
            WHY,
            "find the other program (a DHCP client, a network manager), then `systemctl reload meshd`",
        ),
    }
}

pub(super) fn resolution(facts: &Facts) -> Finding {
    const CHECK: &str = "resolution";
    let state = facts.dns.as_ref().map(|it| it.resolver.state);
    if !matches!(state, Ok(ResolverState::Set | ResolverState::AsksUs)) {
        return Finding::skipped(CHECK, "programs of this host do not ask mesh DNS");
    }
    let detail = facts.daemon.as_ref().ok().and_then(|it| it.detail.as_ref());
    let own = detail.map_or(&[][..], |it| &it.addresses);
    match &facts.own_name {
        Ok(found) if found.iter().any(|it| own.contains(it)) => {
            Finding::ok(CHECK, "this host's own name leads to itself")
        }
        Ok(found) => Finding::failure(
            CHECK,
            format!("this host's own name leads to {found:?}"),
            "another resolver answers for the mesh's names",
            "`meshctl dns query NAME` compares what mesh DNS says with what programs get",
        ),
        Err(why) => Finding::failure(
            CHECK,
            format!("this host's own name does not resolve: {why}"),
            WHY,
            "`meshctl dns query NAME` compares what mesh DNS says with what programs get",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::Outcome;
    use super::super::healthy;
    use super::*;

    #[test]
    fn who_takes_the_resolver_away_is_told() {
        for (state, outcome) in [
            (ResolverState::LeftAlone, Outcome::Warning),
            (ResolverState::Failed, Outcome::Failure),
            (ResolverState::Changed, Outcome::Failure),
        ] {
            let mut facts = healthy::facts();
            facts.dns.as_mut().unwrap().resolver.state = state;
            assert_eq!(resolver(&facts).outcome, outcome);
        }
    }

    #[test]
    fn a_block_of_a_dead_daemon_is_found() {
        let mut facts = healthy::unknown();
        facts.resolv_conf = Ok("# begin of meshd mesh0: removed\nnameserver 127.0.0.150\n".into());
        let finding = resolver(&facts);
        assert_eq!(finding.outcome, Outcome::Failure);
        assert!(finding.what.contains("meshd does not run"));
    }

    #[test]
    fn another_answer_than_mesh_dns_gives_fails() {
        let mut facts = healthy::facts();
        facts.own_name = Ok(vec!["192.0.2.1".parse().unwrap()]);
        assert_eq!(resolution(&facts).outcome, Outcome::Failure);
        facts.own_name = Err("no such name".into());
        assert_eq!(resolution(&facts).outcome, Outcome::Failure);
    }
}
