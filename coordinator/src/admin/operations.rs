//! Every operation of the admin API, in the order in which the document shows them.

use axum::http::{Method, StatusCode};
use fleet::AdminRequest;
use model::admin::{
    AdminView, AppliedPolicy, ApplyPolicy, AuditPage, AuditQuery, AuthorityView, Backup,
    CoordinatorStatus, CreateAdmin, CreateToken, CreatedAdmin, CreatedToken, FinishRecovery,
    HostView, PlanRequest, PlannedPolicy, PolicyContent, PolicyVersionView, RecoveryStatus,
    RemovedHost, RemovedHostView, RenameHost, RetireAuthority, RollbackPolicy, Rollout, SetLabels,
    StartRecovery, TokenView, WhyReport, WhyRequest,
};
use model::ids::PolicyVersion;

use super::operation::{Needs, Operation};

const NOT_FOUND: StatusCode = StatusCode::NOT_FOUND;
const UNPROCESSABLE: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;

/// Where the document itself is.
pub(super) const DOCUMENT: &str = "/v1/openapi.json";
/// What every local user may ask.
pub(super) const STATUS: &str = "/v1/status";
/// What only the coordinator's own machine may ask.
pub(crate) const BACKUP: &str = "/v1/backup";

/// Returns all operations.
pub(super) fn all() -> Vec<Operation> {
    let mut all = coordinator();
    all.extend(hosts());
    all.extend(removed_hosts());
    all.extend(tokens());
    all.extend(policy());
    all.extend(admins());
    all.extend(recovery());
    all.extend(authority());
    all
}

fn get(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation::new(Method::GET, path, id, summary)
}

fn post(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation::new(Method::POST, path, id, summary)
}

fn put(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation::new(Method::PUT, path, id, summary)
}

fn delete(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation::new(Method::DELETE, path, id, summary)
}

fn coordinator() -> Vec<Operation> {
    vec![
        get(STATUS, "showStatus", "Show how the coordinator and its fleet are")
            .needs(Needs::Anybody)
            .answers::<CoordinatorStatus>(),
        get(DOCUMENT, "showDocument", "Show this document")
            .answers::<serde_json::Value>(),
        post("/v1/why", "why", "Tell whether a flow is allowed, and which rule says so")
            .says("Decides by the policy in force, and asks both hosts what they enforce. Answers when both have, or after a few seconds.")
            .answers::<WhyReport>()
            .fails(&[NOT_FOUND, UNPROCESSABLE])
            .takes(|_, why: WhyRequest| Ok(AdminRequest::Why(why))),
        get("/v1/audit", "listAudit", "List who changed what, or was not let")
            .answers::<AuditPage>()
            .queries(|query: AuditQuery| AdminRequest::ListAudit(query)),
        get(BACKUP, "backUp", "Make a backup of the coordinator")
            .says("Everything in its store at one revision, and the keys of the fleet's authority: secret.")
            .needs(Needs::Machine)
            .answers::<Backup>(),
    ]
}

fn hosts() -> Vec<Operation> {
    vec![
        get("/v1/hosts", "listHosts", "List the hosts of the fleet")
            .answers::<Vec<HostView>>()
            .asks(|_| Ok(AdminRequest::ListHosts)),
        get("/v1/hosts/{host}", "showHost", "Show one host")
            .answers::<HostView>()
            .asks(|given| Ok(AdminRequest::ShowHost(given.path("host")?))),
        delete("/v1/hosts/{host}", "removeHost", "Remove a host; its machine may join anew")
            .says("Answers with the host as it was. Its name is kept from others for a while.")
            .needs(Needs::Operator)
            .answers::<HostView>()
            .asks(|given| Ok(AdminRequest::RemoveHost(given.path("host")?))),
        put("/v1/hosts/{host}/labels", "setLabels", "Replace the labels of a host")
            .needs(Needs::Operator)
            .answers::<HostView>()
            .takes(|given, set: SetLabels| {
                let host = given.path("host")?;
                Ok(AdminRequest::SetLabels { host, set })
            }),
        put("/v1/hosts/{host}/name", "renameHost", "Give a host another name")
            .says("Its rules, labels and addresses stay. The old name is kept from others for a day.")
            .needs(Needs::Operator)
            .answers::<HostView>()
            .takes(|given, rename: RenameHost| {
                let (host, name) = (given.path("host")?, rename.name);
                Ok(AdminRequest::RenameHost { host, name })
            }),
        post("/v1/hosts/{host}/rotate-key", "rotateHostKey", "Ask a host to give itself another WireGuard key")
            .says("Answers when the host was asked; the key differs in `GET /v1/hosts/{host}` once it has done so. A host that is offline is refused as unavailable.")
            .needs(Needs::Operator)
            .answers::<HostView>()
            .asks(|given| Ok(AdminRequest::RotateHostKey(given.path("host")?))),
        post("/v1/hosts/{host}/revoke", "revokeHost", "Remove a host that is no longer to be trusted")
            .says("As removal, and neither of its keys is ever let in again. `GET /v1/removed/{id}` tells which hosts have cut it off.")
            .needs(Needs::Operator)
            .answers::<HostView>()
            .asks(|given| Ok(AdminRequest::RevokeHost(given.path("host")?))),
    ]
}

fn removed_hosts() -> Vec<Operation> {
    vec![
        get(
            "/v1/removed",
            "listRemovedHosts",
            "List the hosts that are no more, the last to go first",
        )
        .answers::<Vec<RemovedHostView>>()
        .asks(|_| Ok(AdminRequest::ListRemoved)),
        get(
            "/v1/removed/{id}",
            "showRemovedHost",
            "Show which hosts know that a host is no more",
        )
        .answers::<RemovedHost>()
        .asks(|given| Ok(AdminRequest::ShowRemoved(given.path("id")?))),
    ]
}

fn tokens() -> Vec<Operation> {
    vec![
        get("/v1/tokens", "listTokens", "List the join tokens")
            .answers::<Vec<TokenView>>()
            .asks(|_| Ok(AdminRequest::ListTokens)),
        post("/v1/tokens", "createToken", "Make a join token")
            .says("The only answer that holds the token itself.")
            .needs(Needs::Operator)
            .answers::<CreatedToken>()
            .fails(&[UNPROCESSABLE])
            .takes(|_, create: CreateToken| Ok(AdminRequest::CreateToken(create))),
        delete(
            "/v1/tokens/{token}",
            "revokeToken",
            "Revoke a join token; hosts that joined with it stay",
        )
        .needs(Needs::Operator)
        .answers::<TokenView>()
        .asks(|given| Ok(AdminRequest::RevokeToken(given.path("token")?))),
    ]
}

fn policy() -> Vec<Operation> {
    vec![
        get("/v1/policy", "showPolicy", "Show the policy in force, as it was written")
            .answers::<PolicyContent>()
            .asks(|_| Ok(AdminRequest::ShowPolicy(None))),
        post("/v1/policy", "applyPolicy", "Put a bundle in force, or try it")
            .says("Checked, tested and resolved against the fleet's hosts, then stored as the next version. A bundle that is wrong or fails its tests is refused with its lines in `diagnostics`; one that was made on another version than `base`, as a conflict.")
            .needs(Needs::PolicyEditor)
            .answers::<AppliedPolicy>()
            .fails(&[UNPROCESSABLE])
            .takes(|_, apply: ApplyPolicy| Ok(AdminRequest::ApplyPolicy(apply))),
        post("/v1/policy/rollback", "rollBackPolicy", "Put the content of an old version in force, as a new version")
            .needs(Needs::PolicyEditor)
            .answers::<AppliedPolicy>()
            .fails(&[NOT_FOUND, UNPROCESSABLE])
            .takes(|_, back: RollbackPolicy| Ok(AdminRequest::RollbackPolicy(back))),
        post("/v1/policy/plan", "planPolicy", "Tell what a bundle or an old version would change between hosts")
            .says("Changes nothing. Of `files` and `version` exactly one is given.")
            .needs(Needs::PolicyEditor)
            .answers::<PlannedPolicy>()
            .fails(&[NOT_FOUND, UNPROCESSABLE])
            .takes(|_, plan: PlanRequest| Ok(AdminRequest::PlanPolicy(plan))),
        get("/v1/policy/rollout", "showRollout", "Show where the version in force is enforced")
            .answers::<Rollout>()
            .asks(|_| Ok(AdminRequest::ShowRollout)),
        get("/v1/policy/versions", "listPolicyVersions", "List the versions, the newest first")
            .answers::<Vec<PolicyVersionView>>()
            .asks(|_| Ok(AdminRequest::ListPolicyVersions)),
        get("/v1/policy/versions/{version}", "showPolicyVersion", "Show one version, as it was written")
            .answers::<PolicyContent>()
            .asks(|given| {
                let version = PolicyVersion(given.path("version")?);
                Ok(AdminRequest::ShowPolicy(Some(version)))
            }),
    ]
}

fn admins() -> Vec<Operation> {
    vec![
        get(
            "/v1/admins",
            "listAdmins",
            "List who has a credential for this API",
        )
        .needs(Needs::Admin)
        .answers::<Vec<AdminView>>()
        .asks(|_| Ok(AdminRequest::ListAdmins)),
        post(
            "/v1/admins",
            "createAdmin",
            "Make a credential for somebody",
        )
        .says("The only answer that holds the credential itself.")
        .needs(Needs::Admin)
        .answers::<CreatedAdmin>()
        .fails(&[UNPROCESSABLE])
        .takes(|_, create: CreateAdmin| Ok(AdminRequest::CreateAdmin(create))),
        delete("/v1/admins/{admin}", "revokeAdmin", "Withdraw a credential")
            .says("Answers with it as it was. The last one with the role admin is not withdrawn.")
            .needs(Needs::Admin)
            .answers::<AdminView>()
            .asks(|given| Ok(AdminRequest::RevokeAdmin(given.path("admin")?))),
        post(
            "/v1/admins/{admin}/credential",
            "replaceCredential",
            "Make another credential in the place of one",
        )
        .says("The old one opens nothing from then on. The only answer that holds the new one.")
        .needs(Needs::Admin)
        .answers::<CreatedAdmin>()
        .asks(|given| Ok(AdminRequest::ReplaceCredential(given.path("admin")?))),
    ]
}

fn authority() -> Vec<Operation> {
    vec![
        get(
            "/v1/authority",
            "showAuthority",
            "Show which roots the fleet believes, and which hosts have moved to the newest",
        )
        .answers::<AuthorityView>()
        .asks(|_| Ok(AdminRequest::ShowAuthority)),
        post(
            "/v1/authority/rotate",
            "rotateAuthority",
            "Give the fleet's authority new keys beside the old ones",
        )
        .says("Hosts move by themselves; both roots are believed until the old one is retired.")
        .needs(Needs::Admin)
        .answers::<AuthorityView>()
        .asks(|_| Ok(AdminRequest::RotateAuthority)),
        post(
            "/v1/authority/retire",
            "retireAuthority",
            "Believe the old root no more, and erase its keys",
        )
        .says("Refused while a host has not moved, unless `force` leaves it behind.")
        .needs(Needs::Admin)
        .answers::<AuthorityView>()
        .fails(&[UNPROCESSABLE])
        .takes(|_, retire: RetireAuthority| {
            Ok(AdminRequest::RetireAuthority {
                force: retire.force,
            })
        }),
    ]
}

fn recovery() -> Vec<Operation> {
    vec![
        get(
            "/v1/recovery",
            "showRecovery",
            "Show what a restored coordinator still asks its hosts",
        )
        .answers::<RecoveryStatus>()
        .asks(|_| Ok(AdminRequest::ShowRecovery)),
        post(
            "/v1/recovery",
            "startRecovery",
            "Ask all hosts what they remember, since the store is behind them",
        )
        .says("Until it ends nothing else is changed.")
        .needs(Needs::Admin)
        .answers::<RecoveryStatus>()
        .fails(&[UNPROCESSABLE])
        .takes(|_, start: StartRecovery| Ok(AdminRequest::StartRecovery(start.why))),
        post(
            "/v1/recovery/finish",
            "finishRecovery",
            "Wait for no more hosts, and sign a new epoch",
        )
        .says("Refused while no host has told anything, unless `force` says so.")
        .needs(Needs::Admin)
        .answers::<RecoveryStatus>()
        .fails(&[UNPROCESSABLE])
        .takes(|_, finish: FinishRecovery| {
            Ok(AdminRequest::FinishRecovery {
                force: finish.force,
            })
        }),
    ]
}
