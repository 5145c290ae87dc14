//! How the server behaves.
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

pub use regex::Regex;

/// Which web pages of other origins may call the server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Cors {
    /// All of them.
    #[default]
    AnyOrigin,
    /// Those that are listed, each as `scheme://host[:port]`.
    Origins(Vec<String>),
    /// None.
    Off,
}

/// Settings of the HTTP side. [`Default`] is an open server with generous limits.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Keys of which a request must carry one; none here and in the file means that everybody may ask.
    pub api_keys: Vec<String>,
    /// A JSON list of further keys, read again when it changes; need not exist.
    pub keys_file: Option<PathBuf>,
    /// Paths that need no key for reading.
    pub open_to_get: Vec<Regex>,
    /// May web pages of other sites make requests without a key?
    pub allow_cross_site: bool,
    /// Requests a minute that one key, or one address where there are no keys, may send.
    pub rate_limit: Option<NonZeroU32>,
    /// Largest body of a request. 64 MiB: images travel as base64.
    pub body_limit_bytes: usize,
    /// Largest form with a recording. 1 GiB: it goes to disk as it comes, so that an hour of sound takes no memory.
    pub audio_limit_bytes: usize,
    /// Largest body beside media in base64.
    pub text_limit_bytes: usize,
    /// Answers of so many bytes and more are compressed for clients that want it; absent is never.
    pub compress_from_bytes: Option<u16>,
    /// Address of the server as clients see it, for links; absent is as a request and its proxies say.
    pub base_url: Option<String>,
    /// Which web pages may call the server.
    pub cors: Cors,
    /// Value of the header `Machine-Tag` on every answer.
    pub machine_tag: Option<String>,
    /// Answer failures with their status and no body.
    pub opaque_errors: bool,
    /// How long running answers may go on after the server was told to stop.
    pub drain_timeout: Duration,
    /// How long a stream waits for its first event before the head is sent; until then a failure has a status.
    pub head_delay: Duration,
    /// How often a waiting stream sends a comment, so that nobody in between closes it.
    pub keep_alive: Duration,
    /// How long a client may take to send the head of a request, and how long an idle connection is kept.
    pub header_timeout: Duration,
    /// How long a client may take to send the body of a request; for a recording, each next piece of it.
    pub body_timeout: Duration,
    /// Is `/metrics` there?
    pub metrics: bool,
    /// Names of the backends in the program, for `/system`.
    pub backends: Vec<String>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            api_keys: Vec::new(),
            keys_file: None,
            open_to_get: Vec::new(),
            allow_cross_site: false,
            rate_limit: None,
            body_limit_bytes: 64 << 20,
            audio_limit_bytes: 1 << 30,
            text_limit_bytes: 15 << 20,
            compress_from_bytes: Some(1024),
            base_url: None,
            cors: Cors::default(),
            machine_tag: None,
            opaque_errors: false,
            drain_timeout: Duration::from_secs(30),
            head_delay: Duration::from_secs(10),
            keep_alive: Duration::from_secs(15),
            header_timeout: Duration::from_secs(120),
            body_timeout: Duration::from_secs(120),
            metrics: true,
            backends: Vec::new(),
        }
    }
}
