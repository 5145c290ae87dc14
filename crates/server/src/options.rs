//! How the server behaves.
use std::time::Duration;

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerOptions {
    /// Keys of which a request must carry one; none means that everybody may ask.
    pub api_keys: Vec<String>,
    /// Largest body of a request. 64 MiB: images travel as base64.
    pub body_limit_bytes: usize,
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
    /// How long a client may take to send the body of a request.
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
            body_limit_bytes: 64 << 20,
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
