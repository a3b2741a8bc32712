//! What people see while a command waits: that it still goes on, and for how long.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, interval};

use crate::output::{Output, span};

/// How often it is said that something still goes on.
const INTERVAL: Duration = Duration::from_secs(5);

/// Waits for some work. On a terminal it says what is waited for, at once and now and then.
pub async fn while_working<T>(output: &Output, what: &str, work: impl Future<Output = T>) -> T {
    said_while_working(what, INTERVAL, work, |text| output.progress(&text)).await
}

async fn said_while_working<T>(
    what: &str,
    every: Duration,
    work: impl Future<Output = T>,
    mut say: impl FnMut(String),
) -> T {
    let mut work = pin!(work);
    let started = Instant::now();
    let mut ticks = interval(every);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => match started.elapsed().as_secs() {
                0 => say(format!("{what} …")),
                secs => say(format!("{what} … {}", span(secs))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn long_work_says_that_it_goes_on() {
        let (mut said, noticed) = (Vec::new(), Semaphore::new(0));
        let work = async {
            // Ends when it was said three times that it goes on.
            let third = noticed.acquire_many(3).await;
            third.is_ok()
        };
        let say = |text| {
            said.push(text);
            noticed.add_permits(1);
        };
        assert!(said_while_working("joining", Duration::from_millis(1), work, say).await);
        assert!(said.len() >= 3);
        assert_eq!(said[0], "joining …");
    }
}
