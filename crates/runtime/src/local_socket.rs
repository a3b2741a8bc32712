//! HTTP over a Unix socket on which any local user may knock: who knocks is known, and what they
//! may do is decided per request.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::MissedTickBehavior;
use tower::ServiceExt;

use crate::linux::peer_groups::peer_groups;

/// Members of this group may do what root may do on the local sockets.
pub const ADMIN_GROUP: &str = "mesh";

/// Connections of users who are not trusted; one more is closed at once, so that they cannot keep
/// out those who are.
const STRANGERS_MAX: usize = 64;
/// How long the connection of a user who is not trusted lives.
const STRANGER_LIFETIME: Duration = Duration::from_secs(60);
/// How often it is looked whether the socket's file is still there.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long the head of a request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Who is at the other end of a local socket, as it was when they connected. It is in the
/// extensions of each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPeer {
    /// The user.
    pub uid: u32,
    /// Primary and supplementary groups.
    pub groups: Vec<u32>,
    /// The user is root, the daemon's own user, or in group `mesh`.
    pub trusted: bool,
}

/// A Unix socket that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process answers there.
    #[error(
        "{0} is in use by another process: is this daemon running already? (another --socket lets two run side by side)"
    )]
    InUse(PathBuf),
    /// Something else is there.
    #[error("{0} is there and is not a socket; move it away, or choose another --socket")]
    NotASocket(PathBuf),
    /// The kernel refused.
    #[error("cannot open the socket {path}: {source}")]
    Io {
        /// Which socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The socket as it is now.
#[derive(Debug)]
struct Current {
    listener: Arc<UnixListener>,
    /// Its file, when it was there.
    file: Option<FileId>,
}

/// Device and inode.
type FileId = (u64, u64);

/// Shares a local socket with another process: always the one that is in force.
#[derive(Clone, Debug)]
pub struct SocketSharer(Arc<Mutex<Current>>);

impl SocketSharer {
    /// Returns the socket once more, for a process that is to take over.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.listener().as_fd().try_clone_to_owned()
    }

    fn new(listener: UnixListener, path: &Path) -> Self {
        Self(Arc::new(Mutex::new(Current {
            listener: Arc::new(listener),
            file: file_id(path),
        })))
    }

    fn listener(&self) -> Arc<UnixListener> {
        Arc::clone(&self.lock().listener)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Current> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A bound local socket; its file goes when it is dropped.
#[derive(Debug)]
pub struct LocalSocket {
    current: SocketSharer,
    path: PathBuf,
    admin_group: Option<u32>,
    strangers: Arc<Semaphore>,
    /// Another process answers here now.
    is_handed_over: AtomicBool,
}

impl LocalSocket {
    /// Binds the socket for every local user, in place of one that a dead process left.
    ///
    /// # Errors
    /// Another process answers there, or the kernel refuses.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let io_error = |source| SocketError::Io {
            path: path.to_owned(),
            source,
        };
        if path.exists() {
            if !fs::metadata(path)
                .map_err(io_error)?
                .file_type()
                .is_socket()
            {
                return Err(SocketError::NotASocket(path.to_owned()));
            }
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(SocketError::InUse(path.to_owned()));
            }
            fs::remove_file(path).map_err(io_error)?;
        }
        Ok(Self {
            current: SocketSharer::new(open(path).map_err(io_error)?, path),
            path: path.to_owned(),
            admin_group: group_id(ADMIN_GROUP),
            strangers: Arc::new(Semaphore::new(STRANGERS_MAX)),
            is_handed_over: AtomicBool::new(false),
        })
    }

    /// Takes over a socket that another process bound; who knocks in between waits.
    ///
    /// # Errors
    /// It is no socket that can be listened on.
    pub fn take_over(listener: OwnedFd, path: &Path) -> Result<Self, SocketError> {
        let io_error = |source| SocketError::Io {
            path: path.to_owned(),
            source,
        };
        let listener = std::os::unix::net::UnixListener::from(listener);
        listener.set_nonblocking(true).map_err(io_error)?;
        let listener = UnixListener::from_std(listener).map_err(io_error)?;
        Ok(Self {
            current: SocketSharer::new(listener, path),
            path: path.to_owned(),
            admin_group: group_id(ADMIN_GROUP),
            strangers: Arc::new(Semaphore::new(STRANGERS_MAX)),
            is_handed_over: AtomicBool::new(false),
        })
    }

    /// Returns what shares the socket, also when it is made again later.
    pub fn sharer(&self) -> SocketSharer {
        self.current.clone()
    }

    /// Leaves the file to the process that has taken over.
    pub fn hand_over(&self) {
        self.is_handed_over.store(true, Ordering::Relaxed);
    }

    /// Answers requests until the future is dropped. A socket whose file was removed is made again.
    pub async fn serve(&self, router: Router) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let listener = self.current.listener();
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = looks.tick() => {
                    self.make_again().await;
                    continue;
                }
            };
            match accepted {
                Ok((stream, _)) => self.serve_connection(stream, router.clone()),
                Err(error) => {
                    tracing::warn!(%error, socket = %self.path.display(), "cannot accept a connection");
                    // Out of descriptors: wait for others to close theirs.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Makes the socket anew when nothing is in its place, or a socket that nobody answers: else
    /// nobody could ask any more.
    async fn make_again(&self) -> bool {
        match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(file) if file.file_type().is_socket() => {
                let is_own = self.current.lock().file == Some(id_of(&file));
                if is_own || !self.is_dead().await {
                    return false;
                }
                // A failure is told by what follows.
                let _ = fs::remove_file(&self.path);
            }
            _ => return false,
        }
        match open(&self.path) {
            Ok(listener) => {
                tracing::warn!(socket = %self.path.display(), "the socket was removed, and is made again");
                *self.current.lock() = Current {
                    listener: Arc::new(listener),
                    file: file_id(&self.path),
                };
                true
            }
            Err(error) => {
                tracing::debug!(%error, "the socket was removed, and cannot be made again");
                false
            }
        }
    }

    /// Whether nobody listens where this socket was.
    async fn is_dead(&self) -> bool {
        let refused = UnixStream::connect(&self.path).await.err();
        refused.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    }

    fn serve_connection(&self, stream: UnixStream, router: Router) {
        let peer = match self.identify(&stream) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!(%error, "cannot tell who connected to the local socket");
                return;
            }
        };
        if peer.trusted {
            tokio::spawn(serve_connection(stream, router, peer));
            return;
        }
        let Ok(place) = Arc::clone(&self.strangers).try_acquire_owned() else {
            tracing::debug!(
                uid = peer.uid,
                "closed a local connection: there are too many of users without rights"
            );
            return;
        };
        tokio::spawn(serve_stranger(stream, router, peer, place));
    }

    fn identify(&self, stream: &UnixStream) -> io::Result<LocalPeer> {
        let credentials = stream.peer_cred()?;
        let mut groups = peer_groups(stream)?;
        groups.push(credentials.gid());
        let own = rustix::process::geteuid().as_raw();
        let trusted = credentials.uid() == 0
            || credentials.uid() == own
            || self
                .admin_group
                .is_some_and(|admin| groups.contains(&admin));
        Ok(LocalPeer {
            uid: credentials.uid(),
            groups,
            trusted,
        })
    }
}

async fn serve_stranger(
    stream: UnixStream,
    router: Router,
    peer: LocalPeer,
    _place: OwnedSemaphorePermit,
) {
    // Whoever is cut off here had time enough for any request that is theirs to make.
    let _ = tokio::time::timeout(STRANGER_LIFETIME, serve_connection(stream, router, peer)).await;
}

async fn serve_connection(stream: UnixStream, router: Router, peer: LocalPeer) {
    let service = router.map_request(move |mut request: hyper::Request<_>| {
        request.extensions_mut().insert(peer.clone());
        request
    });
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    let served = builder
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .await;
    if let Err(error) = served {
        tracing::debug!(error = %error, "a local connection ended early");
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        let own = self.current.lock().file;
        if self.is_handed_over.load(Ordering::Relaxed) || file_id(&self.path) != own {
            return;
        }
        // Best effort: a left-over file is replaced at the next start.
        let _ = fs::remove_file(&self.path);
    }
}

fn file_id(path: &Path) -> Option<FileId> {
    Some(id_of(&fs::symlink_metadata(path).ok()?))
}

fn id_of(file: &fs::Metadata) -> FileId {
    (file.dev(), file.ino())
}

/// Opens a socket, where nothing is yet, for every local user.
fn open(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Looks a group up in /etc/group.
fn group_id(name: &str) -> Option<u32> {
    let text = fs::read_to_string("/etc/group").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_daemon_is_told_of_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let first = LocalSocket::bind(&path).unwrap();
        assert!(matches!(
            LocalSocket::bind(&path),
            Err(SocketError::InUse(_))
        ));
        drop(first);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_that_a_dead_process_left_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        LocalSocket::bind(&path).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        fs::write(&path, "data").unwrap();
        assert!(matches!(
            LocalSocket::bind(&path),
            Err(SocketError::NotASocket(_))
        ));
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }

    #[tokio::test]
    async fn a_socket_that_was_removed_is_made_again_and_one_in_its_place_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/x.sock");
        let socket = LocalSocket::bind(&path).unwrap();
        assert!(!socket.make_again().await, "it is there");
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        // The first look is at once.
        let router = Router::new().route("/", axum::routing::get(|| async { "1" }));
        let client = crate::api_client::ApiClient::unix(&path);
        let mut serving = std::pin::pin!(socket.serve(router));
        let made_again = async {
            while !path.exists() {
                tokio::task::yield_now().await;
            }
            client.get::<u32>("/").await
        };
        tokio::select! {
            answer = made_again => assert_eq!(answer.unwrap(), 1),
            () = &mut serving => unreachable!("serves until dropped"),
        }
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(!socket.make_again().await, "it is somebody else's");
    }

    #[tokio::test]
    async fn who_takes_over_answers_on_the_same_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let first = LocalSocket::bind(&path).unwrap();
        let second = LocalSocket::take_over(first.sharer().share().unwrap(), &path).unwrap();
        first.hand_over();
        drop(first);
        let router = Router::new().route("/", axum::routing::get(|| async { axum::Json(2) }));
        let client = crate::api_client::ApiClient::unix(&path);
        let answer: u32 = tokio::select! {
            answer = client.get("/") => answer.unwrap(),
            () = second.serve(router) => unreachable!("serves until dropped"),
        };
        assert_eq!(answer, 2);
        drop(second);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_that_was_made_again_is_the_one_that_is_handed_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let first = LocalSocket::bind(&path).unwrap();
        let sharer = first.sharer();
        fs::remove_file(&path).unwrap();
        assert!(first.make_again().await);
        let second = LocalSocket::take_over(sharer.share().unwrap(), &path).unwrap();
        first.hand_over();
        drop(first);
        let router = Router::new().route("/", axum::routing::get(|| async { axum::Json(2) }));
        let client = crate::api_client::ApiClient::unix(&path);
        let answer: u32 = tokio::select! {
            answer = client.get("/") => answer.unwrap(),
            () = second.serve(router) => unreachable!("serves until dropped"),
        };
        assert_eq!(answer, 2);
    }

    #[tokio::test]
    async fn a_socket_in_its_place_is_replaced_only_when_it_is_dead() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let socket = LocalSocket::bind(&path).unwrap();
        fs::rename(&path, directory.path().join("away")).unwrap();
        let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(!socket.make_again().await, "somebody answers there");
        drop(other);
        assert!(socket.make_again().await);
        assert!(!socket.make_again().await, "it is its own now");
    }

    #[tokio::test]
    async fn requests_carry_who_asks() {
        use axum::Extension;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let socket = LocalSocket::bind(&path).unwrap();
        let router = Router::new().route(
            "/",
            axum::routing::get(|Extension(peer): Extension<LocalPeer>| async move {
                axum::Json(serde_json::json!({ "uid": peer.uid, "trusted": peer.trusted }))
            }),
        );
        let client = crate::api_client::ApiClient::unix(&path);
        let answer: serde_json::Value = tokio::select! {
            answer = client.get("/") => answer.unwrap(),
            () = socket.serve(router) => unreachable!("serves until dropped"),
        };
        assert_eq!(answer["uid"], rustix::process::getuid().as_raw());
        assert_eq!(answer["trusted"], true);
    }
}
