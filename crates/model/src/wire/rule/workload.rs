//! Workloads.

use crate::rule::{UnitPattern, UserName, Workload};
use crate::wire::{WireError, field, generated};

impl From<Workload> for generated::Workload {
    fn from(workload: Workload) -> Self {
        Self {
            name: workload.name.into(),
            unit: workload.unit.map(String::from).unwrap_or_default(),
            user: workload.user.map(String::from).unwrap_or_default(),
            hosts: workload.hosts.into_iter().map(Into::into).collect(),
            source: Some(workload.source.into()),
        }
    }
}

impl TryFrom<generated::Workload> for Workload {
    type Error = WireError;

    fn try_from(message: generated::Workload) -> Result<Self, WireError> {
        let unit: Option<UnitPattern> = field::optional("Workload.unit", &message.unit)?;
        let user: Option<UserName> = field::optional("Workload.user", &message.user)?;
        if unit.is_none() && user.is_none() {
            let why = "it has neither unit nor user: any process would be it";
            return Err(WireError::new("Workload.unit", why));
        }
        Ok(Self {
            name: field::parsed("Workload.name", &message.name)?,
            unit,
            user,
            hosts: super::hosts("Workload.hosts", message.hosts)?,
            source: field::required("Workload.source", message.source)?.try_into()?,
        })
    }
}
