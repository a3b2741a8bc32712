//! What hosts remember, as they tell it.

use super::{WireError, field, generated};
use crate::limits::Limits;
use crate::memory::Memory;

impl From<Memory> for generated::Memory {
    fn from(memory: Memory) -> Self {
        Self {
            trust: Some(memory.trust.into()),
            record: Some(memory.record.into()),
            records: memory.records.into_iter().map(Into::into).collect(),
            tombstones: memory.tombstones.into_iter().map(Into::into).collect(),
            policy: memory.policy.map(Into::into),
            last: memory.last,
        }
    }
}

impl TryFrom<generated::Memory> for Memory {
    type Error = WireError;

    fn try_from(message: generated::Memory) -> Result<Self, WireError> {
        Ok(Self {
            trust: field::required("Memory.trust", message.trust)?.try_into()?,
            record: field::required("Memory.record", message.record)?.try_into()?,
            records: field::list(
                "Memory.records",
                message.records,
                Limits::HOSTS,
                TryInto::try_into,
            )?,
            tombstones: field::list(
                "Memory.tombstones",
                message.tombstones,
                Limits::HOSTS,
                TryInto::try_into,
            )?,
            policy: message.policy.map(TryInto::try_into).transpose()?,
            last: message.last,
        })
    }
}
