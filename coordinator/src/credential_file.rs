//! The first operator's credential, for `meshctl --credential`: written once, at the first start,
//! and kept pointing at where the coordinator is.

use model::admin::AdminCredential;
use model::ids::Digest;
use model::key::SecretBytes;
use model::name::Name;
use runtime::state_dir::{StateDir, StateError};
use zeroize::Zeroizing;

/// Its name in the state directory.
pub(crate) const FILE: &str = "admin.credential";
/// Whose it is: `fleet::Bootstrap` says so.
const OPERATOR: &str = "admin";

/// Writes the credential that a new fleet begins with.
pub(crate) fn write(
    state: &StateDir,
    fleet: &Name,
    root_pin: Digest,
    addresses: &[String],
    secret: &SecretBytes,
) -> Result<(), StateError> {
    let credential = AdminCredential {
        fleet: fleet.clone(),
        addresses: addresses.to_vec(),
        root_pin,
        name: OPERATOR.into(),
        secret: String::from_utf8_lossy(secret.expose()).into_owned(),
    };
    state.write(FILE, &encode(&credential))
}

/// Puts the addresses and the root of now in the credential, if it is still there. Operators may take
/// it away, or put something else in its place.
pub(crate) fn refresh(
    state: &StateDir,
    root_pin: Digest,
    addresses: &[String],
) -> Result<(), StateError> {
    let Some(bytes) = state.read(FILE)?.map(Zeroizing::new) else {
        return Ok(());
    };
    match serde_json::from_slice::<AdminCredential>(&bytes) {
        Ok(mut credential)
            if credential.addresses != addresses || credential.root_pin != root_pin =>
        {
            credential.addresses = addresses.to_vec();
            credential.root_pin = root_pin;
            state.write(FILE, &encode(&credential))
        }
        _ => Ok(()),
    }
}

pub(crate) fn encode(credential: &AdminCredential) -> Zeroizing<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(credential).expect("texts are JSON");
    text.push(b'\n');
    Zeroizing::new(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_follows_the_coordinator() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path(), "test").unwrap();
        let secret = SecretBytes::new(b"s".to_vec());
        let fleet = "prod".parse().unwrap();
        write(
            &state,
            &fleet,
            Digest::from_bytes([1; 32]),
            &["a:1".into()],
            &secret,
        )
        .unwrap();
        let next = Digest::from_bytes([2; 32]);
        refresh(&state, next, &["b:2".into()]).unwrap();
        let read: AdminCredential =
            serde_json::from_slice(&state.read(FILE).unwrap().unwrap()).unwrap();
        assert_eq!(
            (read.addresses, read.root_pin, read.secret),
            (vec!["b:2".to_owned()], next, "s".to_owned())
        );
    }

    #[test]
    fn what_operators_did_with_the_file_stays() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path(), "test").unwrap();
        refresh(&state, Digest::from_bytes([1; 32]), &["b:2".into()]).unwrap();
        assert_eq!(state.read(FILE).unwrap(), None);
        state.write(FILE, b"moved to the safe").unwrap();
        refresh(&state, Digest::from_bytes([1; 32]), &["b:2".into()]).unwrap();
        assert_eq!(state.read(FILE).unwrap().unwrap(), b"moved to the safe");
    }
}
