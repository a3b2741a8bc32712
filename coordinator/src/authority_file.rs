//! The authority's keys on disk: the one file that, with the store, is the fleet. Whoever has it
//! can make hosts believe anything.

use data_encoding::{BASE64, HEXLOWER};
use model::key::Secret;
use model::name::Name;
use model::time::UnixTime;
use runtime::clock::random_seed;
use runtime::state_dir::StateDir;
use serde::{Deserialize, Serialize};
use trust::{Authority, AuthorityKeys, AuthoritySeeds};
use zeroize::{Zeroize, Zeroizing};

use crate::former_keys;

/// Its name in the state directory.
pub(crate) const FILE: &str = "authority";
/// The format of one generation of keys; every version reads it.
const FORMAT: u32 = 1;
/// The format of several, while the authority is rotated.
const FORMAT_OF_SEVERAL: u32 = 2;

/// What an authority is made of.
pub(crate) struct AuthorityFile {
    /// The fleet that it was made for.
    pub(crate) fleet: Name,
    /// The oldest generation first.
    keys: Vec<AuthorityKeys>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    fleet: Name,
    #[serde(flatten)]
    keys: StoredKeys,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSeveral {
    format: u32,
    fleet: Name,
    generations: Vec<StoredKeys>,
}

#[derive(Serialize, Deserialize)]
struct StoredKeys {
    root_seed: String,
    records_seed: String,
    enrolment_seed: String,
    root_certificate: String,
}

impl Drop for StoredKeys {
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
        let keys = Authority::create(&fleet, seeds, now).keys();
        let made = Self { fleet, keys };
        state
            .write(FILE, &made.encode())
            .map_err(|error| error.to_string())?;
        Ok(made)
    }

    /// Puts these keys, and no others, in the place of the file's. What was there keeps a name until
    /// `former_keys::erase`.
    ///
    /// # Errors
    /// The disk refuses. The file is what it was, or, when its directory alone could not be synced,
    /// what it was to be; then what it was stays beside it until the disk has the directory.
    pub(crate) fn replace(
        state: &StateDir,
        fleet: &Name,
        keys: Vec<AuthorityKeys>,
    ) -> Result<(), String> {
        let next = Self {
            fleet: fleet.clone(),
            keys,
        };
        let bytes = next.encode();
        // Nothing is touched for what could not be read again.
        Self::decode(&bytes)?;
        former_keys::erase(state)?;
        former_keys::keep(state)?;
        if let Err(error) = state.write(FILE, &bytes) {
            // The second name is of the file in force still, or of the former one, which a power loss
            // may bring back: `erase` spoils nothing before the disk has the directory.
            if let Err(left) = former_keys::erase(state) {
                tracing::warn!(error = left, "a file beside the authority's is left over");
            }
            return Err(error.to_string());
        }
        match Self::read(state)? {
            Some(read) if read.keys == next.keys => Ok(()),
            _ => Err("what was written does not come back from the disk".to_owned()),
        }
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
        Authority::load_all(self.keys.clone()).map_err(|error| error.to_string())
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let fleet = self.fleet.clone();
        let mut generations: Vec<StoredKeys> = self.keys.iter().map(to_stored).collect();
        let text = match generations.pop() {
            Some(keys) if generations.is_empty() => serde_json::to_vec_pretty(&Stored {
                format: FORMAT,
                fleet,
                keys,
            }),
            last => {
                generations.extend(last);
                serde_json::to_vec_pretty(&StoredSeveral {
                    format: FORMAT_OF_SEVERAL,
                    fleet,
                    generations,
                })
            }
        };
        Zeroizing::new(text.expect("texts and a number are JSON"))
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let text = |error: serde_json::Error| error.to_string();
        let format: Format = serde_json::from_slice(bytes).map_err(text)?;
        let (fleet, generations) = match format.format {
            FORMAT => {
                let stored: Stored = serde_json::from_slice(bytes).map_err(text)?;
                (stored.fleet, vec![stored.keys])
            }
            FORMAT_OF_SEVERAL => {
                let stored: StoredSeveral = serde_json::from_slice(bytes).map_err(text)?;
                (stored.fleet, stored.generations)
            }
            other => {
                return Err(format!(
                    "it has format {other}, this version reads up to {FORMAT_OF_SEVERAL}; start the \
                     version that wrote it"
                ));
            }
        };
        let keys = generations.iter().map(from_stored);
        let read = Self {
            fleet,
            keys: keys.collect::<Result<_, _>>()?,
        };
        read.authority()?;
        Ok(read)
    }
}

fn to_stored(keys: &AuthorityKeys) -> StoredKeys {
    let hex = |secret: &Secret| HEXLOWER.encode(secret.expose());
    StoredKeys {
        root_seed: hex(&keys.seeds.root),
        records_seed: hex(&keys.seeds.records),
        enrolment_seed: hex(&keys.seeds.enrolment),
        root_certificate: BASE64.encode(&keys.root_certificate),
    }
}

fn from_stored(stored: &StoredKeys) -> Result<AuthorityKeys, String> {
    let root_certificate = BASE64
        .decode(stored.root_certificate.as_bytes())
        .map_err(|_| "its root certificate is not base64")?;
    Ok(AuthorityKeys {
        seeds: AuthoritySeeds {
            root: secret(&stored.root_seed)?,
            records: secret(&stored.records_seed)?,
            enrolment: secret(&stored.enrolment_seed)?,
        },
        root_certificate,
    })
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
        assert_eq!(read.keys, made.keys);
    }

    #[test]
    fn a_file_of_mixed_fleets_is_refused() {
        let (_root, state) = state();
        let fleet: Name = "prod".parse().unwrap();
        let now = UnixTime::from_secs(1 << 30);
        let first = AuthorityFile::create(&state, fleet.clone(), now).unwrap();
        let second = AuthorityFile::create(&state, fleet, now).unwrap();
        let mut mixed = second;
        mixed.keys[0].seeds = first.keys[0].seeds.clone();
        state.write(FILE, &mixed.encode()).unwrap();
        let error = AuthorityFile::read(&state).err().unwrap();
        assert!(error.contains("does not belong to its key"), "{error}");
    }

    #[test]
    fn keys_of_a_rotation_come_and_go_and_leave_nothing_in_their_place() {
        use std::fs::File;
        use std::os::unix::fs::{FileExt, PermissionsExt};
        let (_root, state) = state();
        let fleet: Name = "prod".parse().unwrap();
        let now = UnixTime::from_secs(1 << 30);
        let made = AuthorityFile::create(&state, fleet.clone(), now).unwrap();
        let seeds = AuthoritySeeds {
            root: Secret::from_bytes([1; 32]),
            records: Secret::from_bytes([2; 32]),
            enrolment: Secret::from_bytes([3; 32]),
        };
        let both = made.authority().unwrap().with_next(&fleet, 2, seeds, now);
        let both = both.unwrap().keys();
        AuthorityFile::replace(&state, &fleet, both.clone()).unwrap();
        assert_eq!(AuthorityFile::read(&state).unwrap().unwrap().keys, both);
        let former = File::open(state.file(FILE)).unwrap();
        former_keys::erase(&state).unwrap();
        AuthorityFile::replace(&state, &fleet, both[1..].to_vec()).unwrap();
        former_keys::erase(&state).unwrap();
        assert_eq!(
            AuthorityFile::read(&state).unwrap().unwrap().keys,
            both[1..]
        );
        let mut left = vec![1; former.metadata().unwrap().len() as usize];
        former.read_exact_at(&mut left, 0).unwrap();
        assert!(
            left.iter().all(|byte| *byte == 0),
            "the former file is overwritten"
        );
        let mode = std::fs::metadata(state.file(FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_cannot_be_replaced_is_what_it_was_and_nothing_is_left_beside_it() {
        let (_root, state) = state();
        let fleet: Name = "prod".parse().unwrap();
        let now = UnixTime::from_secs(1 << 30);
        let made = AuthorityFile::create(&state, fleet.clone(), now).unwrap();
        // Where the new file is to be made there is something that cannot be removed.
        std::fs::create_dir_all(state.file("authority.new/full")).unwrap();
        assert!(AuthorityFile::replace(&state, &fleet, made.keys.clone()).is_err());
        std::fs::remove_dir_all(state.file("authority.new")).unwrap();
        assert_eq!(
            AuthorityFile::read(&state).unwrap().unwrap().keys,
            made.keys
        );
        AuthorityFile::replace(&state, &fleet, made.keys.clone()).unwrap();
        former_keys::erase(&state).unwrap();
        assert!(!state.file("authority.old").exists());
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
