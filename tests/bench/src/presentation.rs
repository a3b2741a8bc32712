//! How a bench shows what it measured: which tables, which pictures, which aims.

use crate::aims::Aim;

/// What differs from bench to bench in what is shown.
pub(crate) struct Presentation<K: 'static> {
    /// The page that says what the figures mean.
    pub(crate) page: &'static str,
    /// What is told of each contender beside its name.
    pub(crate) facts: &'static [&'static str],
    /// What each table is about, and its columns.
    pub(crate) tables: &'static [(&'static str, &'static [K])],
    /// Each panel of the picture: what it shows, and which way is good.
    pub(crate) panels: &'static [(K, &'static str)],
    /// Whose bars may be cut, so that they do not make all others short.
    pub(crate) beyond_compare: &'static str,
    /// What is to be reached.
    pub(crate) aims: &'static [Aim<K>],
}

/// What a row begins with.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// As many as the presentation has heads for.
    pub(crate) facts: Vec<String>,
}

impl<K> Clone for Presentation<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Presentation<K> {}
