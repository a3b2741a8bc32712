//! The story: two machines become a fleet, reach each other by name, and obey a policy without
//! their coordinator.

use lab::fleet::{Fleet, Host};
use lab::{Lab, LabError, Launch, Process};

use super::narrator::Narrator;

const POLICY: &str = "\
fleet: demo
allow:
  - { id: ping, from: any, to: any, icmp: true }
  - { id: web,  from: \"role=app\", to: \"role=app\", tcp: [8080] }
deny:
  - { id: no-telnet, from: any, to: any, tcp: [23] }
tests:
  - { allow: \"alpha -> beta:8080\" }
  - { deny:  \"alpha -> beta:23\", rule: no-telnet }
";
/// What is on stage at the end.
pub(super) struct Stage {
    pub(super) fleet: Fleet,
    pub(super) hosts: Vec<Host>,
    _web_server: Process,
}

impl Stage {
    /// What an operator types to talk to the coordinator from outside its namespace.
    pub(super) fn operator_command(&self) -> String {
        let launch = self.fleet.coordinator.meshctl(&["hosts", "list"]);
        launch.as_typed_outside()
    }
}

/// Plays the story to its end.
pub(super) fn tell(lab: &Lab, narrator: &mut Narrator) -> Result<Stage, LabError> {
    narrator.say("A coordinator starts on a machine of its own and makes a fleet.");
    let mut fleet = Fleet::start(lab, "demo")?;
    narrator.show("coordinator", fleet.coordinator.meshctl(&["status"]))?;

    narrator.say("Two machines join with one token.");
    let token = fleet.coordinator.create_token(&["role=app"])?;
    let alpha = fleet.machine("alpha")?;
    alpha.join(&token)?;
    let mut beta = fleet.machine("beta")?;
    beta.join(&token)?;
    narrator.show("coordinator", fleet.coordinator.meshctl(&["hosts", "list"]))?;

    narrator.say("They reach each other by name, through an encrypted tunnel.");
    alpha.wait_reaches("beta.mesh.internal")?;
    narrator.show("alpha", alpha.meshctl(&["ping", "beta", "-c", "3"]))?;

    narrator.say("The operator allows a web service, and forbids telnet by name.");
    fleet.coordinator.apply_policy_text(POLICY)?;
    let web_server = beta.namespace().serve_http(8080, "hello from beta")?;
    narrator.show("alpha", fetch(&alpha))?;
    let telnet = ["-m3", "telnet://beta.mesh.internal:23"];
    narrator.try_out("alpha", alpha.namespace().launch("curl").args(telnet))?;
    let why = ["why", "alpha", "beta:23"];
    narrator.try_out("coordinator", fleet.coordinator.meshctl(&why))?;

    narrator.say("The coordinator dies and beta's daemon is killed; beta comes back from disk.");
    fleet.coordinator.kill();
    beta.start()?;
    alpha.wait_reaches("beta.mesh.internal")?;
    narrator.show("alpha", fetch(&alpha))?;
    fleet.coordinator.restart()?;
    Ok(Stage {
        fleet,
        hosts: vec![alpha, beta],
        _web_server: web_server,
    })
}

fn fetch(host: &Host) -> Launch {
    let url = "http://beta.mesh.internal:8080/";
    host.namespace().launch("curl").args(["-sS", "-m5", url])
}
