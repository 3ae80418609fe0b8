//! The SDK's client: built from the settings, and built again when its credentials have run out.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{Region, SharedHttpClient};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use tokio::time::Instant;

use super::settings::{Addressing, Credentials, S3Settings};

/// What other servers call the one region that they have.
const REGION_ELSEWHERE: &str = "us-east-1";

/// Not more often than this is a client built anew: it looks through files and asks the network.
const RENEW_PAUSE: Duration = Duration::from_secs(5);

/// The way to the server.
#[derive(Debug)]
pub struct Link {
    settings: S3Settings,
    http: SharedHttpClient,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    client: Client,
    /// When it was last made anew.
    renewed: Option<Instant>,
}

impl Link {
    pub async fn new(settings: S3Settings) -> Self {
        // One for all clients, so that its connections outlive a renewal.
        let http = http();
        let client = connect(&settings, &http).await;
        let current = Mutex::new(Current { client, renewed: None });
        Self { settings, http, current }
    }

    pub fn client(&self) -> Client {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).client.clone()
    }

    /// Looks for credentials again. The SDK keeps what it has read of a profile's file, also when
    /// somebody has put new ones there.
    pub async fn renew(&self) {
        {
            let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            if current.renewed.is_some_and(|at| at.elapsed() < RENEW_PAUSE) {
                return;
            }
            current.renewed = Some(Instant::now());
        }
        let client = connect(&self.settings, &self.http).await;
        self.current.lock().unwrap_or_else(PoisonError::into_inner).client = client;
    }
}

async fn connect(settings: &S3Settings, http: &SharedHttpClient) -> Client {
    let found = load(settings, http).await;
    let timeouts = TimeoutConfig::builder().connect_timeout(settings.limits.connect).build();
    let mut config = aws_sdk_s3::config::Builder::from(&found)
        // Tries are counted here: only who made them knows that an earlier one may have worked.
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        .force_path_style(settings.addressing == Addressing::Path);
    if let Credentials::Given { id, secret } = &settings.credentials {
        let given = aws_sdk_s3::config::Credentials::new(id, secret, None, None, "given");
        config = config.credentials_provider(given);
    }
    Client::from_conf(config.build())
}

/// What the SDK finds. It asks the machine's role for the region last, which takes seconds where
/// there is none: with an endpoint of one's own that is left out.
async fn load(settings: &S3Settings, http: &SharedHttpClient) -> SdkConfig {
    let loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http.clone());
    match &settings.endpoint {
        None => loader.load().await,
        Some(endpoint) => {
            let named = ["AWS_REGION", "AWS_DEFAULT_REGION"];
            let set = named.iter().find_map(|name| std::env::var(name).ok());
            let region = set.filter(|region| !region.is_empty());
            let region = Region::new(region.unwrap_or_else(|| REGION_ELSEWHERE.to_owned()));
            let loader = match settings.credentials {
                Credentials::Found => loader,
                Credentials::Given { .. } => loader.no_credentials(),
            };
            loader.region(region).endpoint_url(endpoint).load().await
        }
    }
}

/// `ring`, since the default provider is a large C library to build.
fn http() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https()
}

/// The region that the SDK finds: environment, profile, machine. The last is asked by HTTP, and the
/// SDK has no client of its own here.
pub async fn region() -> Option<String> {
    let loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http());
    let found = loader.no_credentials().load().await;
    found.region().map(ToString::to_string)
}
