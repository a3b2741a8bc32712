//! Rules of the older iptables, which nftables does not list: those that drop the tunnels' port, and a
//! policy that drops whatever no rule lets in.

use super::super::facts::Facts;
use super::super::finding::Finding;

const WHY: &str = "peers cannot open tunnels to this host";

pub(super) fn iptables(facts: &Facts) -> Finding {
    const CHECK: &str = "iptables";
    let (Some(port), Ok(rules)) = (facts.port(), &facts.iptables) else {
        let why = facts.iptables.as_ref().err();
        let why = why.map_or("meshd's port is not known", String::as_str);
        return Finding::skipped(CHECK, why);
    };
    if rules.is_empty() {
        return Finding::ok(CHECK, "the older iptables have no rules here");
    }
    let rules: Vec<Rule<'_>> = rules.iter().map(|line| Rule::of(line)).collect();
    let advice = format!(
        "`iptables-legacy -I INPUT -p udp --dport {port} -j ACCEPT`, and in what keeps these rules"
    );
    let dropping = rules.iter().find(|rule| rule.names(port) && rule.drops());
    if let Some(rule) = dropping {
        let what = format!("iptables drops UDP {port}: {}", rule.0.join(" "));
        return Finding::failure(CHECK, what, WHY, advice);
    }
    let is_closed = rules.iter().any(|rule| rule.0 == ["-P", "INPUT", "DROP"]);
    if is_closed
        && !rules
            .iter()
            .any(|rule| rule.names(port) && rule.has("ACCEPT"))
    {
        let what = format!("iptables drops what no rule lets in, and none lets in UDP {port}");
        return Finding::warning(CHECK, what, WHY, advice);
    }
    Finding::ok(CHECK, format!("iptables lets in UDP {port}"))
}

/// A line of `iptables -S` (iptables(8)).
struct Rule<'line>(Vec<&'line str>);

impl<'line> Rule<'line> {
    fn of(line: &'line str) -> Self {
        Self(line.split_whitespace().collect())
    }

    fn has(&self, word: &str) -> bool {
        self.0.contains(&word)
    }

    fn drops(&self) -> bool {
        self.has("DROP") || self.has("REJECT")
    }

    /// Whether it is about UDP to this port, alone or among others.
    fn names(&self, port: u16) -> bool {
        let ports = self
            .0
            .windows(2)
            .find(|it| matches!(it[0], "--dport" | "--dports"));
        let holds = |range: &str| {
            let (first, last) = range.split_once(':').unwrap_or((range, range));
            let numbers = first.parse::<u16>().ok().zip(last.parse::<u16>().ok());
            numbers.is_some_and(|(first, last)| (first..=last).contains(&port))
        };
        self.has("udp") && ports.is_some_and(|it| it[1].split(',').any(holds))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::Outcome;
    use super::super::healthy;
    use super::*;

    fn found(rules: &[&str]) -> Outcome {
        let mut facts = healthy::facts();
        facts.iptables = Ok(rules.iter().map(|it| (*it).to_owned()).collect());
        iptables(&facts).outcome
    }

    #[test]
    fn a_rule_that_drops_the_port_fails_and_a_closed_policy_needs_one_that_lets_it_in() {
        for rule in [
            "-A INPUT -p udp -m udp --dport 51820 -j DROP",
            "-A host -p udp -m multiport --dports 53,51000:52000 -j REJECT --reject-with icmp-port-unreachable",
        ] {
            assert_eq!(
                found(&["-P INPUT ACCEPT", rule]),
                Outcome::Failure,
                "{rule}"
            );
        }
        let other = "-A INPUT -p tcp -m tcp --dport 51820 -j DROP";
        assert_eq!(found(&["-P INPUT ACCEPT", other]), Outcome::Ok);
        assert_eq!(found(&["-P INPUT DROP"]), Outcome::Warning);
        let open = "-A INPUT -p udp -m udp --dport 51820 -j ACCEPT";
        assert_eq!(found(&["-P INPUT DROP", open]), Outcome::Ok);
    }
}
