//! Loads, and what they cost a server.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::server::Server;

/// For a server to see the end of the last connections before its clock is read.
const SETTLE: Duration = Duration::from_millis(100);

/// CPU of the server per piece of work, in milliseconds. `at_once` pieces are in progress at a time.
pub(crate) async fn cpu_each<W>(server: &Server, at_once: usize, work: Vec<W>) -> anyhow::Result<f64>
where
    W: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let count = f64::from(u32::try_from(work.len())?);
    let before = server.cpu_ms()?;
    do_all(at_once, work).await?;
    tokio::time::sleep(SETTLE).await;
    Ok((server.cpu_ms()? - before) / count)
}

/// Does everything; the results are in no order.
pub(crate) async fn do_all<W, T>(at_once: usize, work: Vec<W>) -> anyhow::Result<Vec<T>>
where
    W: Future<Output = anyhow::Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let queue = Arc::new(Mutex::new(work.into_iter()));
    let mut workers = JoinSet::new();
    for _ in 0..at_once {
        let queue = Arc::clone(&queue);
        workers.spawn(async move {
            let mut done = Vec::new();
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(work) = next else { return anyhow::Ok(done) };
                done.push(work.await?);
            }
        });
    }
    let mut done = Vec::new();
    while let Some(finished) = workers.join_next().await {
        done.extend(finished??);
    }
    Ok(done)
}
