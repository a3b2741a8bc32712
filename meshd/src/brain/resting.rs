//! While another daemon takes over, the brain rests: it writes nothing, so that the files have one
//! writer, answers what only asks, and keeps the rest until the other one serves or has failed.

use super::{Answer, Brain, Input};

/// Inputs that are kept for later. Whoever asks for more while the brain rests is told that the daemon
/// stops, as it is about to.
const INPUTS_MAX: usize = 4096;

/// What waits while the brain rests.
#[derive(Default)]
pub(super) struct Resting {
    /// Told once the disk has all that was to be written.
    granted: Option<Answer<Result<(), String>>>,
    /// To be handled when the other daemon has failed.
    inputs: Vec<Input>,
}

/// What the brain does next.
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, and it is moved once"
)]
pub(super) enum Next {
    /// It handles this as always.
    Handle(Input),
    /// It waits.
    Wait,
    /// It leaves everything to another daemon.
    Vanish(Answer<()>),
}

impl Brain {
    /// Takes what is told, in view of whether the brain rests.
    pub(super) async fn sift(&mut self, input: Input) -> Next {
        match (input, &mut self.resting) {
            (Input::Rest(answer), _) => {
                self.rest(answer);
                Next::Wait
            }
            (Input::Resume, _) => {
                self.resume().await;
                Next::Wait
            }
            (Input::Vanish(done), _) => {
                // The coordinator sees this host's channel end before another one begins.
                self.channel = None;
                self.around.overlay.vanish().await;
                Next::Vanish(done)
            }
            (input, Some(resting)) if !input.only_asks() => {
                if resting.inputs.len() < INPUTS_MAX {
                    resting.inputs.push(input);
                }
                Next::Wait
            }
            (input, _) => Next::Handle(input),
        }
    }

    fn rest(&mut self, answer: Answer<Result<(), String>>) {
        if self.requests.is_any_open() {
            let why =
                "a join, a leave or a change of the key is under way; try again when it is done";
            let _ = answer.send(Err(why.to_owned()));
            return;
        }
        self.resting = Some(Resting {
            granted: Some(answer),
            inputs: Vec::new(),
        });
        // The other daemon begins with what the disk has; it is granted once that is all.
        self.agent.write_what_waits();
    }

    /// Tells that the files are still, once they are.
    pub(super) fn grant_rest(&mut self) {
        let is_idle = self.disk.is_idle();
        let waiting = self.resting.as_mut().filter(|_| is_idle);
        if let Some(answer) = waiting.and_then(|resting| resting.granted.take()) {
            let _ = answer.send(Ok(()));
        }
    }

    async fn resume(&mut self) {
        let Some(resting) = self.resting.take() else {
            return;
        };
        for input in resting.inputs {
            match input {
                Input::Reload(settings) => self.reload(settings).await,
                input => self.handle(input),
            }
        }
    }
}

impl Input {
    /// Whether it changes nothing, and may be answered by a brain that rests. Stopping may always be
    /// asked for.
    fn only_asks(&self) -> bool {
        match self {
            Self::Status(_)
            | Self::Summary(_)
            | Self::Figures(_)
            | Self::Peers(_)
            | Self::Why(..)
            | Self::Services(_)
            | Self::Drops(_)
            | Self::OwnAddresses(_)
            | Self::Resolve(..)
            | Self::Stop(..) => true,
            Self::Join(..)
            | Self::Leave(_)
            | Self::RotateKey(_)
            | Self::Explained(..)
            | Self::Channel(..)
            | Self::Interfaces(_)
            | Self::Reload(_)
            | Self::Rest(_)
            | Self::Resume
            | Self::Vanish(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn what_a_scrape_asks_is_answered_meanwhile_and_what_changes_something_waits() {
        assert!(Input::Figures(oneshot::channel().0).only_asks());
        assert!(Input::Summary(oneshot::channel().0).only_asks());
        assert!(!Input::Leave(oneshot::channel().0).only_asks());
        assert!(!Input::Interfaces(Vec::new()).only_asks());
    }
}
