//! Frames of the control channel: from a host's wish for a channel to what the two ends hear of it.

use std::time::Duration;

use agent::{ChannelError, ChannelErrorKind, ChannelEvent, ChannelIdentity, EnrolError};
use model::control::{EnrolRequest, FromHost, Refusal};
use model::ids::Digest;
use model::wire;

use super::World;
use crate::control::{
    CALL_PATIENCE, ConnectionId, Frame, Purpose, Stall, Way, coordinator_believes, host_believes,
};
use crate::event::{Event, HostIndex, Note};
use crate::network::Place;
use crate::newer::say_more;

/// What hosts do.
impl World {
    pub(crate) fn call_describe(&mut self, index: HostIndex, pin: Digest) {
        self.dial(index, Purpose::Describe { pin });
    }

    pub(crate) fn call_enrol(&mut self, index: HostIndex, pin: Digest, request: EnrolRequest) {
        let mut bytes = wire::encode_enrol_request(&request);
        self.perhaps_say_more(&mut bytes);
        match wire::decode_enrol_request(&bytes) {
            Ok(heard) if heard == request => {
                self.dial(
                    index,
                    Purpose::Enrol {
                        pin,
                        request: Box::new(heard),
                    },
                );
            }
            other => self.violate(
                "messages survive the wire",
                format!("{request:?}: {other:?}"),
            ),
        }
    }

    pub(crate) fn open_sync(&mut self, index: HostIndex, identity: ChannelIdentity) {
        self.dial(index, Purpose::Sync(Box::new(identity)));
    }

    fn dial(&mut self, index: HostIndex, purpose: Purpose) {
        let run = self.running_mut(index).run;
        let patience = self.dice.secs(8, 90);
        let id = self.control.open(index, run, purpose, patience, self.now);
        // Whatever there was before is not listened to any more.
        if let Some(before) = self.running_mut(index).channel.replace(id) {
            self.hang_up(before);
        }
        self.send_frame(id, Way::Up, Frame::Dial);
        self.push_in(CALL_PATIENCE, Event::CallExpires { connection: id });
    }

    pub(crate) fn send_up(&mut self, index: HostIndex, message: &FromHost) {
        let bytes = wire::encode_from_host(message);
        let id = self.running_mut(index).channel;
        let is_open = id
            .and_then(|id| self.control.get(id))
            .is_some_and(|it| it.is_host_open);
        if let Some(id) = id.filter(|_| is_open) {
            if !matches!(message, FromHost::Ping(_) | FromHost::Renew(_)) {
                self.note_reported(index, bytes.len());
            }
            self.send_frame(id, Way::Up, Frame::Message(bytes));
        }
    }

    /// The agent closes its channel: what it said goes out first, and then it hears of it.
    pub(crate) fn close_sync(&mut self, index: HostIndex) {
        let Some(id) = self.running_mut(index).channel else {
            return;
        };
        self.hang_up(id);
        self.push_in(
            Duration::from_millis(1),
            Event::ChannelCloses { connection: id },
        );
    }

    pub(crate) fn channel_closes(&mut self, id: ConnectionId) {
        let Some(connection) = self.control.get(id) else {
            return;
        };
        let (index, run) = (connection.host, connection.host_run);
        let error = ChannelError::new(ChannelErrorKind::Interrupted, "closed as asked");
        if self.is_running(index, run) {
            self.tell_agent(index, id, ChannelEvent::Closed(error));
        }
        self.tidy(id);
    }

    pub(crate) fn call_expires(&mut self, id: ConnectionId) {
        if self
            .control
            .get(id)
            .is_some_and(|it| it.is_host_open && !it.is_answered)
        {
            let why = "no answer from the coordinator in time";
            self.fail(id, ChannelError::new(ChannelErrorKind::Unreachable, why));
        }
    }

    /// The host's end says nothing more and listens no more.
    fn hang_up(&mut self, id: ConnectionId) {
        let Some(connection) = self.control.get_mut(id) else {
            return;
        };
        if std::mem::replace(&mut connection.is_host_open, false) {
            self.send_frame(id, Way::Up, Frame::Close);
        }
    }

    /// The connection is over for the host, and its agent hears why.
    fn fail(&mut self, id: ConnectionId, error: ChannelError) {
        let Some(connection) = self.control.get_mut(id) else {
            return;
        };
        let index = connection.host;
        let event = match connection.purpose {
            Purpose::Describe { .. } => ChannelEvent::Described(Err(error)),
            Purpose::Enrol { .. } => ChannelEvent::Enrolled(Err(EnrolError::Channel(error))),
            Purpose::Sync(_) => ChannelEvent::Closed(error),
        };
        self.hang_up(id);
        self.tell_agent(index, id, event);
        self.tidy(id);
    }

    fn tell_agent(&mut self, index: HostIndex, id: ConnectionId, event: ChannelEvent) {
        let now = self.host(index).now(self.now);
        let Some(running) = &mut self.hosts[index.position()].running else {
            return;
        };
        if running.channel != Some(id) {
            return;
        }
        if matches!(event, ChannelEvent::Closed(_)) {
            running.channel = None;
        }
        running.agent.handle_channel(event, now);
        self.drive_host(index);
    }

    /// A host's daemon is gone. Without power nobody tells the coordinator.
    pub(crate) fn abandon_host_connections(&mut self, index: HostIndex) {
        let is_dark = self.host(index).is_dark;
        for id in self.control.ids() {
            let Some(connection) = self.control.get_mut(id) else {
                continue;
            };
            if connection.host != index {
                continue;
            }
            if std::mem::replace(&mut connection.is_host_open, false) && !is_dark {
                self.send_frame(id, Way::Up, Frame::Reset);
            }
            self.tidy(id);
        }
    }

    /// The coordinator's program is gone. Without power nobody tells the hosts.
    pub(crate) fn abandon_coordinator_connections(&mut self) {
        let is_dark = self.coordinator.is_dark;
        for id in self.control.ids() {
            let Some(connection) = self.control.get_mut(id) else {
                continue;
            };
            connection.session = None;
            if std::mem::replace(&mut connection.is_coordinator_open, false) && !is_dark {
                self.send_frame(id, Way::Down, Frame::Reset);
            }
            self.tidy(id);
        }
    }

    fn tidy(&mut self, id: ConnectionId) {
        let is_over = |it: &crate::control::Connection| {
            !it.is_host_open && !it.is_coordinator_open && it.taken_by.is_some()
        };
        if self.control.get(id).is_some_and(is_over) {
            self.control.remove(id);
        }
    }
}

/// What travels.
impl World {
    /// Now and then one end is of a later version than the other.
    fn perhaps_say_more(&mut self, message: &mut Vec<u8>) {
        if self.dice.chance(self.scenario.newer_per_mille) {
            say_more(message, &mut self.dice);
        }
    }

    pub(crate) fn send_frame(&mut self, id: ConnectionId, way: Way, mut frame: Frame) {
        if let Frame::Message(bytes) | Frame::Answer(Ok(bytes)) = &mut frame {
            self.perhaps_say_more(bytes);
        }
        if let (Some(tap), Frame::Message(bytes)) = (&mut self.tapped, &frame)
            && self.control.get(id).is_some_and(|it| it.host == tap.host)
        {
            tap.said.push((way, bytes.clone()));
        }
        let Some(connection) = self.control.get(id) else {
            return;
        };
        let latency = self
            .network
            .latency(Place::Host(connection.host), Place::Coordinator);
        let jitter = self
            .dice
            .between(Duration::ZERO, self.network.weather.jitter);
        // A connection needs a round trip before it carries anything, TLS another.
        let trips = if matches!(frame, Frame::Dial) { 5 } else { 1 };
        let earliest = self.now + latency * trips + jitter;
        if let Some(at) = self.control.send(id, way, frame, earliest) {
            self.queue.push(
                at,
                Event::Frame {
                    connection: id,
                    way,
                },
            );
        }
    }

    pub(crate) fn frame_arrives(&mut self, id: ConnectionId, way: Way) {
        let Some(connection) = self.control.get(id) else {
            return;
        };
        let host = Place::Host(connection.host);
        let to = match way {
            Way::Up => Place::Coordinator,
            Way::Down => host,
        };
        if !self.network.is_open(host, Place::Coordinator) || !self.is_lit(to) {
            match self.control.stall(id, self.now) {
                Some(Stall::Retry(at)) => {
                    self.queue.push(
                        at,
                        Event::Frame {
                            connection: id,
                            way,
                        },
                    );
                }
                Some(Stall::Break) => self.break_connection(id),
                None => {}
            }
            return;
        }
        self.note(Note::Frame(id, way));
        let Some(frame) = self.control.take(id, way) else {
            return;
        };
        match way {
            Way::Up => self.frame_at_coordinator(id, frame),
            Way::Down => self.frame_at_host(id, frame),
        }
        self.tidy(id);
    }

    /// Nothing came through for too long: both ends give up.
    fn break_connection(&mut self, id: ConnectionId) {
        let Some(connection) = self.control.get_mut(id) else {
            return;
        };
        let index = connection.host;
        let was_host_open = std::mem::replace(&mut connection.is_host_open, false);
        self.end_at_coordinator(id);
        let Some(connection) = self.control.get_mut(id) else {
            return;
        };
        let error = ChannelError::new(ChannelErrorKind::Interrupted, "the connection timed out");
        let event = match connection.purpose {
            Purpose::Describe { .. } => ChannelEvent::Described(Err(error)),
            Purpose::Enrol { .. } => ChannelEvent::Enrolled(Err(EnrolError::Channel(error))),
            Purpose::Sync(_) => ChannelEvent::Closed(error),
        };
        if was_host_open {
            self.tell_agent(index, id, event);
        }
        self.control.remove(id);
    }

    fn frame_at_host(&mut self, id: ConnectionId, frame: Frame) {
        let Some(connection) = self.control.get(id) else {
            return;
        };
        let (index, run) = (connection.host, connection.host_run);
        if !connection.is_host_open || !self.is_running(index, run) {
            // Who reads no more gets no answer to what it said.
            if !matches!(frame, Frame::Close | Frame::Reset) {
                self.send_frame(id, Way::Up, Frame::Reset);
            }
            return;
        }
        let Some(connection) = self.control.get_mut(id) else {
            return;
        };
        let gone = |text: &str| ChannelError::new(ChannelErrorKind::Interrupted, text);
        match frame {
            Frame::Dial => {}
            Frame::Accepted => {
                connection.is_answered = true;
                self.tell_agent(index, id, ChannelEvent::Opened);
            }
            Frame::Message(bytes) => match wire::decode_to_host(&bytes) {
                Ok(message) => self.tell_agent(index, id, ChannelEvent::Message(message)),
                Err(error) => self.violate("messages survive the wire", error.to_string()),
            },
            Frame::Answer(result) => self.answer_at_host(id, index, result),
            Frame::Rejected(error) => self.fail(id, error),
            Frame::Reset if !connection.is_answered => {
                let why = "connection refused";
                self.fail(id, ChannelError::new(ChannelErrorKind::Unreachable, why));
            }
            Frame::Reset => self.fail(id, gone("the connection was reset")),
            Frame::Close => self.fail(id, gone("the coordinator closed the connection")),
        }
    }

    fn answer_at_host(
        &mut self,
        id: ConnectionId,
        index: HostIndex,
        result: Result<Vec<u8>, Refusal>,
    ) {
        let Some(connection) = self.control.get_mut(id) else {
            return;
        };
        connection.is_answered = true;
        let event = match (&connection.purpose, result) {
            (Purpose::Describe { .. }, Ok(bytes)) => {
                wire::decode_description(&bytes).map(|it| ChannelEvent::Described(Ok(it)))
            }
            (Purpose::Enrol { .. }, Ok(bytes)) => {
                wire::decode_enrolled(&bytes).map(|it| ChannelEvent::Enrolled(Ok(it)))
            }
            (_, Err(refusal)) => Ok(ChannelEvent::Enrolled(Err(EnrolError::Refused(refusal)))),
            (Purpose::Sync(_), Ok(_)) => return,
        };
        self.hang_up(id);
        match event {
            Ok(event) => self.tell_agent(index, id, event),
            Err(error) => self.violate("messages survive the wire", error.to_string()),
        }
    }
}

/// What the coordinator's end does.
impl World {
    fn frame_at_coordinator(&mut self, id: ConnectionId, frame: Frame) {
        let run = self.coordinator.running.as_ref().map(|steward| steward.run);
        let Some(connection) = self.control.get_mut(id) else {
            return;
        };
        let is_ours = run.is_some() && connection.taken_by == run && connection.is_coordinator_open;
        match frame {
            Frame::Dial if run.is_some() => {
                connection.taken_by = run;
                connection.is_coordinator_open = true;
                self.take_call(id);
            }
            Frame::Message(bytes) if is_ours => match wire::decode_from_host(&bytes) {
                Ok(message) => self.hear_host(id, message),
                Err(error) => self.violate("messages survive the wire", error.to_string()),
            },
            Frame::Close | Frame::Reset => {
                connection.taken_by.get_or_insert_default();
                self.end_at_coordinator(id);
            }
            _ => {
                connection.taken_by.get_or_insert_default();
                self.send_frame(id, Way::Down, Frame::Reset);
            }
        }
    }

    fn take_call(&mut self, id: ConnectionId) {
        let Some(connection) = self.control.get(id) else {
            return;
        };
        let host = self.host(connection.host);
        let host_clock = host.now(self.now).unix;
        let from = self.network.outside(host.index, host.home);
        let now = self.coordinator.now(self.now);
        if let Err(error) = host_believes(&connection.purpose, &self.coordinator.chain, host_clock)
        {
            return self.send_frame(id, Way::Down, Frame::Rejected(error));
        }
        match &connection.purpose {
            Purpose::Describe { .. } => {
                let steward = self.coordinator.running.as_ref().expect("it takes calls");
                let answer = wire::encode_description(&steward.fleet.describe(now));
                self.send_frame(id, Way::Down, Frame::Answer(Ok(answer)));
            }
            Purpose::Enrol { request, .. } => {
                let request = (**request).clone();
                let number = self.coordinator.new_request();
                let steward = self.coordinator.running.as_mut().expect("it takes calls");
                steward.enrolments.insert(number, id);
                steward.fleet.handle_enrol(number, request, from, now);
                self.drive_coordinator();
            }
            Purpose::Sync(identity) => {
                let roots = &self.coordinator.roots;
                let peer = match coordinator_believes(&identity.chain, roots, now.unix) {
                    Ok(peer) => peer,
                    Err(error) => return self.send_frame(id, Way::Down, Frame::Rejected(error)),
                };
                let session = self.coordinator.new_session();
                self.send_frame(id, Way::Down, Frame::Accepted);
                self.control
                    .get_mut(id)
                    .expect("it was there just now")
                    .session = Some(session);
                let steward = self.coordinator.running.as_mut().expect("it takes calls");
                steward.sessions.insert(session, id);
                steward
                    .fleet
                    .handle_session_opened(session, peer, Some(from), now);
                self.drive_coordinator();
            }
        }
    }

    fn hear_host(&mut self, id: ConnectionId, message: FromHost) {
        let now = self.coordinator.now(self.now);
        let session = self
            .control
            .get(id)
            .and_then(|connection| connection.session);
        if let (Some(session), Some(steward)) = (session, &mut self.coordinator.running) {
            steward.fleet.handle_session_message(session, message, now);
            self.drive_coordinator();
        }
    }

    /// The connection is over for the coordinator.
    pub(crate) fn end_at_coordinator(&mut self, id: ConnectionId) {
        let now = self.coordinator.now(self.now);
        let Some(connection) = self.control.get_mut(id) else {
            return;
        };
        connection.is_coordinator_open = false;
        let Some(session) = connection.session.take() else {
            return;
        };
        if let Some(steward) = &mut self.coordinator.running
            && steward.sessions.remove(&session).is_some()
        {
            steward.fleet.handle_session_closed(session, now);
            self.drive_coordinator();
        }
    }
}
