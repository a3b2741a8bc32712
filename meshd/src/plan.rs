//! `meshd --plan`: everything that the daemon will own or change on this host, by the very functions
//! that make it, and what stands in its way. Changes nothing, also beside a daemon that runs.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;

use agent::{Agent, InterfaceConfig, Names, Output};
use runtime::clock::{Clock, random_seed};

use crate::daemon::agent_config;
use crate::dns::reverse;
use crate::linux::interception::Interception;
use crate::linux::{firewall, interface, routes};
use crate::resolver::{Choice, HostFiles, ResolverMode, asked_in_the_end, choose};
use crate::services;
use crate::settings::Settings;
use crate::state_files;

/// Prints the plan.
///
/// # Errors
/// What a member would own cannot be read from its state directory.
pub async fn print(settings: &Settings) -> Result<(), String> {
    let member = member(settings)?;
    let plan = describe(settings, member.as_ref()).await;
    let written = std::io::stdout().write_all(plan.as_bytes());
    written.map_err(|error| format!("cannot print the plan: {error}"))
}

/// What the fleet gave this host.
struct Member {
    config: InterfaceConfig,
    suffix: String,
    caught: Interception,
}

/// Asks an agent what it would want, on what the state directory holds.
fn member(settings: &Settings) -> Result<Option<Member>, String> {
    let stored = state_files::peek(&settings.state_dir)
        .map_err(|error| format!("cannot read {}: {error}", settings.state_dir.display()))?;
    let seed = random_seed().map_err(|error| format!("the kernel gives no randomness: {error}"))?;
    let config = agent_config(settings, settings.listen_port);
    let mut agent = Agent::new(config, stored, seed, Clock::start().now())
        .map_err(|error| error.to_string())?;
    let (mut wanted, mut names, mut fleet) = (None, Names::default(), None);
    while let Some(output) = agent.poll_output() {
        match output {
            Output::Interface(config) => wanted = config,
            Output::Names(snapshot) => names = (*snapshot).clone(),
            Output::Services(told) => fleet = told,
            _ => {}
        }
    }
    Ok(wanted.map(|config| Member {
        config,
        suffix: names.suffix().to_owned(),
        caught: services::caught_from_the_start(&settings.services, fleet.as_ref()),
    }))
}

async fn describe(settings: &Settings, member: Option<&Member>) -> String {
    let mut plan = String::from("meshd owns on this host, and takes back when it stops:\n");
    let mut line = |what: &str, value: String| {
        let _ = writeln!(plan, "  {what:<10} {value}");
    };
    line("state", settings.state_dir.display().to_string());
    line("socket", settings.socket.display().to_string());
    line(
        "udp",
        format!("port {}, all addresses", settings.listen_port),
    );
    line("dns", format!("{}, udp and tcp", settings.dns_listen));
    for (what, place) in settings.services.places() {
        line(what, place);
    }
    let Some(member) = member else {
        let _ = write!(
            plan,
            "This host is no member of a fleet: nothing else is touched. After `meshctl join`,\n\
             the interface {}, its routes, the nftables table inet {} and the resolver follow.\n",
            settings.interface.name, settings.interface.table
        );
        return plan;
    };
    let overlay = member.config;
    let port = settings.dns_listen.port();
    for address in addresses(member) {
        line(
            "dns",
            format!("{}, udp and tcp", std::net::SocketAddr::new(address, port)),
        );
    }
    let (name, mtu) = (&settings.interface.name, settings.interface.mtu);
    line("interface", format!("{name}, a TUN device with MTU {mtu}"));
    for address in addresses(member) {
        let length = if address.is_ipv4() { 32 } else { 128 };
        line("address", format!("{address}/{length} dev {name}"));
    }
    let ipv6 = interface::ipv6_is_available();
    // The interface has its number when it is made: the routes are shown with its name.
    let ways = routes::ways(overlay.prefixes, overlay.addresses, 0, ipv6);
    for route in routes::guards(overlay.prefixes, ipv6).iter().chain(&ways) {
        line("route", route.describe(name));
    }
    line("resolver", resolver(settings, member).await);
    line(
        "nftables",
        format!("the table inet {}:", settings.interface.table),
    );
    let table = &settings.interface.table;
    let caught = Some(&member.caught);
    for rule in firewall::ruleset(table, name, overlay.prefixes, caught).lines() {
        let _ = writeln!(plan, "    {rule}");
    }
    plan.push_str("It changes nothing else.\n");
    for obstacle in obstacles(settings, member).await {
        let _ = writeln!(plan, "In the way: {obstacle}");
    }
    plan
}

fn addresses(member: &Member) -> impl Iterator<Item = IpAddr> {
    let own = member.config.addresses;
    let v6 = interface::ipv6_is_available().then_some(own.v6.into());
    [Some(own.v4.into()), v6].into_iter().flatten()
}

async fn resolver(settings: &Settings, member: &Member) -> String {
    if settings.resolver == ResolverMode::Off {
        return "left alone (resolver = \"off\")".into();
    }
    let (interface, server) = (&settings.interface.name, settings.dns_listen);
    match choose(&HostFiles::default(), interface, server).await {
        Choice::Use(way) => {
            let zones = reverse::zones(member.config.prefixes).len();
            format!(
                "{} ({} and {zones} reverse zones, by {server})",
                way.describe(),
                member.suffix
            )
        }
        Choice::AsksUs => format!("left alone: this host asks {} already", server.ip()),
        Choice::LeaveAlone(why) => format!("left alone: {why}"),
    }
}

/// What would keep the overlay from standing. A daemon that runs has it standing.
async fn obstacles(settings: &Settings, member: &Member) -> Vec<String> {
    let mut found = Vec::new();
    let prefixes = member.config.prefixes;
    match interface::refuse_clash(&settings.interface, prefixes).await {
        Ok(()) => {}
        Err(interface::InterfaceError::Taken(name)) => found.push(format!(
            "an interface {name} exists already; that is fine when meshd runs"
        )),
        Err(error) => found.push(error.to_string()),
    }
    if let Err(error) = interface::refuse_table(&settings.interface.table).await {
        found.push(error.to_string());
    }
    let servers = asked_in_the_end(&HostFiles::default(), settings.dns_listen).await;
    if let Some(server) = servers.into_iter().find(|it| prefixes.contains(*it)) {
        found.push(format!(
            "this host asks {server} for names, which lies in the overlay's prefix"
        ));
    }
    found
}
