//! Waiting for what tells nobody that it has happened.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Looks every two milliseconds until there is something; how long that took.
///
/// # Errors
/// When `look` fails, or finds nothing within `limit`: then `what` did not happen.
pub fn until<T>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<(T, Duration)> {
    let since = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok((found, since.elapsed()));
        }
        if since.elapsed() > limit {
            bail!("Waited {limit:?} in vain: {what}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
