//! The tasks and threads of the process; one that ends early stops it.

use std::future::Future;

use anyhow::{Context, anyhow};
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What keeps hold of everything that runs.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    ended: mpsc::Sender<anyhow::Error>,
}

/// Where the first early end is told.
#[derive(Debug)]
pub struct Ended(mpsc::Receiver<anyhow::Error>);

impl Ended {
    /// Waits until something that should have gone on has ended, and returns why.
    pub async fn early(&mut self) -> anyhow::Error {
        match self.0.recv().await {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }
}

impl Tasks {
    /// Makes an empty set.
    pub fn new() -> (Self, Ended) {
        let (ended, early) = mpsc::channel(16);
        (Self { tracker: TaskTracker::new(), stop: CancellationToken::new(), ended }, Ended(early))
    }

    /// Returns the token that tells tasks to end.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Runs a required task: if it ends before it was told to, the process stops.
    pub fn task(&self, name: &'static str, work: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let (ended, stop) = (self.ended.clone(), self.stop.clone());
        let work = self.tracker.spawn(work);
        self.tracker.spawn(async move {
            let result = work.await.context("it panicked").and_then(|result| result);
            tell(name, result, &stop, &ended);
        });
    }

    /// Runs a required thread: if it ends before it was told to, the process stops.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn thread(
        &self,
        name: &'static str,
        work: impl FnOnce(CancellationToken) -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let (done, finished) = oneshot::channel();
        let stop = self.stop.clone();
        std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(STACK)
            .spawn(move || {
                // A panic drops the sender, which is told below.
                let result = work(stop);
                let _ = done.send(result);
            })
            .with_context(|| format!("cannot start the thread {name}"))?;
        let (ended, stop) = (self.ended.clone(), self.stop.clone());
        self.tracker.spawn(async move {
            let result = finished.await.context("it panicked").and_then(|result| result);
            tell(name, result, &stop, &ended);
        });
        Ok(())
    }

    /// Tells everything to end and waits until it has.
    pub async fn finish(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Stack of our own threads; they keep nothing large on it.
const STACK: usize = 512 << 10;

fn tell(name: &str, result: anyhow::Result<()>, stop: &CancellationToken, ended: &mpsc::Sender<anyhow::Error>) {
    match result {
        Err(error) if stop.is_cancelled() => tracing::warn!(name, error = format!("{error:#}"), "ended with an error"),
        Ok(()) if stop.is_cancelled() => {}
        Err(error) => drop(ended.try_send(error.context(format!("{name} failed")))),
        Ok(()) => drop(ended.try_send(anyhow!("{name} ended by itself"))),
    }
}

#[cfg(test)]
mod tests {
    use super::Tasks;

    #[tokio::test]
    async fn a_task_that_ends_early_is_told_with_its_name() {
        let (tasks, mut ended) = Tasks::new();
        tasks.task("reader", async { anyhow::bail!("no more input") });
        assert_eq!(format!("{:#}", ended.early().await), "reader failed: no more input");
    }

    #[tokio::test]
    async fn a_thread_that_panics_or_returns_is_told() {
        let (tasks, mut ended) = Tasks::new();
        tasks.thread("counter", |_| panic!("on purpose")).unwrap();
        assert!(format!("{:#}", ended.early().await).starts_with("counter failed: it panicked"));
        tasks.thread("quiet", |_| Ok(())).unwrap();
        assert_eq!(ended.early().await.to_string(), "quiet ended by itself");
    }

    #[tokio::test]
    async fn ending_when_told_is_no_failure() {
        let (tasks, mut ended) = Tasks::new();
        let stop = tasks.stop().clone();
        tasks.task("server", async move {
            stop.cancelled().await;
            Ok(())
        });
        tasks.finish().await;
        assert!(ended.0.try_recv().is_err());
    }
}
