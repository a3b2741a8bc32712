//! Becoming a member, and being kept out.

use model::admin::HostView;
use model::control::EnrolRequest;
use model::key::Secret;
use runtime::control::connect;
use runtime::tls;
use tonic::Code;
use trust::enrolment::wireguard_public;

use crate::host::{Keys, join, join_with};
use crate::stage::{Place, soon, token_order};

#[tokio::test]
async fn a_host_with_a_token_becomes_a_member() {
    let place = Place::new();
    let running = place.start().await;
    let token = running.token().await;
    let host = join(&running.at(), &token, "vm-1", Keys::new(1))
        .await
        .unwrap();
    let record = host.anchors.verify_record(&host.enrolled.record).unwrap();
    assert_eq!(record.name.as_str(), "vm-1");
    assert_eq!(
        record.wireguard_key,
        wireguard_public(&Keys::new(1).wireguard)
    );
    let views: Vec<HostView> = soon(running.local().get("/v1/hosts")).await.unwrap();
    assert_eq!((views.len(), views[0].id), (1, host.enrolled.host));
}

#[tokio::test]
async fn the_same_key_joins_once_however_often_it_asks() {
    let place = Place::new();
    let running = place.start().await;
    let token = running
        .token_for(model::admin::CreateToken {
            uses: Some(1),
            ..token_order()
        })
        .await;
    let first = join(&running.at(), &token, "vm-1", Keys::new(1))
        .await
        .unwrap();
    let second = join(&running.at(), &token, "vm-1", Keys::new(1))
        .await
        .unwrap();
    assert_eq!(first.enrolled.host, second.enrolled.host);
    assert_eq!(running.status().await.hosts, 1);
}

#[tokio::test]
async fn a_wrong_secret_is_refused() {
    let place = Place::new();
    let running = place.start().await;
    let mut token = running.token().await;
    token.secret[0] ^= 1;
    let refused = join(&running.at(), &token, "vm-1", Keys::new(1))
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    assert!(refused.message().contains("token"), "{refused:?}");
    assert_eq!(running.status().await.hosts, 0);
}

#[tokio::test]
async fn a_host_that_does_not_have_its_key_is_refused() {
    let place = Place::new();
    let running = place.start().await;
    let token = running.token().await;
    let another = wireguard_public(&Secret::from_bytes([0x77; 32]));
    let lie = |request: &mut EnrolRequest| request.wireguard_key = another;
    let refused = join_with(&running.at(), &token, "vm-1", Keys::new(1), lie)
        .await
        .err()
        .unwrap();
    assert!(refused.message().contains("WireGuard"), "{refused:?}");
    assert_eq!(running.status().await.hosts, 0);
}

#[tokio::test]
async fn a_name_is_had_by_one_host() {
    let place = Place::new();
    let running = place.start().await;
    let token = running.token().await;
    join(&running.at(), &token, "vm-1", Keys::new(1))
        .await
        .unwrap();
    let refused = join(&running.at(), &token, "vm-1", Keys::new(2))
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused:?}");
    assert!(refused.message().contains("vm-1"), "{refused:?}");
}

#[tokio::test]
async fn a_coordinator_that_does_not_match_the_pin_is_told_nothing() {
    let (place, other) = (Place::new(), Place::new());
    let (running, impostor) = (place.start().await, other.start().await);
    let token = running.token().await;
    let refused = connect(&[impostor.at()], tls::pinned_client(token.pin))
        .await
        .unwrap_err();
    assert!(refused.untrusted, "{refused:?}");
    assert!(refused.message.contains("another authority"), "{refused:?}");
}
