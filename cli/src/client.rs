//! Talking to a running Headwater over HTTP.

use std::path::Path;
use std::time::{Duration, Instant};

use headwater_connectors::Secret;
use serde_json::Value;

use crate::config::Configuration;
use crate::failure::Failure;

/// How long to come back to a listener that turns requests away for now.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long an answer may take to be there whole.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// The key of the query API's address in the configuration.
const API: &str = "api.listen";
/// The environment variable with the token for the query API.
const TOKEN: &str = "HEADWATER_API_TOKEN";

/// A listener of a running Headwater.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    base: String,
    agent: ureq::Agent,
    what: &'static str,
    /// Sent as `Authorization: Bearer`.
    token: Option<Secret>,
}

impl Client {
    /// The admin port: where `given` says, or as configured.
    pub(crate) fn admin(given: Option<&str>, config: &Path) -> Result<Self, Failure> {
        let base = match given {
            Some(given) => with_scheme(given),
            None => format!("http://{}", reachable(load(config, "--admin")?.settings.admin.listen.value)),
        };
        Ok(Self::new(base, "admin.listen"))
    }

    /// The query API: where `given` says, or as configured; with the token of the environment, where there is one.
    pub(crate) fn api(given: Option<&str>, config: &Path) -> Result<Self, Failure> {
        let base = match given {
            Some(given) => with_scheme(given),
            None => format!("http://{}", reachable(load(config, "--api")?.settings.api.listen.value)),
        };
        Ok(Self::new(base, API).with_token(token()))
    }

    fn new(base: String, what: &'static str) -> Self {
        Self { base: base.trim_end_matches('/').to_string(), agent: agent(ANSWER_MAX), what, token: None }
    }

    fn with_token(self, token: Option<Secret>) -> Self {
        Self { token, ..self }
    }

    /// The same, but an answer must be there whole within this time.
    pub(crate) fn within(self, answer_max: Duration) -> Self {
        Self { agent: agent(answer_max), ..self }
    }

    /// Where it is asked.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// GET; the body as text of a successful answer, `None` for 404. Whoever is busy is asked again when it says.
    pub(crate) fn find(&self, path: &str) -> Result<Option<String>, Failure> {
        let begin = Instant::now();
        loop {
            let mut request = self.agent.get(format!("{}{path}", self.base)).header("accept", "application/json");
            if let Some(token) = &self.token {
                request = request.header("authorization", format!("Bearer {}", token.reveal()));
            }
            let answer = request.call();
            let pause = answer.as_ref().ok().and_then(asks_to_wait);
            match (self.body(answer)?, pause) {
                ((200..=299, body), _) => return Ok(Some(body)),
                ((404, _), _) => return Ok(None),
                ((429 | 503, _), Some(pause)) if begin.elapsed() + pause < PATIENCE => std::thread::sleep(pause),
                ((status, body), _) => return Err(self.refused(path, status, &body)),
            }
        }
    }

    /// GET of something that is there.
    pub(crate) fn text(&self, path: &str) -> Result<String, Failure> {
        self.find(path)?.ok_or_else(|| self.refused(path, 404, ""))
    }

    /// GET of JSON.
    pub(crate) fn json(&self, path: &str) -> Result<Value, Failure> {
        self.parse(path, &self.text(path)?)
    }

    /// POST of JSON, answered with JSON.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.send(self.agent.post(format!("{}{path}", self.base)), path, body)
    }

    /// The same of what is answered once it is done, however long that takes.
    pub(crate) fn post_and_wait(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let request = self.agent.post(format!("{}{path}", self.base));
        self.send(request.config().timeout_global(None).build(), path, body)
    }

    fn send(
        &self,
        request: ureq::RequestBuilder<ureq::typestate::WithBody>,
        path: &str,
        body: &Value,
    ) -> Result<Value, Failure> {
        let request = request.header("content-type", "application/json");
        match self.body(request.send(body.to_string()))? {
            (200..=299, body) if body.trim().is_empty() => Ok(Value::Null),
            (200..=299, body) => self.parse(path, &body),
            (status, body) => Err(self.refused(path, status, &body)),
        }
    }

    fn body(&self, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<(u16, String), Failure> {
        let mut answer = answer.map_err(|error| {
            Failure::new(format_args!(
                "no Headwater answers at {}: {error}; is `headwater run` running, and is this its `{}`?",
                self.base, self.what
            ))
        })?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(1 << 30).read_to_string();
        Ok((
            status,
            body.map_err(|error| Failure::caused(format_args!("the answer of {} broke off", self.base), &error))?,
        ))
    }

    fn parse(&self, path: &str, body: &str) -> Result<Value, Failure> {
        serde_json::from_str(body).map_err(|error| {
            Failure::new(format_args!("{}{path} answered with something that is not JSON: {error}", self.base))
        })
    }

    /// What a problem document says, or the status alone.
    fn refused(&self, path: &str, status: u16, body: &str) -> Failure {
        let problem: Value = serde_json::from_str(body).unwrap_or_default();
        let said = match problem["detail"].as_str().or(problem["title"].as_str()) {
            Some(detail) => detail.to_string(),
            None => format!("{}{path} answered with status {status}", self.base),
        };
        let failure = match status {
            401 | 403 if self.what == API => Failure::new(format_args!(
                "{said}; {} asks who calls: set {TOKEN} to a token whose role sees every document whole, as docs/access.md \
                 says",
                self.base
            )),
            _ => Failure::new(said),
        };
        match problem["code"].as_str() {
            Some(code) => failure.with_code(code),
            None => failure,
        }
    }
}

/// What connects and asks, and gives up when the whole answer is not there in time.
fn agent(answer_max: Duration) -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(answer_max))
        .timeout_global(Some(answer_max))
        .build()
        .into()
}

/// The token of the environment for the query API.
fn token() -> Option<Secret> {
    let token = std::env::var(TOKEN).ok()?;
    Some(token.trim()).filter(|token| !token.is_empty()).map(Secret::new)
}

/// How long the listener wants to be left alone.
fn asks_to_wait(answer: &ureq::http::Response<ureq::Body>) -> Option<Duration> {
    answer.headers().get("retry-after")?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

fn load(config: &Path, option: &str) -> Result<Configuration, Failure> {
    if !config.exists() {
        return Err(Failure::new(format_args!(
            "there is no {}; name the configuration with --config, or the address with {option}",
            config.display()
        ))
        .with_status(2));
    }
    Configuration::load_settings_only(config).map_err(Failure::from)
}

/// An address without a scheme, `host:port`, is one of HTTP.
fn with_scheme(given: &str) -> String {
    if given.contains("://") { given.to_string() } else { format!("http://{given}") }
}

/// A listener on all addresses is reached on the loopback.
fn reachable(listen: std::net::SocketAddr) -> std::net::SocketAddr {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    (ip, listen.port()).into()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    use serde_json::json;

    use super::*;

    #[test]
    fn an_address_needs_no_scheme() {
        let client = |given| Client::admin(Some(given), Path::new("nothing.yaml")).unwrap();
        assert_eq!(client("localhost:8081").base(), "http://localhost:8081");
        assert_eq!(client("https://admin.example/").base(), "https://admin.example");
    }

    /// A listener that gives these answers, one to each request, and a client of it. In the end the thread tells the heads
    /// of the requests.
    pub(crate) fn answering(answers: &'static [&'static str]) -> (Client, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let mut heads = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let lines = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
                let head: Vec<String> = lines.collect();
                assert!(!head.is_empty(), "no request");
                heads.push(head.join("\n").to_lowercase());
                write!(stream, "HTTP/1.1 {answer}").unwrap();
            }
            heads
        });
        (Client::new(base, API), thread)
    }

    const BUSY: &str = "503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    const DONE: &str = "200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
    const BROKEN: &str = "503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

    #[test]
    fn who_is_busy_is_asked_again() {
        let (client, thread) = answering(&[BUSY, DONE]);
        let begin = Instant::now();
        assert_eq!(client.find("/v1/customer/1").unwrap().as_deref(), Some("{}"));
        assert!(begin.elapsed() >= Duration::from_secs(1), "it was asked again too soon");
        thread.join().unwrap();
    }

    #[test]
    fn a_token_is_sent_and_asked_for() {
        const DENIED: &str =
            "401 Unauthorized\r\ncontent-length: 23\r\nconnection: close\r\n\r\n{\"detail\":\"who is it?\"}";
        let (client, thread) = answering(&[DENIED, DONE]);
        let failure = client.find("/v1/customer/1").unwrap_err().to_string();
        assert!(failure.contains("who is it?") && failure.contains("HEADWATER_API_TOKEN"), "{failure}");
        let client = client.with_token(Some(Secret::new("hunter2")));
        assert_eq!(client.find("/v1/customer/1").unwrap().as_deref(), Some("{}"));
        let heads = thread.join().unwrap();
        assert!(!heads[0].contains("authorization"), "{heads:?}");
        assert!(heads[1].contains("authorization: bearer hunter2"), "{heads:?}");
        assert!(!format!("{client:?}").contains("hunter2"));
    }

    #[test]
    fn what_takes_long_is_waited_for_where_that_is_meant() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                // The whole request: a connection that is closed with something unread is reset.
                let mut request = Vec::new();
                while !request.ends_with(b"{}") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    request.push(byte[0]);
                }
                std::thread::sleep(Duration::from_secs(2));
                // Who gave up does not read it.
                stream.write_all(format!("HTTP/1.1 {DONE}").as_bytes()).ok();
            }
        });
        let client = Client { agent: agent(Duration::from_secs(1)), ..Client::new(base, "admin.listen") };
        client.post("/reload", &json!({})).unwrap_err();
        assert_eq!(client.post_and_wait("/dead-letters/retry", &json!({})).unwrap(), json!({}));
    }

    #[test]
    fn who_does_not_say_when_is_not_asked_again() {
        let (client, thread) = answering(&[BROKEN]);
        let failure = client.find("/v1/customer/1").unwrap_err().to_string();
        assert!(failure.contains("status 503"), "{failure}");
        thread.join().unwrap();
    }
}
