//! What an operator should look at: conditions that hold until they are over. Each is told once
//! when it arises and once when it ends.

use std::collections::BTreeMap;

use crate::output::{Outputs, StateFile};

/// A condition that an operator should look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AlarmKind {
    /// What the disk had could not be used.
    StoredState,
    /// A file of the state directory cannot be written.
    Disk(StateFile),
    /// The coordinator sent a map that this host does not accept.
    Map,
    /// The coordinator's trust statement does not hold.
    Trust,
    /// The certificate is about to expire, or did.
    Certificate,
    /// The clock differs from the coordinator's.
    Clock,
    /// The coordinator does not accept this host, or is not who it should be.
    Coordinator,
}

/// The alarms that stand.
#[derive(Debug, Default)]
pub(crate) struct Alarms(BTreeMap<AlarmKind, String>);

impl Alarms {
    /// Raises an alarm, or gives one that stands a new text without telling it again.
    pub(crate) fn raise(&mut self, kind: AlarmKind, message: String, out: &mut Outputs) {
        if self.0.insert(kind, message.clone()).is_none() {
            out.error(message);
        }
    }

    /// Ends an alarm.
    pub(crate) fn clear(&mut self, kind: AlarmKind, out: &mut Outputs) {
        if let Some(message) = self.0.remove(&kind) {
            // What to do about it is over too.
            let trouble = message.split_once("; ").map_or(&*message, |(what, _)| what);
            out.info(format!("over: {trouble}"));
        }
    }

    pub(crate) fn clear_all(&mut self) {
        self.0.clear();
    }

    pub(crate) fn messages(&self) -> Vec<String> {
        self.0.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Output;

    #[test]
    fn what_is_over_asks_nobody_to_do_anything() {
        let (mut alarms, mut out) = (Alarms::default(), Outputs::default());
        let message = "cannot write the map: No space left; free some space".to_owned();
        alarms.raise(AlarmKind::Map, message, &mut out);
        out.pop();
        alarms.clear(AlarmKind::Map, &mut out);
        let Some(Output::Notice { message, .. }) = out.pop() else {
            panic!("the end is not told")
        };
        assert_eq!(message, "over: cannot write the map: No space left");
    }

    #[test]
    fn an_alarm_is_told_once_when_it_arises_and_once_when_it_ends() {
        let (mut alarms, mut out) = (Alarms::default(), Outputs::default());
        for attempt in 0..3 {
            alarms.raise(AlarmKind::Map, format!("attempt {attempt}"), &mut out);
        }
        assert_eq!(alarms.messages(), ["attempt 2"]);
        alarms.clear(AlarmKind::Map, &mut out);
        alarms.clear(AlarmKind::Map, &mut out);
        let told = std::iter::from_fn(|| out.pop()).filter(|o| matches!(o, Output::Notice { .. }));
        assert_eq!(told.count(), 2);
    }
}
