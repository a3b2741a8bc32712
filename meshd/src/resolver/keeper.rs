//! The host's resolver as it should be and as it is, in the way that suits the host. What cannot be
//! done is told, and tried again now and then: at boot a resolver may come up after this daemon.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use model::local::{ResolverState, ResolverView};
use tokio::time::Instant;

use super::{
    Choice, HostFiles, HostResolver, ResolverMode, Routing, choose, clean_up_after, nameservers,
    resolv_conf,
};

/// How long after a failure the resolver is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// Domains of the mesh, and the number of the interface that they are asked over.
pub type Wanted = (u32, Vec<String>);

/// Keeps one host's resolver.
pub struct ResolverKeeper {
    files: HostFiles,
    interface: String,
    server: SocketAddr,
    mode: ResolverMode,
    standing: Option<Standing>,
    /// Why it does not stand: an alarm where something failed, else what was found.
    failure: Option<String>,
    said: Option<String>,
    /// How it was when it did not stand.
    found: ResolverState,
    retry_at: Option<Instant>,
}

struct Standing {
    way: Box<dyn HostResolver>,
    routing: Routing,
}

impl ResolverKeeper {
    /// Takes where the host keeps its settings, and where mesh DNS answers; nothing is changed yet,
    /// but what a dead daemon left is taken back.
    pub fn new(
        files: HostFiles,
        interface: String,
        server: SocketAddr,
        mode: ResolverMode,
    ) -> Self {
        clean_up_after(&files, &interface);
        Self {
            files,
            interface,
            server,
            mode,
            standing: None,
            failure: None,
            said: None,
            found: ResolverState::Waiting,
            retry_at: None,
        }
    }

    /// Changes whether the resolver is set up; the next `bring_about` does it.
    pub fn set_mode(&mut self, mode: ResolverMode) {
        self.mode = mode;
        self.retry_at = None;
    }

    /// Returns whether the host's resolver is set up now.
    pub fn stands(&self) -> bool {
        self.standing.is_some()
    }

    /// Returns what an operator should look at.
    pub fn alarm(&self) -> Option<String> {
        self.failure.clone()
    }

    /// Returns how the host's resolver is set up, for people.
    pub fn view(&self) -> ResolverView {
        let (state, detail) = match (&self.standing, self.mode) {
            (Some(standing), _) => (ResolverState::Set, standing.way.describe()),
            (None, ResolverMode::Off) => (ResolverState::Off, "resolver = \"off\"".into()),
            (None, ResolverMode::Auto) if self.found == ResolverState::Waiting => {
                (self.found, "the overlay is not up".into())
            }
            (None, ResolverMode::Auto) => (self.found, self.said.clone().unwrap_or_default()),
        };
        ResolverView { state, detail }
    }

    /// Returns the servers that the host asks besides mesh DNS.
    pub async fn nameservers(&self) -> Vec<IpAddr> {
        nameservers(&self.files, self.server).await
    }

    /// Returns the servers that the host asks in the end, whatever stands in between.
    pub async fn asked_in_the_end(&self) -> Vec<IpAddr> {
        resolv_conf::asked_in_the_end(&self.files, self.server).await
    }

    /// Returns where the host keeps its settings.
    pub fn files(&self) -> &HostFiles {
        &self.files
    }

    /// Returns whether `bring_about` would change, or try, anything.
    pub fn would_change(&self, wanted: Option<&Wanted>) -> bool {
        let wanted = self.routing(wanted);
        let waits = self.retry_at.is_some_and(|at| at > Instant::now());
        match (&self.standing, wanted) {
            (Some(standing), wanted) => Some(&standing.routing) != wanted.as_ref(),
            (None, Some(_)) => !waits,
            (None, None) => false,
        }
    }

    /// Brings the resolver to what is wanted.
    pub async fn bring_about(&mut self, wanted: Option<Wanted>) {
        if !self.would_change(wanted.as_ref()) {
            return;
        }
        self.revert().await;
        let Some(routing) = self.routing(wanted.as_ref()) else {
            return;
        };
        match choose(&self.files, &self.interface, self.server).await {
            Choice::Use(way) => self.set(way, routing).await,
            Choice::AsksUs => self.say(
                ResolverState::AsksUs,
                "the host asks mesh DNS already".into(),
            ),
            Choice::LeaveAlone(why) => self.say(
                ResolverState::LeftAlone,
                format!("the host's resolver is left alone: {why}"),
            ),
        }
    }

    fn routing(&self, wanted: Option<&Wanted>) -> Option<Routing> {
        let wanted = wanted.filter(|_| self.mode == ResolverMode::Auto);
        wanted.map(|(index, domains)| Routing {
            interface: self.interface.clone(),
            index: *index,
            server: self.server,
            domains: domains.clone(),
        })
    }

    async fn set(&mut self, mut way: Box<dyn HostResolver>, routing: Routing) {
        match way.set(&routing).await {
            Ok(()) => {
                tracing::info!(resolver = way.describe(), "names of the mesh resolve");
                self.failure = None;
                self.said = None;
                self.retry_at = None;
                self.standing = Some(Standing { way, routing });
            }
            Err(error) => {
                // What was set before it failed would ask a daemon that believes it is not asked.
                if let Err(error) = way.revert(&routing).await {
                    tracing::warn!(%error, "what was set of the host's resolver stays");
                }
                let what = format!("names of the mesh do not resolve: {error}");
                self.say(ResolverState::Failed, what);
                self.failure = self.said.clone();
            }
        }
    }

    /// Says it once, and tries again later.
    fn say(&mut self, found: ResolverState, what: String) {
        self.failure = None;
        self.found = found;
        self.retry_at = Some(Instant::now() + RETRY);
        if self.said.as_ref() != Some(&what) {
            tracing::info!("{what}");
            self.said = Some(what);
        }
    }

    /// Returns how the setting differs from what was set, and whether it may be made again.
    pub async fn difference(&mut self) -> Option<(String, bool)> {
        let Standing { way, routing } = self.standing.as_mut()?;
        match way.difference(routing).await {
            Ok(difference) => difference.map(|what| (what, way.may_repair())),
            Err(error) => {
                tracing::debug!(%error, "the host's resolver cannot be looked at");
                None
            }
        }
    }

    /// Makes the setting again.
    pub async fn repair(&mut self) {
        if let Some(Standing { way, routing }) = self.standing.take() {
            self.set(way, routing).await;
        }
    }

    /// Takes the setting back.
    pub async fn revert(&mut self) {
        self.failure = None;
        self.found = ResolverState::Waiting;
        if let Some(Standing { mut way, routing }) = self.standing.take()
            && let Err(error) = way.revert(&routing).await
        {
            tracing::warn!(%error, "the host's resolver still knows of the mesh");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolver::tests::host;

    const OWN: &str = "search example\nnameserver 192.0.2.1\n";

    fn keeper(files: &HostFiles, mode: ResolverMode) -> ResolverKeeper {
        let server = "127.0.0.150:53".parse().unwrap();
        ResolverKeeper::new(files.clone(), "mesh0".into(), server, mode)
    }

    fn wanted() -> Option<Wanted> {
        Some((7, vec!["mesh.internal".into()]))
    }

    fn text(files: &HostFiles) -> String {
        std::fs::read_to_string(files.resolv_conf()).unwrap()
    }

    #[tokio::test]
    async fn the_resolver_follows_what_is_wanted() {
        let (_root, files) = host(OWN);
        let mut keeper = keeper(&files, ResolverMode::Auto);
        keeper.bring_about(wanted()).await;
        assert!(keeper.stands() && text(&files).contains("127.0.0.150"));
        assert_eq!(keeper.view().state, ResolverState::Set);
        assert!(keeper.view().detail.contains("resolv.conf"));
        assert_eq!(keeper.difference().await, None);
        keeper.set_mode(ResolverMode::Off);
        keeper.bring_about(wanted()).await;
        assert_eq!((keeper.stands(), text(&files)), (false, OWN.into()));
        assert_eq!(keeper.view().state, ResolverState::Off);
        keeper.set_mode(ResolverMode::Auto);
        keeper.bring_about(wanted()).await;
        assert!(keeper.stands());
        keeper.bring_about(None).await;
        assert_eq!((keeper.stands(), text(&files)), (false, OWN.into()));
    }

    #[tokio::test]
    async fn what_a_dead_daemon_left_is_taken_back_even_when_nothing_is_set_up_any_more() {
        let (_root, files) = host(OWN);
        let mut dead = keeper(&files, ResolverMode::Auto);
        dead.bring_about(wanted()).await;
        drop(dead);
        assert_ne!(text(&files), OWN);
        let _next = keeper(&files, ResolverMode::Off);
        assert_eq!(text(&files), OWN);
    }

    #[tokio::test]
    async fn what_fails_half_way_is_taken_back() {
        let (root, files) = host("# by resolvconf\nnameserver 192.0.2.1\n");
        let record = root.path().join("record");
        let program = root.path().join("usr/sbin/resolvconf");
        std::fs::create_dir_all(program.parent().unwrap()).unwrap();
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in\n*-a*) cat > {0}; exit 1 ;;\n*-d*) rm -f {0} ;;\nesac\n",
            record.display()
        );
        std::fs::write(&program, script).unwrap();
        let runnable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, runnable).unwrap();
        let mut keeper = keeper(&files, ResolverMode::Auto);
        keeper.bring_about(wanted()).await;
        assert_eq!(keeper.view().state, ResolverState::Failed);
        assert!(keeper.alarm().unwrap().contains("do not resolve"));
        assert!(!record.exists());
    }

    #[tokio::test]
    async fn another_writer_is_told_of_and_not_fought() {
        let (_root, files) = host(OWN);
        let mut keeper = keeper(&files, ResolverMode::Auto);
        keeper.bring_about(wanted()).await;
        std::fs::write(files.resolv_conf(), OWN).unwrap();
        let (what, may_repair) = keeper.difference().await.unwrap();
        assert!(what.contains("took the block") && !may_repair, "{what}");
        keeper.bring_about(wanted()).await;
        assert_eq!(text(&files), OWN);
    }
}
