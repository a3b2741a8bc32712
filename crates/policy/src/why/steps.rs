//! How much work one question may be.

/// What is left of it: one step is a condition of a rule looked at for one caller, or held against one
/// of another rule.
pub(super) struct Steps(usize);

impl Steps {
    /// For one question. Whoever answers it does nothing else meanwhile, and a step takes up to some
    /// tenths of a microsecond: less than a second in all, where 100,000 rules could take hours.
    const ALL: usize = 2_000_000;

    /// Returns what each of several endpoints may take.
    pub(super) fn share(endpoints: usize) -> Self {
        Self(Self::ALL / endpoints.max(1))
    }

    /// Takes as many as it is to do something with each of these for each of those; returns whether
    /// there were so many. If not, less may still be done.
    pub(super) fn take(&mut self, these: usize, those: usize) -> bool {
        let left = self.0.checked_sub(these.saturating_mul(those));
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }
}
