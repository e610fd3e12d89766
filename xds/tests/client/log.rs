//! What a test's thread logs.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::plane::PATIENCE;

/// Log lines of this test's thread.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Collects from now on, as long as the guard is held.
    pub(crate) fn capture(&self) -> tracing::subscriber::DefaultGuard {
        self.capture_from(tracing::Level::INFO)
    }

    /// Collects this level and those above it, of libraries too.
    pub(crate) fn capture_from(&self, level: tracing::Level) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let subscriber =
            tracing_subscriber::fmt().with_max_level(level).with_ansi(false).with_writer(move || log.clone());
        tracing::subscriber::set_default(subscriber.finish())
    }

    /// Returns the lines with a text in them, such as a level.
    pub(crate) fn lines(&self, text: &str) -> Vec<String> {
        let all = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        all.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }

    /// Waits for a line with a text in it.
    pub(crate) async fn until(&self, text: &str) {
        let wait = async {
            while self.lines(text).is_empty() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("not logged: {text}; but {:?}", self.lines("")));
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
