//! A lost credential, on the coordinator's own machine.

use coordinator::recover::recover;
use coordinator::settings::Settings;
use model::admin::{AdminView, AuditPage, CoordinatorStatus};
use serde_json::{Value, json};

use crate::stage::{Place, Running, soon};

fn settings(place: &Place, running: &Running) -> Settings {
    Settings {
        advertise: vec![running.at()],
        ..place.settings()
    }
}

#[tokio::test]
async fn a_lost_credential_is_replaced_and_the_old_one_opens_nothing() {
    let place = Place::new();
    let running = place.start().await;
    let lost = place.operator();
    let name = "admin".parse().unwrap();
    let told = soon(recover(&settings(&place, &running), &name, None))
        .await
        .unwrap();
    assert!(
        told.contains("admin.credential") && told.contains("0600"),
        "{told}"
    );
    assert!(soon(lost.get::<Value>("/v1/status")).await.is_err());
    let status: CoordinatorStatus = soon(place.operator().get("/v1/status")).await.unwrap();
    assert_eq!(status.fleet, running.status().await.fleet);
    let log: AuditPage = soon(running.local().get("/v1/audit?newest=true"))
        .await
        .unwrap();
    let entry = log
        .entries
        .iter()
        .find(|it| it.action == "admin.replace")
        .unwrap();
    assert!(
        entry.who.starts_with("local:") && entry.reason.contains("lost"),
        "{entry:?}"
    );
}

#[tokio::test]
async fn where_there_is_no_admin_of_the_name_one_is_made() {
    let place = Place::new();
    let running = place.start().await;
    let out = place.file("rescue.json");
    let name = "rescue".parse().unwrap();
    soon(recover(&settings(&place, &running), &name, Some(&out)))
        .await
        .unwrap();
    let credential: model::admin::AdminCredential =
        serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    assert_eq!(
        (credential.name.as_str(), credential.addresses),
        ("rescue", vec![running.at()])
    );
}

#[tokio::test]
async fn one_whose_credential_has_expired_gets_another_with_its_role() {
    let place = Place::new();
    let running = place.start().await;
    let order = json!({ "name": "eve", "role": "viewer", "valid_for_secs": 1 });
    let made: Value = soon(running.local().post("/v1/admins", &order))
        .await
        .unwrap();
    let replace = "/v1/admins/eve/credential";
    // Until it has expired it is replaced like any other.
    soon(async {
        while running
            .local()
            .post::<Value>(replace, &json!({}))
            .await
            .is_ok()
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let out = place.file("eve.json");
    let name = "eve".parse().unwrap();
    let told = soon(recover(&settings(&place, &running), &name, Some(&out)))
        .await
        .unwrap();
    assert!(told.contains("viewer"), "{told}");
    let admins: Vec<AdminView> = soon(running.local().get("/v1/admins")).await.unwrap();
    let eve = admins.iter().find(|it| it.name == name).unwrap();
    assert_eq!(eve.expires_secs, None, "{made}");
}

#[tokio::test]
async fn without_a_coordinator_or_a_place_to_write_nothing_is_replaced() {
    let place = Place::new();
    let running = place.start().await;
    let settings = settings(&place, &running);
    let name = "admin".parse().unwrap();
    let nowhere = place.file("no/such/directory");
    let error = soon(recover(&settings, &name, Some(&nowhere)))
        .await
        .unwrap_err();
    assert!(error.contains("--out"), "{error}");
    let _: Value = soon(place.operator().get("/v1/status")).await.unwrap();
    running.stop().await;
    let error = soon(recover(&settings, &name, None)).await.unwrap_err();
    assert!(error.contains("start it first"), "{error}");
    assert!(!place.file("admin.credential.new").exists());
}
