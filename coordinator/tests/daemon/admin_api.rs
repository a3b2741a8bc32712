//! Operators: who they are, what they ask, and that no is said in JSON.

use model::admin::{
    AdminView, AppliedPolicy, ApplyPolicy, CoordinatorStatus, CreateAdmin, CreateToken,
    CreatedAdmin, CreatedToken, HostView, PolicyContent, PolicyFile, PolicyVersionView, Role,
    RollbackPolicy, Rollout, SetLabels, TokenView, WhyReport, WhyRequest,
};
use model::ids::PolicyVersion;
use runtime::api_client::{ApiClient, ApiError};
use runtime::tls;
use serde_json::{Value, json};

use crate::host::{Keys, join};
use crate::stage::{Place, soon, token_order};

fn refusal<T: std::fmt::Debug>(answer: Result<T, ApiError>) -> (u16, String, String) {
    match answer.unwrap_err() {
        ApiError::Refused { status, body } => (status, body.code, body.message),
        other => panic!("an answer in JSON, not {other:?}"),
    }
}

fn policy(text: &str) -> ApplyPolicy {
    ApplyPolicy {
        files: vec![PolicyFile {
            path: "policy.yaml".into(),
            text: text.into(),
        }],
        base: None,
        message: "a test".into(),
        dry_run: false,
    }
}

#[tokio::test]
async fn the_first_credential_opens_the_api_over_tls() {
    let place = Place::new();
    let running = place.start().await;
    let status: CoordinatorStatus = soon(place.operator().get("/v1/status")).await.unwrap();
    assert_eq!(status, running.status().await);
    assert_eq!(status.root_pin, place.credential().root_pin.to_string());
}

#[tokio::test]
async fn without_a_credential_that_is_somebodys_the_answer_is_401() {
    let place = Place::new();
    let running = place.start().await;
    let mut credential = place.credential().secret;
    credential.pop();
    for wrong in ["", "nonsense", &credential] {
        let config = tls::pinned_client(place.credential().root_pin);
        let client = ApiClient::tls(vec![running.at()], config, wrong.into());
        for path in ["/v1/status", "/v1/hosts", "/v1/tokens", "/v1/policy"] {
            let (status, code, message) = refusal(soon(client.get::<Value>(path)).await);
            assert_eq!((status, code.as_str()), (401, "denied"), "{message}");
            assert!(message.contains("credential"), "{message}");
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_said_in_json() {
    let place = Place::new();
    let running = place.start().await;
    let local = running.local();
    assert_eq!(
        refusal(soon(local.get::<Value>("/v1/nothing")).await).0,
        404
    );
    assert_eq!(
        refusal(soon(local.delete::<Value>("/v1/status")).await).0,
        405
    );
    assert_eq!(
        refusal(soon(local.get::<Value>("/v1/hosts/vm-9")).await).0,
        404
    );
    assert_eq!(
        refusal(soon(local.get::<Value>("/v1/hosts/VM_9")).await).0,
        422
    );
    assert_eq!(
        refusal(soon(local.delete::<Value>("/v1/tokens/xyz")).await).0,
        422
    );
}

#[tokio::test]
async fn a_key_that_is_not_known_is_refused_by_name() {
    let place = Place::new();
    let running = place.start().await;
    let order = json!({ "valid_for_secs": 60, "lables": {} });
    let (status, code, message) =
        refusal(soon(running.local().post::<Value>("/v1/tokens", &order)).await);
    assert_eq!((status, code.as_str()), (400, "invalid"));
    assert!(message.contains("lables"), "{message}");
}

#[tokio::test]
async fn tokens_are_made_listed_and_revoked() {
    let place = Place::new();
    let running = place.start().await;
    let operator = place.operator();
    let order = CreateToken {
        uses: Some(2),
        comment: "rack 7".into(),
        ..token_order()
    };
    let made: CreatedToken = soon(operator.post("/v1/tokens", &order)).await.unwrap();
    let listed: Vec<TokenView> = soon(operator.get("/v1/tokens")).await.unwrap();
    assert_eq!(listed, std::slice::from_ref(&made.view));
    let path = format!("/v1/tokens/{}", made.view.id);
    let revoked: TokenView = soon(operator.delete(&path)).await.unwrap();
    assert!(revoked.revoked);
    let token = made.token.parse().unwrap();
    let refused = join(&running.at(), &token, "vm-1", Keys::new(1))
        .await
        .err()
        .unwrap();
    assert!(refused.message().contains("revoked"), "{refused:?}");
}

#[tokio::test]
async fn hosts_are_shown_labelled_and_removed() {
    let place = Place::new();
    let running = place.start().await;
    let operator = place.operator();
    let token = running.token().await;
    join(&running.at(), &token, "vm-1", Keys::new(1))
        .await
        .unwrap();
    let labels = SetLabels {
        labels: [("role".parse().unwrap(), "web".parse().unwrap())].into(),
        base: None,
    };
    let set: HostView = soon(operator.put("/v1/hosts/vm-1/labels", &labels))
        .await
        .unwrap();
    assert_eq!(set.labels, labels.labels);
    let shown: HostView = soon(operator.get("/v1/hosts/vm-1")).await.unwrap();
    assert_eq!(shown, set);
    let removed: HostView = soon(operator.delete("/v1/hosts/vm-1")).await.unwrap();
    assert_eq!(removed.id, set.id);
    assert_eq!(running.status().await.hosts, 0);
}

#[tokio::test]
async fn policies_are_applied_shown_and_rolled_back() {
    let place = Place::new();
    let _running = place.start().await;
    let operator = place.operator();
    let text = "fleet: main\nallow:\n  - { id: ssh, from: any, to: any, tcp: [22] }\n";
    let applied: AppliedPolicy = soon(operator.post("/v1/policy", &policy(text)))
        .await
        .unwrap();
    assert_eq!((applied.version, applied.changed), (PolicyVersion(2), true));
    let shown: PolicyContent = soon(operator.get("/v1/policy")).await.unwrap();
    assert_eq!(
        (shown.files[0].text.as_str(), shown.view.author.as_str()),
        (text, "admin")
    );
    let back = RollbackPolicy {
        to: PolicyVersion(1),
        base: Some(PolicyVersion(2)),
        message: String::new(),
        dry_run: false,
    };
    let rolled: AppliedPolicy = soon(operator.post("/v1/policy/rollback", &back))
        .await
        .unwrap();
    assert_eq!(rolled.version, PolicyVersion(3));
    let history: Vec<PolicyVersionView> = soon(operator.get("/v1/policy/versions")).await.unwrap();
    let numbers: Vec<u64> = history.iter().map(|view| view.version.0).collect();
    assert_eq!(numbers, [3, 2, 1]);
    let second: PolicyContent = soon(operator.get("/v1/policy/versions/2")).await.unwrap();
    assert_eq!(second.files[0].text, text);
    let rollout: Rollout = soon(operator.get("/v1/policy/rollout")).await.unwrap();
    assert_eq!((rollout.version, rollout.hosts), (PolicyVersion(3), 0));
}

#[tokio::test]
async fn a_policy_that_is_wrong_is_refused_with_its_lines() {
    let place = Place::new();
    let running = place.start().await;
    let wrong = policy("fleet: main\nallow:\n  - { id: a, from: any, to: any, tpc: [22] }\n");
    match soon(running.local().post::<Value>("/v1/policy", &wrong))
        .await
        .unwrap_err()
    {
        ApiError::Refused { status: 422, body } => {
            assert_eq!(body.diagnostics[0].line, 3, "{body:?}");
            assert_eq!(body.diagnostics[0].file, "policy.yaml");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(running.status().await.policy, PolicyVersion(1));
}

#[tokio::test]
async fn a_policy_made_on_an_old_version_is_refused() {
    let place = Place::new();
    let running = place.start().await;
    let text = "fleet: main\nallow: []\n";
    let stale = ApplyPolicy {
        base: Some(PolicyVersion(9)),
        ..policy(text)
    };
    let (status, code, _) =
        refusal(soon(running.local().post::<Value>("/v1/policy", &stale)).await);
    assert_eq!((status, code.as_str()), (409, "conflict"));
}

#[tokio::test]
async fn why_is_answered_though_both_ends_are_offline() {
    let place = Place::new();
    let running = place.start().await;
    let token = running.token().await;
    join(&running.at(), &token, "vm-1", Keys::new(1))
        .await
        .unwrap();
    join(&running.at(), &token, "vm-2", Keys::new(2))
        .await
        .unwrap();
    let question = WhyRequest {
        from: "vm-1".into(),
        to: "vm-2".into(),
        protocol: "tcp".into(),
        port: Some(22),
        call: model::question::CallFacts::default(),
    };
    let report: WhyReport = soon(place.operator().post("/v1/why", &question))
        .await
        .unwrap();
    assert!(!report.policy.allowed);
    assert_eq!(report.source, model::admin::EndAnswer::Offline);
}

#[tokio::test]
async fn a_viewer_sees_and_changes_nothing() {
    let place = Place::new();
    let running = place.start().await;
    let operator = place.operator();
    let order = CreateAdmin {
        name: "eve".parse().unwrap(),
        role: Role::Viewer,
        valid_for_secs: None,
    };
    let made: CreatedAdmin = soon(operator.post("/v1/admins", &order)).await.unwrap();
    let config = tls::pinned_client(place.credential().root_pin);
    let viewer = ApiClient::tls(vec![running.at()], config, made.credential);
    soon(viewer.get::<Vec<TokenView>>("/v1/tokens"))
        .await
        .unwrap();
    let (status, _, message) =
        refusal(soon(viewer.post::<Value>("/v1/tokens", &token_order())).await);
    assert_eq!(status, 403);
    assert!(message.contains("eve may not"), "{message}");

    let withdrawn: AdminView = soon(operator.delete("/v1/admins/eve")).await.unwrap();
    assert_eq!(withdrawn.name.as_str(), "eve");
    assert_eq!(
        refusal(soon(viewer.get::<Value>("/v1/tokens")).await).0,
        401
    );
}
