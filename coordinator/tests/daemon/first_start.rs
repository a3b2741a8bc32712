//! First starts that were cut off after each of their steps.

use std::fs;
use std::os::unix::fs::DirBuilderExt;

use model::admin::CoordinatorStatus;
use tempfile::tempdir;

use crate::stage::{Place, soon};

const NOTE: &str = "founding";

/// A state directory as it is after a whole first start, and the fleet's pin.
async fn founded() -> (Place, String) {
    let place = Place::new();
    let running = place.start().await;
    let pin = running.status().await.root_pin;
    running.stop().await;
    assert!(!place.file(NOTE).exists());
    (place, pin)
}

async fn first_admin_is_let_in(place: &Place) -> CoordinatorStatus {
    soon(place.operator().get("/v1/status")).await.unwrap()
}

#[tokio::test]
async fn cut_off_before_the_authority_it_begins_again() {
    let place = Place::new();
    fs::DirBuilder::new()
        .mode(0o700)
        .create(place.file(""))
        .unwrap();
    fs::write(place.file(NOTE), "").unwrap();
    let _running = place.start().await;
    first_admin_is_let_in(&place).await;
    assert!(!place.file(NOTE).exists());
}

#[tokio::test]
async fn cut_off_after_the_authority_it_goes_on_with_that_one() {
    let (place, pin) = founded().await;
    fs::write(place.file(NOTE), "").unwrap();
    fs::remove_dir_all(place.file("store")).unwrap();
    fs::remove_file(place.file("admin.credential")).unwrap();
    let _running = place.start().await;
    assert_eq!(first_admin_is_let_in(&place).await.root_pin, pin);
}

#[tokio::test]
async fn cut_off_before_the_commit_the_credential_is_made_anew() {
    let (place, pin) = founded().await;
    fs::write(place.file(NOTE), "").unwrap();
    fs::remove_dir_all(place.file("store")).unwrap();
    let unused = place.credential().secret;
    let _running = place.start().await;
    assert_eq!(first_admin_is_let_in(&place).await.root_pin, pin);
    assert_ne!(place.credential().secret, unused);
}

#[tokio::test]
async fn cut_off_after_the_commit_the_credential_is_good() {
    let (place, pin) = founded().await;
    fs::write(place.file(NOTE), "").unwrap();
    let secret = place.credential().secret;
    let _running = place.start().await;
    assert_eq!(first_admin_is_let_in(&place).await.root_pin, pin);
    assert_eq!(place.credential().secret, secret);
}

#[tokio::test]
async fn another_name_after_the_authority_was_made_is_refused() {
    let (place, _) = founded().await;
    fs::write(place.file(NOTE), "").unwrap();
    fs::remove_dir_all(place.file("store")).unwrap();
    let mut settings = place.settings();
    settings.fleet.name = Some("prod".parse().unwrap());
    let refused = place.try_start(&settings).await.err().unwrap();
    assert!(refused.contains("--fleet main"), "{refused}");
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_made_is_named() {
    let root = tempdir().unwrap();
    let place = Place::new();
    let mut settings = place.settings();
    settings.state_dir = root.path().join("file/state");
    fs::write(root.path().join("file"), "").unwrap();
    let refused = place.try_start(&settings).await.err().unwrap();
    assert!(refused.contains("file/state"), "{refused}");
}

#[tokio::test]
async fn an_address_inside_the_overlay_is_not_where_hosts_join() {
    let place = Place::new();
    let mut settings = place.settings();
    settings.fleet.overlay_v4 = Some("10.64.0.0/16".parse().unwrap());
    settings.advertise = vec!["10.64.3.9:7443".into()];
    let refused = place.try_start(&settings).await.err().unwrap();
    assert!(
        refused.contains("10.64.3.9:7443") && refused.contains("--advertise"),
        "{refused}"
    );
    settings.advertise = vec!["10.65.3.9:7443".into()];
    place.try_start(&settings).await.unwrap().stop().await;

    settings.advertise = vec!["10.64.3.9:7443".into()];
    let refused = place.try_start(&settings).await.err().unwrap();
    assert!(refused.contains("lies in the overlay"), "a later start too");
}

#[tokio::test]
async fn what_belongs_to_others_is_refused_before_anything_is_founded() {
    let place = Place::new();
    let mut settings = place.settings();
    settings.fleet.overlay_v4 = Some("11.0.0.0/16".parse().unwrap());
    let refused = place.try_start(&settings).await.err().unwrap();
    assert!(refused.contains("--allow-public"), "{refused}");
    settings.fleet.overlay_v4 = None;
    settings.fleet.dns_suffix = Some("com".into());
    let refused = place.try_start(&settings).await.err().unwrap();
    assert!(refused.contains("--allow-public"), "{refused}");
    settings.fleet.allow_public = true;
    let running = place.try_start(&settings).await.unwrap();
    assert_eq!(running.status().await.dns_suffix, "com");
}
