//! Settings: one struct for each concern, in proper types, checked before anything starts.
//!
//! `config/default.toml` (built in), then the file named by `--config`, then the environment
//! `WHEELHOUSE__SECTION__KEY`, then flags. `load` is in this folder's `load.rs`.

mod error;
mod layers;
mod load;
mod oidc;
mod proxies;
mod redis_url;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::{SecretSlice, SecretString};

use crate::domain::TenantId;

pub use error::SettingError;
pub use layers::Overrides;
pub use load::{MIN_SECRET, load, load_from};
#[cfg(feature = "server")]
pub(crate) use proxies::holds_all_ipv4;
pub(crate) use redis_url::one_database;
pub(crate) use tls::{authorities, certificate_with_key};

/// Everything that can be set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `[server]`
    pub server: Server,
    /// `[redis]`
    pub redis: Redis,
    /// `[database]`
    pub database: Database,
    /// `[auth]`
    pub auth: Auth,
    /// `[console]`: `None` where nobody signs in through an issuer.
    pub oidc: Option<Oidc>,
    /// `[limits]`
    pub limits: Limits,
    /// `[worker]`
    pub worker: Worker,
    /// `[command]`
    pub command: Command,
    /// `[audit]`
    pub audit: Audit,
    /// How long jobs are kept.
    pub jobs: Jobs,
    /// `[log]`
    pub log: Log,
}

/// The gateway's front.
#[derive(Debug, Clone)]
pub struct Server {
    /// Where to listen.
    pub listen: SocketAddr,
    /// A second address, for health checks and metrics. `None`: they are answered at the first alone.
    pub admin_listen: Option<SocketAddr>,
    /// The certificate with which the listener speaks TLS. `None`: it speaks plain HTTP.
    pub tls: Option<CertificateFiles>,
    /// Origins whose pages may open sockets, beside the gateway's own.
    pub public_origins: Vec<String>,
    /// How long `/readyz` says that the gateway is leaving, before it takes nothing new.
    pub drain_notice: Duration,
    /// How long open sockets then have to leave.
    pub drain: Duration,
    /// How long the body of a request may take to arrive.
    pub body: Duration,
    /// How long an HTTP connection may be idle between two requests.
    pub keep_alive: Duration,
    /// Networks of the proxies that are believed about the client's address.
    pub trusted_proxies: Vec<IpNet>,
    /// In which headers they name it.
    pub forwarded_headers: Vec<ForwardedHeader>,
    /// Whether their connections begin with a PROXY protocol header.
    pub proxy_protocol: bool,
}

/// A header in which proxies name the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// `X-Forwarded-For`.
    XForwardedFor,
}

/// A certificate with its chain, and its private key, each a PEM file that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and those that lead to its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Redis.
#[derive(Debug, Clone)]
pub struct Redis {
    /// With a password in it, perhaps: never printed.
    pub url: SecretString,
    /// What `redis.ca_file` holds: certificates of the authorities that sign the servers', in PEM. `None`: the usual.
    pub ca_pem: Option<Vec<u8>>,
    /// What `redis.client_cert_file` and `redis.client_key_file` hold: the certificate that this program shows, in PEM.
    pub client_certificate: Option<ClientCertificate>,
    /// Hash slots that tenants share.
    pub partitions: u16,
    /// Replicas that have a command before it is said to be accepted; 0: none is waited for.
    pub replicas_to_wait: u32,
    /// Servers, the master first, that have a command on disk before it is said to be accepted; 0: none is waited for.
    pub fsyncs_to_wait: u32,
    /// Where is published what wakes.
    pub published_channels: PublishedChannels,
    /// Where this program hears it.
    pub heard_channels: HeardChannels,
}

/// Where programs publish what wakes others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PublishedChannels {
    /// On the contract's channels: a cluster passes each message on to all its servers.
    Plain,
    /// On both.
    Both,
    /// On sharded channels (`SPUBLISH`), which stay with the servers that have the partition.
    Sharded,
}

impl PublishedChannels {
    /// Each with its name in settings.
    pub const ALL: [(&str, Self); 3] = [("plain", Self::Plain), ("both", Self::Both), ("sharded", Self::Sharded)];
}

/// Where programs hear what wakes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HeardChannels {
    /// On the contract's channels.
    Plain,
    /// On sharded channels (`SSUBSCRIBE`).
    Sharded,
}

impl HeardChannels {
    /// Each with its name in settings.
    pub const ALL: [(&str, Self); 2] = [("plain", Self::Plain), ("sharded", Self::Sharded)];
}

/// A certificate that this program shows to a server, and its private key, both in PEM.
#[derive(Clone)]
pub struct ClientCertificate {
    /// The certificate, and those that lead to its authority.
    pub certificate_pem: Vec<u8>,
    /// Its private key.
    pub key_pem: SecretSlice<u8>,
}

impl std::fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientCertificate(…)")
    }
}

/// SQL.
#[derive(Debug, Clone)]
pub struct Database {
    /// With a password in it, perhaps: never printed.
    pub url: SecretString,
    /// PostgreSQL connections, or SQLite readers.
    pub connections: u32,
}

/// Who may come in.
#[derive(Debug, Clone)]
pub struct Auth {
    /// Symmetric key of tokens: signs and verifies.
    pub hs256_secret: Option<SecretString>,
    /// Another one, which verifies only: while the key is being changed.
    pub hs256_previous_secret: Option<SecretString>,
    /// Address of the issuer's keys.
    pub jwks_url: Option<String>,
    /// File of the issuer's keys.
    pub jwks_file: Option<PathBuf>,
    /// How long keys stay good while the issuer cannot be asked for newer ones.
    pub jwks_max_age: Duration,
    /// What `auth.ca_file` holds: certificates of the authorities that sign the issuer's, in PEM. `None`: the usual.
    pub ca_pem: Option<Vec<u8>>,
    /// Required `iss`.
    pub issuer: Option<String>,
    /// Required `aud`.
    pub audience: Option<String>,
    /// Longest time from a token's issue to its end. `None`: any.
    pub max_token: Option<Duration>,
    /// Where permissions come from.
    pub permissions: PermissionSource,
}

/// Where permissions come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PermissionSource {
    /// The tables `user_permissions` and `roles`.
    Database,
    /// The token's claim `permissions`.
    Token,
}

/// How people sign in to the console through the issuer of tokens.
#[derive(Debug, Clone)]
pub struct Oidc {
    /// The issuer, as it names itself: `https://…`.
    pub issuer: String,
    /// What the console is called there.
    pub client_id: String,
    /// With blanks between.
    pub scopes: String,
    /// More for the authorisation request, as in a query.
    pub parameters: String,
    /// Origins that the page may ask, of the issuer and of its token endpoint.
    pub origins: Vec<String>,
}

/// What anyone may use up.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Commands of one user in any 60 s.
    pub commands_per_minute: u32,
    /// Commands without a result, per tenant.
    pub backlog_per_tenant: u32,
    /// Scheduled commands, per tenant.
    pub schedules_per_tenant: u32,
    /// Open sockets of one tenant.
    pub connections_per_tenant: u32,
    /// Open sockets of one user in a tenant.
    pub connections_per_user: u32,
    /// Messages on one socket per second.
    pub messages_per_second: u32,
    /// Messages that may wait for one slow socket.
    pub outbox_messages: usize,
    /// REST requests of one user per second, over ten seconds.
    pub requests_per_second: u32,
    /// Requests from one address per second, over ten seconds.
    pub requests_per_second_per_address: u32,
    /// Open connections from one address.
    pub connections_per_address: u32,
    /// Connections that one address opens per second, over ten seconds.
    pub new_connections_per_second: u32,
    /// Bytes of bodies and answers under way in one process.
    pub memory: u32,
    /// Of them, for one user.
    pub memory_per_user: u32,
}

/// Workers.
#[derive(Debug, Clone)]
pub struct Worker {
    /// `None`: all tenants.
    pub tenants: Option<Vec<TenantId>>,
    /// What people call it. `None`: the name of the machine and a part of its id.
    pub name: Option<String>,
    /// Jobs that one worker runs at once.
    pub concurrency: usize,
    /// Jobs that one worker holds at once, paused ones included.
    pub max_held_jobs: usize,
    /// After so long a paused job with a resume point is held no longer. `None`: only where room is needed.
    pub paused_release: Option<Duration>,
    /// Between asking a program to end and killing it.
    pub grace: Duration,
    /// The folder beneath which job code may read files that its parameters name. `None`: none at all.
    pub files_root: Option<PathBuf>,
    /// How long nothing may be heard of the program that hosts an attached job before the job has failed.
    pub attached_lost: Duration,
    /// So many workers may crash while they run one job, without a new resume point of it, before it has failed.
    pub max_worker_crashes: u32,
    /// Where to listen for foreign workers. `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// How long a run of a foreign worker waits for it to come back.
    pub reattach: Duration,
    /// Open sockets of foreign workers.
    pub max_connections: usize,
    /// Jobs attached over one socket.
    pub max_jobs_per_connection: usize,
    /// Messages on one socket per second, over ten seconds.
    pub messages_per_second: u32,
    /// The longest lifetime of a foreign worker's token.
    pub max_token: Duration,
}

/// Commands.
#[derive(Debug, Clone)]
pub struct Command {
    /// How long an accepted command waits for a worker.
    pub ttl: Duration,
    /// How long a claim holds without renewal.
    pub lease: Duration,
    /// Tries of one command.
    pub max_attempts: u32,
}

/// Jobs.
#[derive(Debug, Clone)]
pub struct Jobs {
    /// How long jobs and campaigns are kept after their end. `None`: for ever.
    pub keep: Option<Duration>,
}

/// The audit trail.
#[derive(Debug, Clone)]
pub struct Audit {
    /// How long its rows are kept. `None`: for ever.
    pub keep: Option<Duration>,
}

/// Logs.
#[derive(Debug, Clone)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// Filter of tracing-subscriber.
    pub level: String,
    /// Settings that were given by an old name: to be warned of as soon as there is a log.
    pub renamed: Vec<RenamedSetting>,
}

/// A setting that was given by a name that it had in an earlier version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenamedSetting {
    /// The name that was given.
    pub old: String,
    /// The name that it has now.
    pub new: &'static str,
    /// `the file PATH`, `the environment variable NAME`, `the flag that sets KEY`.
    pub source: String,
}

/// For people or for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines with colours.
    Pretty,
    /// One JSON object a line.
    Json,
}
