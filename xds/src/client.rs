//! The delta ADS client: keeps a stream to the control plane open and the cache as that says.

mod backoff;
mod connection;
mod failure;
mod requests;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cache::Cache;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval_at, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    address::Address,
    client::{backoff::Backoff, connection::Incoming, failure::Failure},
    framing::{Framing, Part},
    node::Identity,
    proto::discovery::DeltaDiscoveryRequest,
    session::Session,
    status::Status,
};

/// How to reach the control plane, and as whom.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it is.
    pub address: Address,
    /// Certificates, in PEM, one of which must have signed its certificate; read at each connect. Of no use with `http://`.
    pub root_ca: PathBuf,
    /// A file with the token that says who we are; read at each connect. `None` sends none, and `http://` never does.
    pub token: Option<PathBuf>,
    /// Who we are.
    pub identity: Identity,
    /// How long things may take.
    pub timing: Timing,
}

/// How long things may take.
#[derive(Clone, Debug)]
pub struct Timing {
    /// To open a connection, encryption included.
    pub connect: Duration,
    /// Until the first response; when it is over that is logged, and waiting goes on.
    pub silence: Duration,
    /// Between two signs of life asked of the control plane.
    pub keep_alive: Duration,
    /// For the answer to that; without one the connection is given up.
    pub keep_alive_timeout: Duration,
    /// Before the first attempt to connect again.
    pub backoff_min: Duration,
    /// Before any such attempt, at most. A stream that has lasted as long is healthy: after it the wait is the shortest again.
    pub backoff_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            silence: Duration::from_secs(30),
            keep_alive: Duration::from_secs(30),
            keep_alive_timeout: Duration::from_secs(10),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(15),
        }
    }
}

/// The same failure is not logged again within this time.
const REPEAT: Duration = Duration::from_secs(60);
/// Complaints about resources are logged at most this often.
const COMPLAINTS: Duration = Duration::from_secs(5);
/// More often than every 5 minutes is what gRPC's Go server, left as it is, does not take.
const LENIENT: Duration = Duration::from_secs(330);
/// Requests that wait to be sent, at most.
const QUEUE: usize = 256;
/// The largest resource that is taken, in bytes.
const LARGEST_RESOURCE: usize = 4 << 20;

/// Keeps the cache as the control plane says, until `shutdown`. While there is no connection the last state stays.
pub async fn run(config: Config, cache: Arc<Cache>, status: Arc<Status>, shutdown: CancellationToken) {
    cache.set_source("istiod");
    let mut client = Client {
        session: Session::new(cache.clone(), status.clone()),
        keep_alive: config.timing.keep_alive,
        heard: Instant::now(),
        complained: None,
        config,
        cache,
        status: status.clone(),
    };
    shutdown.run_until_cancelled(client.keep_connected()).await;
    status.stopped();
}

struct Client {
    config: Config,
    session: Session,
    cache: Arc<Cache>,
    status: Arc<Status>,
    /// Longer than configured if the server seems to find that too often.
    keep_alive: Duration,
    /// When the server was last heard.
    heard: Instant,
    /// When a complaint was logged last.
    complained: Option<Instant>,
}

impl Client {
    async fn keep_connected(&mut self) {
        let Timing { backoff_min, backoff_max, .. } = self.config.timing;
        let mut backoff = Backoff::new(backoff_min, backoff_max);
        let mut logged: Option<(String, Instant)> = None;
        loop {
            let start = Instant::now();
            let failure = match self.converse().await {
                Err(failure) => failure,
                Ok(never) => match never {},
            };
            if self.session.is_current() && start.elapsed() >= backoff_max {
                backoff.reset();
            }
            let wait = backoff.next();
            let (why, key) = (failure.to_string(), failure.key());
            let repeated = logged.as_ref().is_some_and(|(last, at)| *last == key && at.elapsed() < REPEAT);
            self.tell(&why, wait, repeated);
            if !repeated {
                logged = Some((key, Instant::now()));
            }
            self.learn(&failure);
            self.status.ended(why);
            tokio::time::sleep(wait).await;
        }
    }

    fn tell(&self, why: &str, wait: Duration, repeated: bool) {
        let address = &self.config.address;
        if repeated {
            debug!("control plane {address}: {why}; trying again in {wait:?}");
        } else if self.status.is_synced() {
            let (workloads, services) = (self.cache.load().workload_count(), self.cache.load().service_count());
            warn!(
                "control plane {address}: {why}; keeping {workloads} workloads and {services} services, trying again in {wait:?}"
            );
        } else {
            warn!("control plane {address}: {why}; trying again in {wait:?}");
        }
    }

    /// Does the next stream differently if that is what the failure asks for.
    fn learn(&mut self, failure: &Failure) {
        if failure.is_too_long() {
            self.session.request_refused();
        }
        // A server that finds this too often says so in a frame that HTTP/2 here keeps to itself, and cuts the connection on the
        // spot, having taken some.
        let (silent, period) = (self.heard.elapsed(), self.keep_alive);
        let on_the_spot =
            silent > 3 * period && silent.as_secs_f64() % period.as_secs_f64() < period.as_secs_f64() / 4.0;
        if failure.is_cut() && on_the_spot {
            self.keep_alive = if period < LENIENT { LENIENT } else { 2 * period };
            info!("it was cut when asked for a sign of life; that is done every {:?} from now on", self.keep_alive);
        }
    }

    /// Opens a stream and follows it to its end.
    async fn converse(&mut self) -> Result<std::convert::Infallible, Failure> {
        let (requests, queue) = mpsc::channel(QUEUE);
        let answer = connection::open(&self.config, self.keep_alive, queue).await?;
        self.status.opened();
        self.heard = Instant::now();
        for request in self.session.begin(&self.config.identity) {
            send(&requests, &request)?;
        }
        let mut incoming = self.await_answer(answer).await?;
        // Not before: one that refuses each stream is told of by its refusals.
        info!("connected to the control plane at {}", self.config.address);
        let mut framing = Framing::new(LARGEST_RESOURCE);
        let often = self.config.timing.keep_alive;
        let mut confirm = interval_at(tokio::time::Instant::now() + often, often);
        confirm.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                chunk = incoming.chunk() => {
                    framing.push(chunk?);
                    self.heard = Instant::now();
                }
                _ = confirm.tick() => {
                    if self.session.is_current() {
                        self.cache.confirm();
                    }
                }
            }
            while let Some(part) = framing.next()? {
                match part {
                    Part::Field(number, content) => self.session.field(number, content),
                    Part::End(bytes) => {
                        let reply = self.session.finish(bytes, Instant::now());
                        if let Some(detail) = &reply.error_detail {
                            self.complain(&detail.message);
                        }
                        send(&requests, &reply)?;
                    }
                }
            }
        }
    }

    async fn await_answer(&self, answer: impl Future<Output = Result<Incoming, Failure>>) -> Result<Incoming, Failure> {
        let silence = self.config.timing.silence;
        let mut answer = std::pin::pin!(answer);
        match timeout(silence, &mut answer).await {
            Ok(answer) => answer,
            Err(_) => {
                warn!("control plane {}: no response for {silence:?}; still waiting", self.config.address);
                answer.await
            }
        }
    }

    fn complain(&mut self, message: &str) {
        if self.complained.is_none_or(|at| at.elapsed() >= COMPLAINTS) {
            self.complained = Some(Instant::now());
            warn!("control plane {}: {}", self.config.address, message.escape_debug());
        } else {
            debug!("control plane {}: {}", self.config.address, message.escape_debug());
        }
    }
}

fn send(requests: &mpsc::Sender<Bytes>, request: &DeltaDiscoveryRequest) -> Result<(), Failure> {
    match requests.try_send(requests::encode(request)) {
        Err(mpsc::error::TrySendError::Full(_)) => Err(Failure::Lost(format!("it has left {QUEUE} requests unread"))),
        // If the stream is over, reading from it tells why.
        Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
    }
}
