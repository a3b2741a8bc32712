//! What a restart finds, and what it refuses to find.

use std::fs;

use model::admin::{CoordinatorStatus, HostView, TokenView};
use model::control::ToHost;

use crate::host::{Keys, join};
use crate::stage::{Place, soon};

#[tokio::test]
async fn a_restart_keeps_everything() {
    let place = Place::new();
    let running = place.start().await;
    let token = running.token().await;
    let host = join(&running.at(), &token, "vm-1", Keys::new(1))
        .await
        .unwrap();
    let before = running.status().await;
    let tokens: Vec<TokenView> = soon(running.local().get("/v1/tokens")).await.unwrap();
    let secret = place.credential().secret;
    running.stop().await;

    let running = place.start().await;
    let after = running.status().await;
    // Of its own accord each start takes another port here.
    assert_eq!(after.addresses, [running.at()]);
    let addresses = before.addresses.clone();
    assert_eq!(CoordinatorStatus { addresses, ..after }, before);
    let operator = place.operator();
    assert_eq!(place.credential().secret, secret);
    assert_eq!(
        soon(operator.get::<Vec<TokenView>>("/v1/tokens"))
            .await
            .unwrap(),
        tokens
    );
    let hosts: Vec<HostView> = soon(operator.get("/v1/hosts")).await.unwrap();
    assert_eq!(hosts[0].id, host.enrolled.host);
    let mut stream = host.open(&running.at()).await;
    let map = |message| matches!(message, ToHost::Map(_)).then_some(());
    stream.find(map).await;
    join(&running.at(), &token, "vm-2", Keys::new(2))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_credential_file_that_is_in_the_way_stops_no_start() {
    let place = Place::new();
    place.start().await.stop().await;
    let file = place.settings().state_dir.join("admin.credential");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let running = place.start().await;
    assert_eq!(running.status().await.hosts, 0);
}

#[tokio::test]
async fn a_second_coordinator_on_one_state_directory_is_told_of_the_first() {
    let place = Place::new();
    let running = place.start().await;
    let refused = place.try_start(&place.settings()).await.err().unwrap();
    assert!(
        refused.contains("another mesh-coordinator uses the state directory"),
        "{refused}"
    );
    assert_eq!(running.status().await.hosts, 0);
}

#[tokio::test]
async fn what_was_chosen_at_the_first_start_stays() {
    let place = Place::new();
    let mut settings = place.settings();
    settings.fleet.name = Some("prod".parse().unwrap());
    settings.fleet.overlay_v4 = Some("10.64.0.0/16".parse().unwrap());
    settings.fleet.dns_suffix = Some("prod.internal".into());
    let running = place.try_start(&settings).await.unwrap();
    let status = running.status().await;
    assert_eq!(
        (status.fleet_name.as_str(), status.dns_suffix.as_str()),
        ("prod", "prod.internal")
    );
    assert_eq!(status.overlay_v4.to_string(), "10.64.0.0/16");
    running.stop().await;

    let mut other = settings.clone();
    other.fleet.dns_suffix = Some("mesh.internal".into());
    let refused = place.try_start(&other).await.err().unwrap();
    assert!(
        refused.contains("dns_suffix is mesh.internal") && refused.contains("prod.internal"),
        "{refused}"
    );
    // Saying nothing is fine, and so is saying the same again.
    place.start().await.stop().await;
    place.try_start(&settings).await.unwrap().stop().await;
}

#[tokio::test]
async fn a_lost_store_is_not_taken_for_a_first_start() {
    let place = Place::new();
    place.start().await.stop().await;
    fs::remove_dir_all(place.file("store")).unwrap();
    let refused = place.try_start(&place.settings()).await.err().unwrap();
    assert!(
        refused.contains("its store is gone") && refused.contains("backup"),
        "{refused}"
    );
    assert!(!place.file("store").exists());
}

#[tokio::test]
async fn a_lost_authority_is_not_made_anew() {
    let place = Place::new();
    place.start().await.stop().await;
    fs::remove_file(place.file("authority")).unwrap();
    let refused = place.try_start(&place.settings()).await.err().unwrap();
    assert!(refused.contains("its authority is gone"), "{refused}");
    assert!(!place.file("authority").exists());
}

#[tokio::test]
async fn the_authority_of_another_fleet_is_refused() {
    let (place, other) = (Place::new(), Place::new());
    place.start().await.stop().await;
    other.start().await.stop().await;
    fs::copy(other.file("authority"), place.file("authority")).unwrap();
    let refused = place.try_start(&place.settings()).await.err().unwrap();
    assert!(
        refused.contains("does not belong to the authority"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_port_that_is_taken_leaves_no_half_a_fleet() {
    let (place, other) = (Place::new(), Place::new());
    let running = other.start().await;
    let mut settings = place.settings();
    settings.listen = Some(running.address);
    let refused = place.try_start(&settings).await.err().unwrap();
    assert!(refused.contains("cannot listen on"), "{refused}");
    assert!(!place.file("authority").exists());
}
