//! The coordinators that a client may ask: any of them answers, so one is asked for as long as it can be reached.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sagitta_env::Env;
use sagitta_model::{ErrorKind, Violation};
use sagitta_tls::Connector;
use sagitta_wire::v1::cluster_service_client::ClusterServiceClient;
use sagitta_wire::v1::collection_service_client::CollectionServiceClient;
use sagitta_wire::v1::point_service_client::PointServiceClient;
use sagitta_wire::v1::search_service_client::SearchServiceClient;
use sagitta_wire::{Failure, reason};

use crate::config::ClientConfig;
use crate::dial::Dial;
use crate::endpoint::{Address, Calls, violation};
use crate::error::{ClientError, Unreached};

/// More coordinators than a cluster has.
const MOST: usize = 16;
/// Where there are others to ask, one that answers no ping for so long is gone.
const SILENCE: Duration = Duration::from_secs(3);

/// Where calls may go. Shared by the clones of a client, so that all of them leave an endpoint that is gone.
#[derive(Debug)]
pub(crate) struct Endpoints {
    lines: Vec<Line>,
    /// The one that is asked now.
    at: AtomicUsize,
}

/// One endpoint. Connects when it is first used.
#[derive(Debug)]
pub(crate) struct Line {
    address: String,
    pub(crate) cluster: ClusterServiceClient<Calls>,
    pub(crate) collections: CollectionServiceClient<Calls>,
    pub(crate) points: PointServiceClient<Calls>,
    pub(crate) searches: SearchServiceClient<Calls>,
}

/// What came of the endpoints that one call, or one upload, has tried.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    failed: Vec<Unreached>,
    /// Why the latest attempt failed that had the time to.
    told: Option<String>,
}

impl Endpoints {
    /// The endpoints of a configuration, separated by commas.
    pub(crate) fn new(env: &Env, config: &ClientConfig, network: Option<Arc<dyn Dial>>) -> Result<Self, ClientError> {
        let refused = |reason: String| ClientError::unsent(Violation::new("endpoint", reason));
        let mut addresses: Vec<Address> = Vec::new();
        for text in config.endpoint.split(',') {
            let address = Address::parse(text.trim(), &config.tls).map_err(ClientError::unsent)?;
            // The same one twice would be tried twice for nothing.
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.len() > MOST {
            return Err(refused(format!("names {} endpoints, at most {MOST} are allowed", addresses.len())));
        }
        let keepalive = if addresses.len() > 1 { config.keepalive.min(SILENCE) } else { config.keepalive };
        let config = ClientConfig { keepalive, ..config.clone() };
        let encrypted = addresses.iter().any(|address| address.encrypted);
        let tls = encrypted.then(|| Connector::new(config.tls.clone(), env)).transpose();
        let tls = tls.map_err(|error| ClientError::unsent(violation(error.setting, error.why)))?;
        let line = |address| Line::new(address, &config, network.clone(), tls.as_ref());
        let lines = addresses.iter().map(line).collect::<Result<_, _>>()?;
        Ok(Self { lines, at: AtomicUsize::new(0) })
    }

    /// Which one is asked now.
    pub(crate) fn at(&self) -> usize {
        self.at.load(Ordering::Relaxed)
    }

    /// The one that is asked now.
    pub(crate) fn line(&self) -> &Line {
        &self.lines[self.at()]
    }

    /// Its address.
    pub(crate) fn address(&self) -> &str {
        &self.line().address
    }

    /// Takes note that one has failed, and goes on to the next one if it seems to be gone. True if that one was not tried yet.
    pub(crate) fn failed(&self, at: usize, failure: &Failure, tried: &mut Tried) -> bool {
        if failure.reason != reason::DEADLINE_EXCEEDED {
            tried.told = Some(failure.message.clone());
        }
        if failure.kind != ErrorKind::Unavailable || self.lines.len() == 1 {
            return false;
        }
        tried.note(&self.lines[at].address, failure);
        let next = (at + 1) % self.lines.len();
        // Whoever was asked at the same time may have gone on already.
        let _ = self.at.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
        !tried.has(self.address())
    }
}

impl Line {
    fn new(
        address: &Address,
        config: &ClientConfig,
        network: Option<Arc<dyn Dial>>,
        tls: Option<&Connector>,
    ) -> Result<Self, ClientError> {
        let calls = address.calls(config, network, tls)?;
        let bytes = config.max_message_bytes;
        Ok(Self {
            address: address.to_string(),
            cluster: ClusterServiceClient::new(calls.clone()).max_decoding_message_size(bytes),
            collections: CollectionServiceClient::new(calls.clone()).max_decoding_message_size(bytes),
            points: PointServiceClient::new(calls.clone())
                .max_decoding_message_size(bytes)
                .max_encoding_message_size(bytes),
            searches: SearchServiceClient::new(calls).max_decoding_message_size(bytes).max_encoding_message_size(bytes),
        })
    }
}

impl Tried {
    fn has(&self, address: &str) -> bool {
        self.failed.iter().any(|failed| failed.endpoint == address)
    }

    fn note(&mut self, address: &str, failure: &Failure) {
        let why = match &*failure.reason {
            reason::DEADLINE_EXCEEDED => "no answer in time".to_owned(),
            _ => failure.message.clone(),
        };
        self.failed.retain(|failed| failed.endpoint != address);
        self.failed.push(Unreached { endpoint: address.to_owned(), why });
    }

    /// The error of a call that was given up. Its last attempt may have had no time for an answer; then what an earlier one was told
    /// says more.
    pub(crate) fn into_error(self, failure: Failure, attempts: u32) -> ClientError {
        let mut error = ClientError::new(failure, attempts);
        if let Some(told) = self.told.filter(|_| error.reason == reason::DEADLINE_EXCEEDED) {
            error.message = format!("{}; an attempt before failed: {told}", error.message);
            error.told_before = Some(told);
        }
        if error.kind == ErrorKind::Unavailable {
            error.unreached = self.failed;
        }
        error
    }
}
