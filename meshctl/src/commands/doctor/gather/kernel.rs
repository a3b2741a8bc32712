//! Links, routes and firewall rules, as `ip` and `nft` list them for programs.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde_json::Value;

use super::super::facts::{Known, Link, Route};
use super::programs::said_by;

/// How the daemon marks its routes.
const OUR_PROTOCOL: &str = "190";

pub(super) async fn links() -> Known<Vec<Link>> {
    let listed = json(&said_by("ip", &["-j", "link", "show"]).await?)?;
    let links = listed.as_array().into_iter().flatten().filter_map(link);
    Ok(links.collect())
}

fn link(it: &Value) -> Option<Link> {
    let flags = it["flags"].as_array()?;
    let has = |wanted: &str| flags.iter().any(|flag| flag == wanted);
    Some(Link {
        name: it["ifname"].as_str()?.to_owned(),
        mtu: u32::try_from(it["mtu"].as_u64()?).ok()?,
        is_up: has("UP"),
        is_loopback: has("LOOPBACK"),
    })
}

pub(super) async fn routes() -> Known<Vec<Route>> {
    let (rules, v4, v6) = tokio::join!(
        said_by("ip", &["-j", "rule", "show"]),
        said_by("ip", &["-j", "-4", "route", "show", "table", "all"]),
        said_by("ip", &["-j", "-6", "route", "show", "table", "all"]),
    );
    let tables = tables(&json(&rules?)?);
    // Without IPv6 there are none of its routes.
    let all = [json(&v4?)?, v6.and_then(|it| json(&it)).unwrap_or_default()];
    let all = all
        .iter()
        .flat_map(|it| it.as_array().into_iter().flatten());
    Ok(all.filter_map(|it| route(it, &tables)).collect())
}

/// The tables that the host's rules lead to.
fn tables(rules: &Value) -> BTreeSet<String> {
    let rules = rules.as_array().into_iter().flatten();
    let named = rules.filter_map(|rule| Some(rule["table"].as_str()?.to_owned()));
    named.chain(["main".to_owned()]).collect()
}

fn route(it: &Value, tables: &BTreeSet<String>) -> Option<Route> {
    // `ip` leaves the main table's name out.
    let table = it["table"].as_str().unwrap_or("main");
    let kind = it["type"].as_str().unwrap_or("unicast");
    if !tables.contains(table) || matches!(kind, "broadcast" | "multicast" | "anycast") {
        return None;
    }
    let destination = match it["dst"].as_str()? {
        "default" => None,
        text => Some(net(text)?),
    };
    Some(Route {
        destination,
        device: it["dev"].as_str().map(str::to_owned),
        is_ours: it["protocol"] == OUR_PROTOCOL,
        is_unreachable: kind == "unreachable",
    })
}

/// `ip` writes a host without its length.
fn net(text: &str) -> Option<IpNet> {
    let address = || Some(IpNet::from(text.parse::<std::net::IpAddr>().ok()?));
    text.parse().ok().or_else(address)
}

pub(super) async fn ruleset() -> Known<Value> {
    json(&said_by("nft", &["-j", "list", "ruleset"]).await?)
}

/// The kernel names the tables of the older iptables, once one was used, to root alone.
pub(super) async fn iptables() -> Known<Vec<String>> {
    let names = match std::fs::read_to_string("/proc/net/ip_tables_names") {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("the tables of iptables: {error}")),
    };
    if !names.lines().any(|name| name == "filter") {
        return Ok(Vec::new());
    }
    let rules = match said_by("iptables-legacy", &["-S"]).await {
        Ok(rules) => rules,
        Err(_) => said_by("iptables", &["-S"]).await?,
    };
    Ok(rules.lines().map(str::to_owned).collect())
}

fn json(text: &str) -> Known<Value> {
    match text.trim() {
        "" => Ok(Value::Array(Vec::new())),
        text => {
            serde_json::from_str(text).map_err(|error| format!("a listing makes no sense: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn links_are_read_as_ip_writes_them() {
        let lo = json!({"ifname": "lo", "mtu": 65536, "flags": ["LOOPBACK", "UP", "LOWER_UP"]});
        let lo = link(&lo).unwrap();
        assert!(lo.is_up && lo.is_loopback && lo.mtu == 65536);
        let card = json!({"ifname": "eth0", "mtu": 1500, "flags": ["BROADCAST", "MULTICAST"]});
        let card = link(&card).unwrap();
        assert!(!card.is_up && !card.is_loopback && card.name == "eth0");
    }

    #[test]
    fn routes_are_read_as_ip_writes_them() {
        let listed = json!([
            {"dst": "default", "gateway": "192.0.2.1", "dev": "eth0"},
            {"type": "unreachable", "dst": "100.64.0.0/16", "protocol": "190", "metric": 4_294_967_295u32},
            {"type": "local", "dst": "192.0.2.2", "dev": "eth0", "table": "local"},
            {"type": "broadcast", "dst": "192.0.2.255", "dev": "eth0", "table": "local"},
            {"dst": "10.0.0.0/8", "dev": "vpn0", "table": "77"},
            {"dst": "10.1.0.0/16", "dev": "vpn0", "table": "78"},
        ]);
        let tables = tables(&json!([{"table": "local"}, {"table": "main"}, {"table": "77"}]));
        let listed = listed.as_array().unwrap();
        let routes: Vec<Route> = listed.iter().filter_map(|it| route(it, &tables)).collect();
        let shown = |it: &Route| it.destination.map(|it| it.to_string()).unwrap_or_default();
        let shown: Vec<String> = routes.iter().map(shown).collect();
        assert_eq!(shown, ["", "100.64.0.0/16", "192.0.2.2/32", "10.0.0.0/8"]);
        assert!(routes[1].is_ours && routes[1].is_unreachable && routes[1].device.is_none());
    }
}
