//! The authority's keys on disk: the one file that, with the store, is the fleet. Whoever has it
//! can make hosts believe anything.

use data_encoding::{BASE64, HEXLOWER};
use model::key::Secret;
use model::name::Name;
use model::time::UnixTime;
use runtime::clock::random_seed;
use runtime::state_dir::StateDir;
use serde::{Deserialize, Serialize};
use trust::{Authority, AuthoritySeeds};
use zeroize::{Zeroize, Zeroizing};

/// Its name in the state directory.
pub(crate) const FILE: &str = "authority";
/// The format that this version writes, and the only one that it reads.
const FORMAT: u32 = 1;

/// What an authority is made of.
pub(crate) struct AuthorityFile {
    /// The fleet that it was made for.
    pub(crate) fleet: Name,
    seeds: AuthoritySeeds,
    root_certificate: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    fleet: Name,
    root_seed: String,
    records_seed: String,
    enrolment_seed: String,
    root_certificate: String,
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.root_seed.zeroize();
        self.records_seed.zeroize();
        self.enrolment_seed.zeroize();
    }
}

impl AuthorityFile {
    /// Makes the authority of a new fleet, and answers when the disk has it.
    pub(crate) fn create(state: &StateDir, fleet: Name, now: UnixTime) -> Result<Self, String> {
        let seeds = AuthoritySeeds {
            root: random_secret()?,
            records: random_secret()?,
            enrolment: random_secret()?,
        };
        let authority = Authority::create(&fleet, seeds.clone(), now);
        let root_certificate = authority.root_certificate().to_vec();
        let made = Self {
            fleet,
            seeds,
            root_certificate,
        };
        state
            .write(FILE, &made.encode())
            .map_err(|error| error.to_string())?;
        Ok(made)
    }

    /// Reads the authority of the fleet; `None` when there is none.
    pub(crate) fn read(state: &StateDir) -> Result<Option<Self>, String> {
        let bytes = state.read(FILE).map_err(|error| error.to_string())?;
        bytes
            .map(|bytes| Self::decode(&Zeroizing::new(bytes)))
            .transpose()
            .map_err(|why| {
                let path = state.file(FILE);
                format!(
                    "{} cannot be used: {why}; restore it from a backup",
                    path.display()
                )
            })
    }

    /// Reads the file of an authority, as a backup holds it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        Self::decode(bytes).map_err(|why| format!("the authority cannot be used: {why}"))
    }

    /// Takes the authority up. Each call makes one of its own.
    pub(crate) fn authority(&self) -> Result<Authority, String> {
        Authority::load(self.seeds.clone(), self.root_certificate.clone())
            .map_err(|error| error.to_string())
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let hex = |secret: &Secret| HEXLOWER.encode(secret.expose());
        let stored = Stored {
            format: FORMAT,
            fleet: self.fleet.clone(),
            root_seed: hex(&self.seeds.root),
            records_seed: hex(&self.seeds.records),
            enrolment_seed: hex(&self.seeds.enrolment),
            root_certificate: BASE64.encode(&self.root_certificate),
        };
        Zeroizing::new(serde_json::to_vec_pretty(&stored).expect("texts and a number are JSON"))
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let format: Format = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if format.format != FORMAT {
            return Err(format!(
                "it has format {}, this version reads {FORMAT}; start the version that wrote it",
                format.format
            ));
        }
        let stored: Stored = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let root_certificate = BASE64
            .decode(stored.root_certificate.as_bytes())
            .map_err(|_| "its root certificate is not base64")?;
        let seeds = AuthoritySeeds {
            root: secret(&stored.root_seed)?,
            records: secret(&stored.records_seed)?,
            enrolment: secret(&stored.enrolment_seed)?,
        };
        let read = Self {
            fleet: stored.fleet.clone(),
            seeds,
            root_certificate,
        };
        read.authority()?;
        Ok(read)
    }
}

/// The key that says how to read the others.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

fn secret(hex: &str) -> Result<Secret, String> {
    let bytes = Zeroizing::new(
        HEXLOWER
            .decode(hex.as_bytes())
            .map_err(|_| "a key is not hex")?,
    );
    let bytes: [u8; 32] = bytes
        .as_slice()
        .try_into()
        .map_err(|_| "a key has not 32 bytes".to_owned())?;
    Ok(Secret::from_bytes(bytes))
}

/// Returns 32 bytes that nobody can guess.
pub(crate) fn random_secret() -> Result<Secret, String> {
    random_seed()
        .map(Secret::from_bytes)
        .map_err(|error| format!("the kernel gives no randomness: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (tempfile::TempDir, StateDir) {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(&root.path().join("state"), "test").unwrap();
        (root, state)
    }

    #[test]
    fn an_authority_survives_its_file() {
        let (_root, state) = state();
        assert!(AuthorityFile::read(&state).unwrap().is_none());
        let fleet: Name = "prod".parse().unwrap();
        let made = AuthorityFile::create(&state, fleet, UnixTime::from_secs(1 << 30)).unwrap();
        let read = AuthorityFile::read(&state).unwrap().unwrap();
        let pin = |file: &AuthorityFile| file.authority().unwrap().root_pin();
        assert_eq!(pin(&read), pin(&made));
        assert_eq!(read.seeds, made.seeds);
    }

    #[test]
    fn a_file_of_mixed_fleets_is_refused() {
        let (_root, state) = state();
        let fleet: Name = "prod".parse().unwrap();
        let now = UnixTime::from_secs(1 << 30);
        let first = AuthorityFile::create(&state, fleet.clone(), now).unwrap();
        let second = AuthorityFile::create(&state, fleet, now).unwrap();
        let mixed = AuthorityFile {
            seeds: first.seeds,
            ..second
        };
        state.write(FILE, &mixed.encode()).unwrap();
        let error = AuthorityFile::read(&state).err().unwrap();
        assert!(error.contains("does not belong to its key"), "{error}");
    }

    #[test]
    fn a_truncated_file_is_refused_by_name() {
        let (root, state) = state();
        AuthorityFile::create(
            &state,
            "prod".parse().unwrap(),
            UnixTime::from_secs(1 << 30),
        )
        .unwrap();
        let whole = state.read(FILE).unwrap().unwrap();
        state.write(FILE, &whole[..whole.len() / 2]).unwrap();
        let error = AuthorityFile::read(&state).err().unwrap();
        assert!(error.contains("state/authority cannot be used"), "{error}");
        drop(root);
    }
}
