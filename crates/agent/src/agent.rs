//! PUBLIC API DRAFT (bodies follow): the struct and its verbs.
//!
//! pub struct AgentConfig { pub software_version: String, pub machine_id: String, pub default_name: Option<Name>,
//!     pub listen_port: u16, pub configured_endpoints: Vec<SocketAddr>, pub interface: String /* for status */, pub mtu: u16 }
//! #[derive(Default)] pub struct StoredFiles { pub identity: Option<Vec<u8>>, pub map: Option<Vec<u8>>, pub high_water: Option<Vec<u8>> }
//! impl Agent {
//!   pub fn new(config: AgentConfig, stored: StoredFiles, seed: [u8; 32], now: Now) -> Result<Agent, LoadError>
//!   pub fn handle_join(&mut self, request: RequestId, join: JoinRequest, now: Now)
//!   pub fn handle_leave(&mut self, request: RequestId, now: Now)
//!   pub fn handle_interfaces(&mut self, addresses: Vec<IpAddr>, now: Now)
//!   pub fn handle_channel(&mut self, event: ChannelEvent, now: Now)
//!   pub fn handle_persisted(&mut self, id: PersistId, result: Result<(), String>, now: Now)
//!   pub fn handle_shard(&mut self, event: dataplane::Event, now: Now)      // Event::Handshake is ignored: the program runs it
//!   pub fn handle_timeout(&mut self, now: Now)
//!   pub fn poll_output(&mut self) -> Option<Output>
//!   pub fn poll_timeout(&self) -> Option<(Instant, &'static str)>
//!   pub fn status(&self, now: Now) -> HostStatus          // detail always filled for a member; the program strips it, fills `drops`
//!   pub fn peers(&self, now: Now) -> Vec<PeerView>
//!   pub fn why(&self, question: &LocalWhyRequest) -> Result<LocalWhyReport, Refusal>
//!   pub fn resolve_peer(&self, name: &str) -> Option<ResolvedPeer { name, id, addresses: HostAddresses, endpoint: Option<SocketAddr> }>
//! }
