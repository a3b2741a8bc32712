//! The story: two machines become a fleet, reach each other by name, and obey a policy without
//! their coordinator.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use lab::fleet::{Fleet, Host};
use lab::{Dialled, Lab, LabError, Launch, Process, wait_until};

use super::narrator::Narrator;

const POLICY: &str = "\
fleet: demo
allow:
  - { id: ping, from: any, to: any, icmp: true }
  - { id: web,  from: \"role=app\", to: \"role=app\", tcp: [8080] }
deny:
  - { id: no-telnet, from: any, to: any, tcp: [23] }
tests:
  - { allow: \"role=app -> role=app:8080\" }
  - { deny:  \"alpha -> beta:23\", rule: no-telnet }
";
/// What the policy becomes: the web server is a service, and requests are what is allowed.
const SERVICE_POLICY: &str = "\
fleet: demo
services:
  hello: { port: 8080, protocol: http, endpoints: [\"role=app\"] }
allow:
  - { id: ping, from: any, to: any, icmp: true }
  - { id: read, from: \"role=app\", to: hello, http: [\"GET /**\"] }
deny:
  - { id: no-admin, from: any, to: hello, http: [\"* /admin/**\"] }
tests:
  - { allow: \"alpha -> hello GET /\" }
  - { deny:  \"alpha -> hello DELETE /\" }
  - { deny:  \"alpha -> hello GET /admin/users\", rule: no-admin }
";
const SERVICE_PAGE: &str = "http://hello.mesh.internal:8080/";
const WEB_PORT: u16 = 8080;
const WEB_PAGE: &str = "http://beta.mesh.internal:8080/";
/// How long a policy may take until it is enforced before the story is given up.
const ENFORCED_WITHIN: Duration = Duration::from_secs(30);

/// Exit codes of curl(1): failed to connect.
const CURL_NO_CONNECTION: i32 = 7;
/// Exit codes of meshctl: checked and found wanting, such as a denied flow.
const MESHCTL_WANTING: i32 = 5;

/// What is on stage at the end.
pub(super) struct Stage {
    fleet: Fleet,
    alpha: Host,
    beta: Host,
    _web_server: Process,
}

impl Stage {
    /// Writes a script per machine that runs commands there, or a shell.
    pub(super) fn write_entrances(&self, lab: &Lab) -> Result<(), LabError> {
        let entrances = [
            ("on-coordinator", self.fleet.coordinator.shell()),
            ("on-alpha", self.alpha.shell()),
            ("on-beta", self.beta.shell()),
        ];
        for (name, shell) in entrances {
            shell.write_script(&lab.directory().join(name))?;
        }
        Ok(())
    }
}

/// Plays the story to its end.
pub(super) fn tell(lab: &Lab, narrator: &Narrator) -> Result<Stage, LabError> {
    narrator.say("A coordinator starts on a machine of its own and makes a fleet.");
    let fleet = Fleet::start(lab, "demo")?;
    narrator.show("coordinator", fleet.coordinator.meshctl(&["status"]))?;

    narrator.say(
        "Two other machines join with one token, and reach each other by an encrypted tunnel.",
    );
    let (alpha, beta) = join_two(&fleet, narrator)?;

    narrator.say("A new fleet allows ping and nothing else: beta's web server is out of reach.");
    let web_server = beta.namespace().serve_http(WEB_PORT, "hello from beta")?;
    narrator.show_failing("alpha", fetch(&alpha), CURL_NO_CONNECTION)?;
    let why = fleet.coordinator.meshctl(&["why", "alpha", "beta:8080"]);
    narrator.show_failing("coordinator", why, MESHCTL_WANTING)?;

    narrator.say("The operator writes a policy with tests of its own, and applies it.");
    narrator.show_file(POLICY);
    let (beta_address, _) = beta.overlay_addresses()?;
    let enforced_after = apply(&fleet, &alpha, beta_address, narrator)?;
    let connected_after = narrator.elapsed();
    narrator.show("alpha", fetch(&alpha))?;
    let telnet = ["-sS", "-m5", "telnet://beta.mesh.internal:23"];
    let telnet = alpha.namespace().launch("curl").args(telnet);
    narrator.show_failing("alpha", telnet, CURL_NO_CONNECTION)?;
    let why = fleet.coordinator.meshctl(&["why", "alpha", "beta:23"]);
    narrator.show_failing("coordinator", why, MESHCTL_WANTING)?;

    let mut stage = Stage {
        fleet,
        alpha,
        beta,
        _web_server: web_server,
    };
    offer_a_service(&stage, narrator)?;
    lose_the_coordinator(&mut stage, narrator)?;
    narrator.measured(&[
        (
            "from the start to the first allowed connection",
            format!("{:.1} s", connected_after.as_secs_f64()),
        ),
        (
            "from `meshctl policy apply` to enforced",
            format!("{} ms", enforced_after.as_millis()),
        ),
    ]);
    Ok(stage)
}

fn join_two(fleet: &Fleet, narrator: &Narrator) -> Result<(Host, Host), LabError> {
    let create = ["tokens", "create", "--uses", "2", "--label", "role=app"];
    let token = narrator.show("coordinator", fleet.coordinator.meshctl(&create))?;
    let token = token.stdout.trim();
    let join = |name: &str| {
        let host = fleet.machine(name)?;
        // By standard input, so that no other user of the machine sees the token.
        let launch = host.meshctl(&["join", "-", "--name", name]).input(token);
        narrator.show(name, launch)?;
        Ok(host)
    };
    let (alpha, beta) = (join("alpha")?, join("beta")?);
    alpha.wait_reaches("beta.mesh.internal")?;
    narrator.show("alpha", alpha.meshctl(&["ping", "beta", "-c", "2"]))?;
    Ok((alpha, beta))
}

/// Applies the policy while a client tries to connect all the time; returns how long it had to.
fn apply(
    fleet: &Fleet,
    client: &Host,
    server: Ipv4Addr,
    narrator: &Narrator,
) -> Result<Duration, LabError> {
    fleet.coordinator.write_policy(POLICY)?;
    let started = Instant::now();
    thread::scope(|scope| {
        let connecting = scope.spawn(|| connect(client, (server, WEB_PORT).into(), started));
        let apply = fleet.coordinator.meshctl(&["policy", "apply", "policy"]);
        narrator.show(
            "coordinator",
            apply.in_directory(fleet.coordinator.directory()),
        )?;
        let connected = connecting.join();
        connected.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn connect(client: &Host, to: SocketAddr, started: Instant) -> Result<Duration, LabError> {
    loop {
        if let Dialled::Connected(_) = client.namespace().dial(to)? {
            return Ok(started.elapsed());
        }
        if started.elapsed() > ENFORCED_WITHIN {
            return Err(LabError::new(format!(
                "the policy was not enforced within {ENFORCED_WITHIN:?}"
            )));
        }
    }
}

/// Beta's web server becomes a service, and its requests are decided by method and path.
fn offer_a_service(stage: &Stage, narrator: &Narrator) -> Result<(), LabError> {
    narrator.say(
        "The web server becomes a service: any endpoint answers for its name, and requests are decided.",
    );
    narrator.show_file(SERVICE_POLICY);
    stage.fleet.coordinator.write_policy(SERVICE_POLICY)?;
    let apply = stage
        .fleet
        .coordinator
        .meshctl(&["policy", "apply", "policy"]);
    let apply = apply.in_directory(stage.fleet.coordinator.directory());
    narrator.show("coordinator", apply)?;
    let ask = |arguments: &[&str]| {
        let curl = stage.alpha.namespace().launch("curl");
        curl.args(["-sS", "-m5"]).args(arguments)
    };
    wait_until("the service answers", ENFORCED_WITHIN, || {
        let ran = ask(&["--fail", SERVICE_PAGE]).run()?;
        Ok(ran.status.success().then_some(()))
    })?;
    narrator.show("alpha", ask(&[SERVICE_PAGE]))?;
    let refused = narrator.show("alpha", ask(&["-i", "-X", "DELETE", SERVICE_PAGE]))?;
    let mut lines = refused.stdout.lines();
    let call = lines
        .find_map(|line| line.strip_prefix("mesh-call: "))
        .ok_or_else(|| LabError::new("the refusal has no mesh-call"))?;
    narrator.show("alpha", stage.alpha.meshctl(&["explain", call]))?;
    narrator.show("alpha", stage.alpha.meshctl(&["services", "list"]))?;
    Ok(())
}

fn lose_the_coordinator(stage: &mut Stage, narrator: &Narrator) -> Result<(), LabError> {
    narrator.say(
        "The coordinator is killed, and so is beta's daemon. Beta comes back from its own disk.",
    );
    stage.fleet.coordinator.kill();
    stage.beta.start()?;
    stage.alpha.wait_reaches("beta.mesh.internal")?;
    narrator.show("beta", stage.beta.meshctl(&["status"]))?;
    let curl = stage.alpha.namespace().launch("curl");
    narrator.show("alpha", curl.args(["-sS", "-m5", SERVICE_PAGE]))?;

    narrator.say("The coordinator returns, and its hosts find it.");
    stage.fleet.coordinator.restart()?;
    stage.alpha.wait_state("online")?;
    stage.beta.wait_state("online")?;
    narrator.show(
        "coordinator",
        stage.fleet.coordinator.meshctl(&["hosts", "list"]),
    )?;
    Ok(())
}

fn fetch(host: &Host) -> Launch {
    let curl = host.namespace().launch("curl");
    curl.args(["-sS", "-m5", WEB_PAGE])
}
