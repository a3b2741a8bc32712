//! Other programs' firewalls: rules that drop the tunnels' port or the overlay's interface, and chains
//! that drop whatever no rule lets through. What iptables sets is seen there too, but the older ones.

use serde_json::Value;

use super::super::facts::Facts;
use super::super::finding::Finding;

const UDP_WHY: &str = "peers cannot open tunnels to this host";
const OVERLAY_WHY: &str = "connections that the policy allows do not come through";

pub(super) fn firewall(facts: &Facts) -> Finding {
    const CHECK: &str = "firewall";
    let (settings, ruleset) = match (&facts.settings, &facts.ruleset) {
        (Ok(settings), Ok(ruleset)) => (settings, ruleset),
        (_, Err(why)) => return Finding::skipped(CHECK, why.clone()),
        (Err(_), _) => return Finding::skipped(CHECK, "meshd's port is not known"),
    };
    let rules = Ruleset::of(ruleset, &settings.nft_table);
    let (port, interface) = (settings.listen_port, settings.interface.as_str());
    if let Some(place) = rules.dropping(|rule| rule.names_udp_port(port)) {
        return Finding::failure(
            CHECK,
            format!("a rule in {place} drops UDP {port}"),
            UDP_WHY,
            format!(
                "accept it: `nft insert rule {place} udp dport {port} accept`, and in what keeps that table"
            ),
        );
    }
    if let Some(place) = rules.dropping(|rule| rule.names_interface(interface)) {
        return Finding::failure(
            CHECK,
            format!("a rule in {place} drops packets of {interface}"),
            OVERLAY_WHY,
            format!(
                "accept them: `nft insert rule {place} iifname {interface} accept`: the mesh's policy decides about them"
            ),
        );
    }
    let Some(closed) = rules.closed_input() else {
        return Finding::ok(CHECK, "no nftables rule drops what is meshd's");
    };
    let place = closed.place();
    if !rules.accepts(&closed, |rule| rule.names_udp_port(port)) {
        return Finding::warning(
            CHECK,
            format!("{place} drops what no rule lets in, and none lets in UDP {port}"),
            UDP_WHY,
            format!(
                "accept it: `nft insert rule {place} udp dport {port} accept`, and in what keeps that table"
            ),
        );
    }
    if !rules.accepts(&closed, |rule| rule.names_interface(interface)) {
        return Finding::warning(
            CHECK,
            format!("{place} drops what no rule lets in, and none lets in packets of {interface}"),
            OVERLAY_WHY,
            format!(
                "accept them: `nft insert rule {place} iifname {interface} accept`: the mesh's policy decides about them"
            ),
        );
    }
    Finding::ok(CHECK, format!("{place} lets in what is meshd's"))
}

pub(super) fn keepers(facts: &Facts) -> Finding {
    const CHECK: &str = "firewall_keepers";
    let Some(port) = facts.port() else {
        return Finding::skipped(CHECK, "meshd's port is not known");
    };
    let closed = facts
        .firewalls
        .iter()
        .find(|(_, opens)| *opens == Ok(false));
    match closed {
        Some((name, _)) => Finding::warning(
            CHECK,
            format!("{name} is in force and does not open UDP {port}"),
            UDP_WHY,
            match *name {
                "firewalld" => format!(
                    "`firewall-cmd --permanent --add-port={port}/udp && firewall-cmd --reload`, and the overlay's interface into the zone trusted"
                ),
                _ => format!("`{name} allow {port}/udp`, and `{name} allow in on mesh0`"),
            },
        ),
        None => match facts.firewalls.first() {
            Some((name, Err(why))) => Finding::skipped(CHECK, format!("{name}: {why}")),
            Some((name, Ok(_))) => Finding::ok(CHECK, format!("{name} opens UDP {port}")),
            None => Finding::ok(CHECK, "neither firewalld nor ufw is in force"),
        },
    }
}

/// The chains and rules that are not meshd's.
struct Ruleset<'a> {
    chains: Vec<&'a Value>,
    rules: Vec<Rule<'a>>,
}

#[derive(Clone, Copy)]
struct Rule<'a>(&'a Value);

struct Chain<'a>(&'a Value);

impl<'a> Ruleset<'a> {
    fn of(listing: &'a Value, own_table: &str) -> Self {
        let all = listing["nftables"].as_array().into_iter().flatten();
        let is_ours = |it: &Value, key: &str| it["family"] == "inet" && it[key] == own_table;
        let chains = all.clone().map(|it| &it["chain"]);
        let rules = all.map(|it| &it["rule"]);
        let of_others = |it: &&Value| it.is_object() && !is_ours(it, "table");
        Self {
            chains: chains.filter(of_others).collect(),
            rules: rules.filter(of_others).map(Rule).collect(),
        }
    }

    /// Returns where a rule is that drops what it names.
    fn dropping(&self, names: impl Fn(&Rule<'_>) -> bool) -> Option<String> {
        let mut dropping = self.rules.iter().filter(|rule| rule.drops() && names(rule));
        dropping.next().map(Rule::place)
    }

    /// Returns the first chain for what comes to this host that ends with a drop.
    fn closed_input(&self) -> Option<Chain<'a>> {
        let mut inputs = self.chains.iter().filter(|it| it["hook"] == "input");
        let closed = inputs.find(|chain| {
            chain["policy"] == "drop"
                || self
                    .rules
                    .iter()
                    .any(|rule| rule.is_in(chain) && rule.drops() && !rule.has_condition())
        });
        closed.map(|chain| Chain(chain))
    }

    /// Whether a rule of the chain's table accepts; which chains lead to which is not followed.
    fn accepts(&self, chain: &Chain<'_>, names: impl Fn(&Rule<'_>) -> bool) -> bool {
        self.rules.iter().any(|rule| {
            rule.is_in_table_of(chain.0)
                && rule.has("accept")
                && (names(rule) || !rule.has_condition())
        })
    }
}

impl Chain<'_> {
    fn place(&self) -> String {
        place(self.0, &self.0["name"])
    }
}

fn place(of: &Value, chain: &Value) -> String {
    let word = |it: &Value| it.as_str().unwrap_or("?").to_owned();
    format!(
        "{} {} {}",
        word(&of["family"]),
        word(&of["table"]),
        word(chain)
    )
}

impl<'a> Rule<'a> {
    fn place(&self) -> String {
        place(self.0, &self.0["chain"])
    }

    fn is_in(&self, chain: &Value) -> bool {
        self.is_in_table_of(chain) && self.0["chain"] == chain["name"]
    }

    fn is_in_table_of(&self, chain: &Value) -> bool {
        self.0["family"] == chain["family"] && self.0["table"] == chain["table"]
    }

    fn parts(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.0["expr"].as_array().into_iter().flatten()
    }

    fn has(&self, verdict: &str) -> bool {
        self.parts().any(|part| part.get(verdict).is_some())
    }

    fn drops(&self) -> bool {
        self.has("drop") || self.has("reject")
    }

    /// Whether it speaks of some packets only.
    fn has_condition(&self) -> bool {
        let is_condition = |part: &Value| part.get("match").is_some() || part.get("xt").is_some();
        self.parts().any(is_condition)
    }

    fn matches(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.parts().filter_map(|part| part.get("match"))
    }

    fn names_udp_port(&self, port: u16) -> bool {
        self.matches().any(|it| {
            let left = &it["left"]["payload"];
            let is_port =
                left["field"] == "dport" && (left["protocol"] == "udp" || left["protocol"] == "th");
            is_port && it["op"] != "!=" && holds(&it["right"], port)
        })
    }

    fn names_interface(&self, name: &str) -> bool {
        self.matches().any(|it| {
            let key = it["left"]["meta"]["key"].as_str().unwrap_or_default();
            let is_interface = matches!(key, "iifname" | "iif" | "oifname" | "oif");
            is_interface && it["op"] != "!=" && holds_name(&it["right"], name)
        })
    }
}

/// Whether a value, a set or a range of nft holds a port.
fn holds(right: &Value, port: u16) -> bool {
    let number = |it: &Value| it.as_u64();
    let port_number = u64::from(port);
    if let Some(members) = right["set"].as_array() {
        return members.iter().any(|it| holds(it, port));
    }
    match right["range"].as_array().map(Vec::as_slice) {
        Some([first, last]) => {
            let (first, last) = (number(first), number(last));
            first.is_some_and(|it| it <= port_number) && last.is_some_and(|it| port_number <= it)
        }
        _ => number(right) == Some(port_number),
    }
}

fn holds_name(right: &Value, name: &str) -> bool {
    if let Some(members) = right["set"].as_array() {
        return members.iter().any(|it| holds_name(it, name));
    }
    let right = right.as_str().unwrap_or_default();
    match right.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => right == name,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::finding::Outcome;
    use super::super::healthy;
    use super::*;
    use serde_json::json;

    fn chain(name: &str, policy: &str) -> Value {
        json!({"chain": {"family": "inet", "table": "host", "name": name, "hook": "input", "policy": policy}})
    }

    fn rule(parts: Value) -> Value {
        json!({"rule": {"family": "inet", "table": "host", "chain": "in", "expr": parts}})
    }

    fn port_is(right: Value) -> Value {
        json!({"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": right}})
    }

    fn interface_is(name: &str) -> Value {
        json!({"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": name}})
    }

    fn found(listing: Vec<Value>) -> Finding {
        let mut facts = healthy::facts();
        facts.ruleset = Ok(json!({ "nftables": listing }));
        firewall(&facts)
    }

    #[test]
    fn a_rule_that_drops_the_port_fails_however_it_says_it() {
        for right in [
            json!(51820),
            json!({"set": [22, 51820]}),
            json!({"range": [50000, 60000]}),
        ] {
            let dropped = rule(json!([port_is(right), {"counter": {}}, {"drop": null}]));
            let finding = found(vec![chain("in", "accept"), dropped]);
            assert_eq!(finding.outcome, Outcome::Failure, "{finding:?}");
            assert!(finding.what.contains("inet host in drops UDP 51820"));
        }
        let other = rule(json!([port_is(json!(51821)), {"drop": null}]));
        assert_eq!(
            found(vec![chain("in", "accept"), other]).outcome,
            Outcome::Ok
        );
    }

    #[test]
    fn a_rule_that_drops_the_interface_fails() {
        let dropped = rule(json!([interface_is("mesh*"), {"reject": {}}]));
        let finding = found(vec![chain("in", "accept"), dropped]);
        assert_eq!(finding.outcome, Outcome::Failure, "{finding:?}");
    }

    #[test]
    fn a_chain_that_drops_the_rest_has_to_let_both_in() {
        let port = rule(json!([port_is(json!(51820)), {"accept": null}]));
        let inside = rule(json!([interface_is("mesh0"), {"accept": null}]));
        let last = rule(json!([{"reject": {}}]));
        for closed in [vec![chain("in", "drop")], vec![chain("in", "accept"), last]] {
            let with = |more: &[&Value]| {
                let all = closed.iter().chain(more.iter().copied());
                found(all.cloned().collect())
            };
            let finding = with(&[]);
            assert_eq!(finding.outcome, Outcome::Warning);
            assert!(finding.what.contains("UDP 51820"), "{finding:?}");
            let finding = with(&[&port]);
            assert!(finding.what.contains("packets of mesh0"), "{finding:?}");
            assert_eq!(with(&[&port, &inside]).outcome, Outcome::Ok);
        }
    }

    #[test]
    fn our_own_table_is_no_other_s() {
        let own = json!({"rule": {"family": "inet", "table": "mesh", "chain": "x", "expr": [interface_is("mesh0"), {"drop": null}]}});
        assert_eq!(found(vec![own]).outcome, Outcome::Ok);
    }

    #[test]
    fn a_firewall_that_does_not_know_the_port_is_told() {
        let mut facts = healthy::facts();
        facts.firewalls = vec![("firewalld", Ok(false))];
        let finding = keepers(&facts);
        assert_eq!(finding.outcome, Outcome::Warning);
        assert!(finding.advice.unwrap().contains("--add-port=51820/udp"));
        facts.firewalls = vec![("ufw", Err("only root may ask".into()))];
        assert_eq!(keepers(&facts).outcome, Outcome::Skipped);
    }
}
