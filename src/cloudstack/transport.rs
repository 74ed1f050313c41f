//! One POST to the endpoint: its connection, its time, its size, and what is proven when it fails.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use nix::errno::Errno;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderName, LOCATION};
use reqwest::{Certificate, Client, ClientBuilder, Response, Url};
use rustls::CertificateError;

use super::error::CallError;
use crate::config;
use crate::error::{Error, Kind, Result};
use crate::model::printable;

/// CloudStack closes idle connections after 30 s (facts sheet, 1.1); ours must not meet that moment.
const IDLE: Duration = Duration::from_secs(15);
/// So that a connection which does not come about is told apart from an answer which does not.
const CONNECT: Duration = Duration::from_secs(10);

/// A complete answer, not looked into yet.
pub(super) struct Reply {
    pub(super) peer: String,
    pub(super) status: u16,
    pub(super) content_type: Option<String>,
    /// Where it redirects to.
    pub(super) location: Option<String>,
    /// CloudStack's clock.
    pub(super) date: Option<Timestamp>,
    pub(super) body: Vec<u8>,
}

pub(super) struct Transport {
    endpoint: Url,
    timeout: Duration,
    /// Keeps connections open between calls that only look.
    looking: Client,
    /// Takes a new connection for each change: one that the server is about to close would leave the outcome unknown.
    changing: Client,
}

impl Transport {
    pub(super) fn new(config: &config::CloudStack) -> Result<Self> {
        let endpoint = Url::parse(&config.endpoint).map_err(|error| {
            bad_config(format!("endpoint \"{}\" is not a URL: {error}", printable(&config.endpoint)))
        })?;
        // Fails where another provider was installed before, which then serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let roots = config.ca_file.as_deref().map(read_certificates).transpose()?.unwrap_or_default();
        let client = |idle_connections| {
            client_builder(config.timeout, &endpoint, roots.clone())
                .pool_max_idle_per_host(idle_connections)
                .build()
                .map_err(|error| bad_config(format!("the TLS client cannot be set up: {}", root_cause(&error))))
        };
        Ok(Self { looking: client(4)?, changing: client(0)?, timeout: config.timeout, endpoint })
    }

    /// How long one call may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sends a form once and reads the whole answer, of at most `limit` bytes.
    pub(super) async fn post(&self, form: String, only_looks: bool, limit: usize) -> Result<Reply, CallError> {
        let client = if only_looks { &self.looking } else { &self.changing };
        let sent = client
            .post(self.endpoint.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form)
            .send()
            .await;
        let response = sent.map_err(|error| self.failure(&error))?;
        let header = |name: HeaderName| response.headers().get(name)?.to_str().ok().map(str::to_owned);
        let (status, content_type) = (response.status().as_u16(), header(CONTENT_TYPE));
        let date = header(DATE).and_then(|text| rfc2822::DateTimeParser::new().parse_timestamp(&text).ok());
        let location = header(LOCATION);
        let body = self.read_body(response, limit).await?;
        Ok(Reply { peer: self.peer(), status, content_type, location, date, body })
    }

    async fn read_body(&self, mut response: Response, limit: usize) -> Result<Vec<u8>, CallError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failure(&error))? {
            if body.len() + chunk.len() > limit {
                return Err(CallError::unusable(format_args!("it is longer than {} MiB", limit >> 20)));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn failure(&self, error: &reqwest::Error) -> CallError {
        let peer = self.peer();
        if error.is_connect() || error.is_builder() {
            let (cause, hint) = connect_cause(error);
            return CallError::NotSent { why: format!("CloudStack at {peer} cannot be reached: {cause}"), hint };
        }
        let found = if error.is_timeout() {
            format!("CloudStack at {peer} did not answer within {:?}", self.timeout)
        } else {
            format!("CloudStack at {peer} gave no whole answer: {}", broken_off(error))
        };
        CallError::NoAnswer { found, hint: "see whether the management server, or a proxy before it, is in trouble" }
    }

    /// Host and port, as messages name the endpoint.
    fn peer(&self) -> String {
        let host = self.endpoint.host_str().unwrap_or_default();
        self.endpoint.port_or_known_default().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }
}

/// No redirects, no proxy, no retries of its own: each call is one request to the configured endpoint.
fn client_builder(timeout: Duration, endpoint: &Url, roots: Vec<Certificate>) -> ClientBuilder {
    let builder = Client::builder()
        .user_agent(concat!("volctl/", env!("CARGO_PKG_VERSION")))
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .timeout(timeout)
        .connect_timeout(CONNECT.min(timeout / 2))
        .pool_idle_timeout(IDLE);
    if endpoint.scheme() == "https" {
        builder.tls_certs_merge(roots)
    } else {
        // The system's trust store need not exist where nobody uses it.
        builder.tls_certs_only([])
    }
}

fn read_certificates(path: &Path) -> Result<Vec<Certificate>> {
    let bad = |why: String| bad_config(format!("ca_file {} {why}", path.display()));
    let pem = std::fs::read(path).map_err(|error| bad(format!("cannot be read: {error}")))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(bad("holds no certificate in PEM form".to_owned())),
    }
}

fn bad_config(message: impl fmt::Display) -> Error {
    Error::new(Kind::Config, format!("[cloudstack] {message}"))
}

/// Why no connection came about, and what to do.
fn connect_cause(error: &reqwest::Error) -> (String, &'static str) {
    const REACH: &str = "see whether it is up, and check [cloudstack] endpoint";
    if let Some(tls) = find::<rustls::Error>(error) {
        let hint = "check that [cloudstack] endpoint has the name in the certificate; \
                    a private authority belongs in [cloudstack] ca_file";
        let cause = match tls {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                "its certificate comes from an authority that is not trusted here".to_owned()
            }
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => "its certificate is for another name".to_owned(),
            rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
                "its certificate has expired".to_owned()
            }
            rustls::Error::InvalidCertificate(_) => "its certificate cannot be accepted".to_owned(),
            rustls::Error::InvalidMessage(_) => "what answers there does not speak TLS".to_owned(),
            rustls::Error::AlertReceived(_) => "the other side refused the connection".to_owned(),
            _ => "the connection could not be secured".to_owned(),
        };
        return (format!("TLS failed: {cause}"), hint);
    }
    if error.is_dns() {
        let cause = format!("its name cannot be resolved ({})", root_cause(error));
        return (cause, "check the host in [cloudstack] endpoint, and this machine's DNS");
    }
    match io_cause(error) {
        Some(cause) => (cause, REACH),
        None if error.is_timeout() => ("no connection in time".to_owned(), REACH),
        None => (root_cause(error), REACH),
    }
}

fn broken_off(error: &reqwest::Error) -> String {
    io_cause(error).unwrap_or_else(|| root_cause(error))
}

/// What the kernel said: `connection refused`, `too many open files`.
fn io_cause(error: &reqwest::Error) -> Option<String> {
    let error = find::<io::Error>(error)?;
    match error.raw_os_error() {
        Some(code) => Some(Errno::from_raw(code).desc().to_lowercase()),
        None => Some(error.kind()).filter(|kind| *kind != io::ErrorKind::Other).map(|kind| kind.to_string()),
    }
}

/// The innermost error of this type.
fn find<E: StdError + 'static>(error: &reqwest::Error) -> Option<&E> {
    causes(error).filter_map(|cause| cause.downcast_ref()).last()
}

/// The innermost cause, which says the most and knows no URL.
fn root_cause(error: &reqwest::Error) -> String {
    causes(error).last().map_or_else(|| "unknown cause".to_owned(), |cause| printable(&cause.to_string()))
}

/// The causes from the outside in.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(error.source(), |cause| deeper(*cause))
}

/// The next cause; an I/O error hides the one that it wraps from `source`.
fn deeper<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => cause.source(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket};
    use tokio::io::{AsyncWriteExt as _, BufReader};

    use super::super::testing::{Answer, Server, configured, raw, read_form};
    use super::super::{CallError, CloudStack};
    use super::*;

    async fn ping(server: &Server) -> CallError {
        server.client().ping().await.unwrap_err()
    }

    fn found(error: CallError) -> String {
        assert!(error.accepted_unknown() && !error.nothing_sent(), "{error}");
        let message = error.into_error("asking").message;
        assert!(!message.contains("signature") && !message.contains("apikey"), "{message}");
        message
    }

    /// Bound, so that nobody else takes it, and not listened on.
    fn port_without_listener() -> (OwnedFd, u16) {
        let taken = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(taken.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
        let port = getsockname::<SockaddrIn>(taken.as_raw_fd()).unwrap().port();
        (taken, port)
    }

    #[tokio::test]
    async fn nobody_listening_is_proof_that_nothing_arrived() {
        let (_taken, port) = port_without_listener();
        let client = CloudStack::new(&configured(format!("http://127.0.0.1:{port}/client/api"))).unwrap();
        let error = client.ping().await.unwrap_err();
        assert!(error.nothing_sent() && !error.accepted_unknown());
        let message = error.into_error("asking CloudStack for its version").message;
        assert_eq!(
            message,
            format!(
                "asking CloudStack for its version: CloudStack at 127.0.0.1:{port} cannot be reached: connection refused"
            )
        );
        assert!(client.contact().trouble.is_some());
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_proof_too() {
        let client = CloudStack::new(&configured("http://cloud.invalid/client/api".to_owned())).unwrap();
        let error = client.ping().await.unwrap_err();
        assert!(error.nothing_sent());
        assert!(error.to_string().starts_with("CloudStack at cloud.invalid:80 cannot be reached: "), "{error}");
    }

    #[tokio::test]
    async fn broken_answers_leave_it_open() {
        let whole = r#"{"listcapabilitiesresponse":{"capability":{}}}"#;
        let cut = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{whole}", whole.len() + 1);
        for (answer, words) in [
            (raw(""), "gave no whole answer"),
            (raw(&cut), "gave no whole answer"),
            (raw("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"), "HTTP 200 with an empty body"),
            (raw("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"listcapab"), "cut short"),
            (raw("220 smtp.example ESMTP\r\n"), "gave no whole answer"),
            (raw("HTTP/1.1 302 Found\r\nLocation: /client\r\nConnection: close\r\n\r\n"), "redirects to /client"),
            (
                raw("HTTP/1.1 301 X\r\nLocation: https://c/client/api?x=y\r\nContent-Length: 3\r\n\r\n<p>"),
                "redirects to https://c/client/api",
            ),
            (raw("HTTP/1.1 502 X\r\nContent-Type: text/html\r\n\r\n<h1>Bad Gateway</h1>"), "\"Bad Gateway\""),
        ] {
            let server = Server::start([answer]).await;
            let message = found(ping(&server).await);
            assert!(message.contains(words), "{message}");
            assert_eq!(server.forms().len(), 1, "{words}: sent once");
        }
    }

    #[tokio::test]
    async fn each_change_has_a_connection_of_its_own_and_looking_shares_one() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/client/api", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(keep_answering(stream));
            }
        });
        let client = CloudStack::new(&configured(endpoint)).unwrap();
        for _ in 0..3 {
            client.ping().await.unwrap();
        }
        assert_eq!(connections.load(Ordering::SeqCst), 1);
        for _ in 0..2 {
            client.recover_volume(crate::model::VolumeId::random()).await.unwrap();
        }
        assert_eq!(connections.load(Ordering::SeqCst), 3);
        serving.abort();
    }

    async fn keep_answering(stream: tokio::net::TcpStream) {
        let mut stream = BufReader::new(stream);
        while let Some(form) = read_form(&mut stream).await {
            let body = match form["command"].as_str() {
                "listCapabilities" => r#"{"listcapabilitiesresponse":{"capability":{}}}"#,
                _ => r#"{"recovervolumeresponse":{}}"#,
            };
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_endless_answer_is_given_up() {
        let head = raw("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        let Answer::Bytes(head) = head else { unreachable!() };
        let server = Server::start([Answer::Endless([head, vec![b' '; 1 << 16]].concat())]).await;
        let id = crate::model::JobId::random();
        let message = found(server.client().job(id).await.unwrap_err());
        assert!(message.contains("longer than 1 MiB"), "{message}");
    }

    #[tokio::test]
    async fn silence_is_given_up_in_time() {
        let mut server = Server::start([Answer::Silence]).await;
        server.config.timeout = Duration::from_millis(200);
        assert!(found(ping(&server).await).contains("did not answer within 200ms"));
        assert_eq!(server.forms().len(), 1);
    }

    #[test]
    fn a_bad_ca_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let mut config = configured("https://cloud.example/client/api".to_owned());
        config.ca_file = Some(path.clone());
        for content in [None, Some("not a certificate")] {
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let error = CloudStack::new(&config).err().unwrap();
            assert!(error.message.starts_with(&format!("[cloudstack] ca_file {}", path.display())), "{error}");
        }
    }

    /// Answers one HTTPS request; gives the port and its self-signed certificate in a file.
    fn https_server(directory: &Path) -> (u16, PathBuf) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let file = directory.join("ca.pem");
        std::fs::write(&file, pair.cert.pem()).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(pair.signing_key.serialize_der());
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![pair.cert.der().clone()], key.into())
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = rustls::ServerConnection::new(config.clone()).unwrap();
                let mut tls = rustls::StreamOwned::new(connection, stream.unwrap());
                let body = r#"{"listcapabilitiesresponse":{"capability":{"cloudstackversion":"4.22"}}}"#;
                if tls.read(&mut [0; 4096]).is_ok() {
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                    drop(tls.write_all(format!("{head}{body}").as_bytes()));
                }
            }
        });
        (port, file)
    }

    #[tokio::test]
    async fn https_is_verified_and_a_private_authority_needs_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let (port, certificate) = https_server(directory.path());
        let mut config = configured(format!("https://localhost:{port}/client/api"));
        let error = CloudStack::new(&config).unwrap().ping().await.unwrap_err();
        assert!(error.nothing_sent(), "{error}");
        let error = error.into_error("asking");
        assert!(error.message.contains("TLS failed: its certificate comes"), "{error}");
        assert!(error.hint.unwrap().contains("ca_file"));
        config.ca_file = Some(certificate);
        let version = CloudStack::new(&config).unwrap().ping().await.unwrap();
        assert_eq!(version.as_deref(), Some("4.22"));
    }
}
