//! The audit log over the API: what operators did, and what they were not let do.

use model::admin::{AuditEntry, AuditOutcome, AuditPage, CreateAdmin, CreatedAdmin, Role};
use runtime::api_client::ApiClient;
use runtime::tls;
use serde_json::Value;
use trust::audit::AuditChain;

use crate::stage::{Place, Running, soon, token_order};

async fn page(running: &Running) -> AuditPage {
    soon(running.local().get("/v1/audit?limit=500"))
        .await
        .unwrap()
}

async fn last(running: &Running) -> AuditEntry {
    page(running).await.entries.pop().unwrap()
}

/// Waits for an entry that nobody was told of: a refusal is answered before it is in the log.
async fn refused(running: &Running, who: &str) -> AuditEntry {
    soon(async {
        loop {
            let entry = last(running).await;
            if entry.who == who && entry.outcome == AuditOutcome::Refused {
                return entry;
            }
        }
    })
    .await
}

fn check(page: &AuditPage) {
    let mut chain = AuditChain::from(page.first);
    for entry in &page.entries {
        chain.follow(entry).unwrap();
    }
    chain.end(page.last, page.last_hash).unwrap();
}

#[tokio::test]
async fn what_operators_do_is_logged_with_where_and_why_and_outlives_a_restart() {
    let place = Place::new();
    let running = place.start().await;
    let operator = place.operator().with_reason("rack 7 grows; 100 % sure");
    let _: Value = soon(operator.post("/v1/tokens", &token_order()))
        .await
        .unwrap();
    let entry = last(&running).await;
    assert_eq!(
        (entry.who.as_str(), entry.from.as_str()),
        ("admin", "127.0.0.1")
    );
    assert_eq!(entry.reason, "rack 7 grows; 100 % sure");
    running.token().await;
    let entry = last(&running).await;
    assert!(entry.who.starts_with("local:"), "{entry:?}");
    assert_eq!(entry.from, "local socket");
    let before = page(&running).await;
    check(&before);
    running.stop().await;
    let running = place.start().await;
    assert_eq!(page(&running).await, before);
}

#[tokio::test]
async fn a_wrong_credential_and_a_role_that_does_not_allow_it_are_logged() {
    let place = Place::new();
    let running = place.start().await;
    let create = CreateAdmin {
        name: "eve".parse().unwrap(),
        role: Role::Viewer,
        valid_for_secs: None,
    };
    let made: CreatedAdmin = soon(place.operator().post("/v1/admins", &create))
        .await
        .unwrap();
    let client = |secret: String| {
        let pin = tls::pinned_client(place.credential().root_pin);
        ApiClient::tls(vec![running.at()], pin, secret)
    };
    soon(client(made.credential.clone()).delete::<Value>("/v1/hosts/a"))
        .await
        .unwrap_err();
    let denied = refused(&running, "eve").await;
    assert_eq!(denied.action, "host.remove");
    let guess = format!("{}aaaa", &made.credential[..made.credential.len() - 4]);
    soon(client(guess).get::<Value>("/v1/hosts"))
        .await
        .unwrap_err();
    let guessed = refused(&running, "unknown as eve").await;
    assert_eq!(guessed.from, "127.0.0.1");
    check(&page(&running).await);
}

#[tokio::test]
async fn questions_that_mean_nothing_are_refused() {
    let place = Place::new();
    let running = place.start().await;
    for path in [
        "/v1/audit?after=x",
        "/v1/audit?nonsense=1",
        "/v1/audit?limit=-1",
    ] {
        let refused = soon(running.local().get::<Value>(path)).await.unwrap_err();
        assert!(refused.to_string().contains("query"), "{path}: {refused}");
    }
}
