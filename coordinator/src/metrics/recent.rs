//! What the brain said of itself last: kept for a moment, so that whoever asks for pages all the time,
//! or a hundred at a time, costs it no more than one who asks each second.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// How long an answer is good for. Scrapes are seconds apart.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// The last answer.
pub(crate) struct Recent<T> {
    /// And when it was asked for. Held while the next is waited for, so that one asks for all.
    kept: Mutex<Option<(Instant, T)>>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self {
            kept: Mutex::new(None),
        }
    }
}

impl<T: Clone> Recent<T> {
    /// Returns the last answer while it is good; asks for another else. `None`: there is none.
    pub(crate) async fn get(
        &self,
        clock: impl Fn() -> Instant,
        ask: impl Future<Output = Option<T>>,
    ) -> Option<T> {
        let mut kept = self.kept.lock().await;
        let now = clock();
        if let Some((asked, answer)) = &*kept
            && now.saturating_duration_since(*asked) < GOOD_FOR
        {
            return Some(answer.clone());
        }
        let answer = ask.await?;
        *kept = Some((now, answer.clone()));
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Counts how often it is asked.
    #[derive(Default)]
    struct Brain {
        asked: Cell<u32>,
        is_stopping: Cell<bool>,
    }

    impl Brain {
        async fn answer(&self) -> Option<u32> {
            self.asked.set(self.asked.get() + 1);
            tokio::task::yield_now().await;
            (!self.is_stopping.get()).then_some(self.asked.get())
        }
    }

    #[tokio::test]
    async fn a_loop_of_scrapes_asks_once_a_second() {
        let (recent, brain, start) = (Recent::default(), Brain::default(), Instant::now());
        let at = |millis| move || start + Duration::from_millis(millis);
        for millis in 0..1000 {
            assert_eq!(recent.get(at(millis), brain.answer()).await, Some(1));
        }
        assert_eq!(recent.get(at(1000), brain.answer()).await, Some(2));
        assert_eq!(recent.get(at(1999), brain.answer()).await, Some(2));
        assert_eq!(brain.asked.get(), 2);
    }

    #[tokio::test]
    async fn scrapes_at_the_same_time_share_an_answer() {
        let (recent, brain, now) = (Recent::default(), Brain::default(), Instant::now());
        let get = || recent.get(|| now, brain.answer());
        assert_eq!(
            tokio::join!(get(), get(), get()),
            (Some(1), Some(1), Some(1))
        );
        assert_eq!(brain.asked.get(), 1);
    }

    #[tokio::test]
    async fn what_was_not_answered_is_asked_again() {
        let (recent, brain, now) = (Recent::default(), Brain::default(), Instant::now());
        brain.is_stopping.set(true);
        assert_eq!(recent.get(|| now, brain.answer()).await, None);
        brain.is_stopping.set(false);
        assert_eq!(recent.get(|| now, brain.answer()).await, Some(2));
    }
}
