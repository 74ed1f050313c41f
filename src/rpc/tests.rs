//! The server and the client on real sockets: what a client may do to itself, and what it must not do to others.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::client::{CallFailure, Client, Incoming, Wait};
use super::json::Json;
use super::message::{ErrorObject, INTERNAL_ERROR, INVALID_REQUEST, MAX_LINE, METHOD_NOT_FOUND, PARSE_ERROR};
use super::server::{Caller, Handler, Limits, Load, serve};
use crate::error::{Error, Kind};

/// Longer than anything here takes, shorter than anybody waits for a test.
const PATIENCE: Duration = Duration::from_secs(20);

/// Methods that only the tests have.
#[derive(Default)]
struct Methods {
    /// Lets `held` go.
    open: Notify,
    /// A `until_gone` has seen its client go.
    saw_gone: Notify,
}

impl Handler for Methods {
    async fn call(&self, method: String, params: Option<Value>, mut caller: Caller) -> Result<Json, ErrorObject> {
        match method.as_str() {
            "echo" => Ok(params.unwrap_or_default().into()),
            "uid" => Ok(json!(caller.peer.uid).into()),
            "refused" => Err(Error::new(Kind::NotFound, "no such volume").hint("volctl ls").into()),
            "panics" => panic!("as asked"),
            "tells" => {
                let count = params.unwrap_or_default()["count"].as_u64().unwrap_or_default();
                (0..count)
                    .for_each(|n| caller.notify.notify("told", &json!({ "n": n, "pad": "x".repeat(1000) }).into()));
                Ok(json!("told").into())
            }
            "held" => {
                self.open.notified().await;
                Ok(json!("let go").into())
            }
            "until_gone" => {
                caller.gone.wait().await;
                self.saw_gone.notify_one();
                Ok(Value::Null.into())
            }
            _ => Err(ErrorObject::new(METHOD_NOT_FOUND, "no such method")),
        }
    }
}

/// A running server.
struct Served {
    methods: Arc<Methods>,
    path: PathBuf,
    load: watch::Receiver<Load>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
    _dir: TempDir,
}

fn served(limits: Limits) -> Served {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let methods = Arc::new(Methods::default());
    let (stop, stopped) = watch::channel(false);
    let (load_sender, load) = watch::channel(Load::default());
    let server = tokio::spawn(serve(listener, Arc::clone(&methods), stopped, limits, load_sender));
    Served { methods, path, load, stop, server, _dir: dir }
}

impl Served {
    async fn connect(&self) -> Raw {
        Raw(BufReader::new(UnixStream::connect(&self.path).await.unwrap()))
    }

    async fn until(&mut self, condition: impl FnMut(&Load) -> bool) {
        timeout(PATIENCE, self.load.wait_for(condition)).await.expect("the load never was so").unwrap();
    }
}

/// A client that speaks bytes.
struct Raw(BufReader<UnixStream>);

impl Raw {
    async fn send(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.0.get_mut().write_all(bytes)).await.expect("the server does not read").unwrap();
    }

    async fn end_input(&mut self) {
        self.0.get_mut().shutdown().await.unwrap();
    }

    async fn line(&mut self) -> Value {
        let mut line = String::new();
        timeout(PATIENCE, self.0.read_line(&mut line)).await.expect("no answer").unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("not a line of JSON: {line:?}"))
    }

    /// The connection was closed, and nothing came before that.
    async fn closed(&mut self) {
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("still open");
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}

fn call(id: u64, method: &str, params: &Value) -> Vec<u8> {
    format!("{}\n", super::message::request(Some(id), method, params)).into_bytes()
}

#[tokio::test]
async fn requests_are_answered_and_errors_carry_their_kind() {
    let served = served(Limits::default());
    let mut client = served.connect().await;
    client.send(&call(1, "echo", &json!({"a": [1, "é"]}))).await;
    assert_eq!(client.line().await, json!({"jsonrpc": "2.0", "id": 1, "result": {"a": [1, "é"]}}));
    client.send(&call(2, "refused", &json!({}))).await;
    let answer = client.line().await;
    assert_eq!(answer["error"]["code"], Kind::NotFound.rpc_code());
    assert_eq!(answer["error"]["data"]["kind"], "not_found");
    assert_eq!(answer["error"]["data"]["hint"], "volctl ls");
    client.send(&call(3, "nothing", &json!({}))).await;
    assert_eq!(client.line().await["error"]["code"], METHOD_NOT_FOUND);
    client.send(&call(4, "uid", &json!({}))).await;
    assert_eq!(client.line().await["result"], nix::unistd::geteuid().as_raw());
}

#[tokio::test]
async fn garbage_is_answered_and_the_connection_lives() {
    let served = served(Limits::default());
    let mut client = served.connect().await;
    for (line, code) in [
        ("\n", PARSE_ERROR),
        ("GET / HTTP/1.1\r\n", PARSE_ERROR),
        ("{\"jsonrpc\": \"2.0\", \"method\": \"echo\", \"id\n", PARSE_ERROR),
        ("[]\n", INVALID_REQUEST),
        ("7\n", INVALID_REQUEST),
        ("{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"echo\",\"params\":7}\n", INVALID_REQUEST),
    ] {
        client.send(line.as_bytes()).await;
        assert_eq!(client.line().await["error"]["code"], code, "{line}");
    }
    client.send(&call(1, "echo", &json!([1]))).await;
    assert_eq!(client.line().await["result"], json!([1]));
}

#[tokio::test]
async fn notifications_are_not_answered() {
    let served = served(Limits::default());
    let mut client = served.connect().await;
    client.send(b"{\"jsonrpc\":\"2.0\",\"method\":\"echo\"}\n{\"jsonrpc\":\"2.0\",\"method\":\"no such\"}\n").await;
    client.send(b"[{\"jsonrpc\":\"2.0\",\"method\":\"echo\"}]\n").await;
    client.end_input().await;
    client.closed().await;
}

#[tokio::test]
async fn a_batch_is_answered_in_one_array_without_its_notifications() {
    let served = served(Limits::default());
    let mut client = served.connect().await;
    let echo = |id: &str| format!(r#"{{"jsonrpc":"2.0","method":"echo","params":[{id}]{}}}"#, id_member(id));
    client.send(format!("[{},{},1,{}]\n", echo("1"), echo(""), echo("\"b\"")).as_bytes()).await;
    let answer = client.line().await;
    let ids: Vec<&Value> = answer.as_array().unwrap().iter().map(|part| &part["id"]).collect();
    assert_eq!(ids, [&json!(1), &Value::Null, &json!("b")]);
    assert_eq!(answer[1]["error"]["code"], INVALID_REQUEST);
}

fn id_member(id: &str) -> String {
    if id.is_empty() { String::new() } else { format!(r#","id":{id}"#) }
}

#[tokio::test]
async fn a_hundred_requests_are_served_side_by_side() {
    let mut served = served(Limits::default());
    let mut client = served.connect().await;
    for id in 0..100 {
        client.send(&call(id, "held", &json!({}))).await;
    }
    served.until(|load| load.requests == 100).await;
    client.send(&call(100, "echo", &json!({}))).await;
    assert_eq!(client.line().await["id"], 100, "a waiting request holds up another");
    for _ in 0..100 {
        served.methods.open.notify_one();
        assert_eq!(client.line().await["result"], "let go");
    }
    served.until(|load| *load == Load { connections: 1, requests: 0 }).await;
    drop(client);
    served.until(|load| *load == Load::default()).await;
}

#[tokio::test]
async fn requests_beyond_the_limit_are_refused_and_the_others_stay() {
    let mut served = served(Limits { requests: 2, ..Limits::default() });
    let mut client = served.connect().await;
    client.send(&call(1, "held", &json!({}))).await;
    client.send(&call(2, "held", &json!({}))).await;
    client.send(&call(3, "echo", &json!({}))).await;
    let answer = client.line().await;
    assert_eq!((&answer["id"], &answer["error"]["data"]["kind"]), (&json!(3), &json!("busy")));
    served.until(|load| load.requests == 2).await;
    served.methods.open.notify_one();
    assert_eq!(client.line().await["result"], "let go");
    served.until(|load| load.requests == 1).await;
    client.send(&call(4, "echo", &json!({}))).await;
    assert_eq!(client.line().await["id"], 4);
}

#[tokio::test]
async fn a_handler_that_panics_answers_an_internal_error() {
    let served = served(Limits::default());
    let mut client = served.connect().await;
    client.send(&call(1, "panics", &json!({}))).await;
    assert_eq!(client.line().await["error"]["code"], INTERNAL_ERROR);
    client.send(&call(2, "echo", &json!({}))).await;
    assert_eq!(client.line().await["id"], 2);
}

#[tokio::test]
async fn a_client_that_half_closes_is_still_answered() {
    let mut served = served(Limits::default());
    let mut client = served.connect().await;
    client.send(&call(1, "held", &json!({}))).await;
    let mut last = call(2, "echo", &json!({}));
    last.pop();
    client.send(&last).await;
    client.end_input().await;
    assert_eq!(client.line().await["id"], 2, "the last line has no newline, and is one");
    served.until(|load| load.requests == 1).await;
    served.methods.open.notify_one();
    assert_eq!(client.line().await["result"], "let go");
    client.closed().await;
}

#[tokio::test]
async fn a_handler_learns_that_its_client_has_gone() {
    let mut served = served(Limits::default());
    for half_close in [false, true] {
        let mut client = served.connect().await;
        client.send(&call(1, "until_gone", &json!({}))).await;
        if half_close {
            client.end_input().await;
        }
        served.until(|load| load.requests == 1).await;
        drop(client);
        timeout(PATIENCE, served.methods.saw_gone.notified()).await.expect("it never learned");
        served.until(|load| *load == Load::default()).await;
    }
}

#[tokio::test]
async fn a_line_over_the_limit_is_answered_and_costs_its_connection() {
    let served = served(Limits::default());
    let mut other = served.connect().await;
    for newline in [true, false] {
        let mut client = served.connect().await;
        let mut line = vec![b'x'; 2 * MAX_LINE];
        line.extend(newline.then_some(b'\n'));
        client.send(&line).await;
        let answer = client.line().await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&Value::Null, &json!(INVALID_REQUEST)));
        assert_eq!(answer["error"]["message"], "a line is longer than 1048576 bytes");
        client.closed().await;
    }
    other.send(&call(1, "echo", &json!({}))).await;
    assert_eq!(other.line().await["id"], 1);
}

#[tokio::test]
async fn a_line_of_the_longest_length_is_served() {
    let served = served(Limits::default());
    let mut client = served.connect().await;
    let frame = call(1, "echo", &json!([""])).len() - 1;
    let text = "x".repeat(MAX_LINE - frame);
    let line = call(1, "echo", &json!([text]));
    assert_eq!(line.len(), MAX_LINE + 1);
    client.send(&line).await;
    assert_eq!(client.line().await["result"], json!([text]));
}

#[tokio::test]
async fn invalid_utf8_is_answered_and_costs_its_connection() {
    let served = served(Limits::default());
    let mut client = served.connect().await;
    client.send(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}\n").await;
    assert_eq!(client.line().await["error"]["code"], PARSE_ERROR);
    client.closed().await;
}

#[tokio::test]
async fn half_a_line_is_answered_when_its_time_is_over() {
    let served = served(Limits { half_line: Duration::from_millis(50), ..Limits::default() });
    let mut client = served.connect().await;
    client.send(b"{\"jsonrpc\"").await;
    let answer = client.line().await;
    assert_eq!(answer["error"]["code"], INVALID_REQUEST);
    assert_eq!(answer["error"]["message"], "a line without its end for 0.05 s: a message is one line and a newline");
    client.closed().await;
}

#[tokio::test]
async fn a_fault_does_not_take_the_answers_that_were_asked_before_it() {
    let served = served(Limits { farewell: PATIENCE, ..Limits::default() });
    let mut client = served.connect().await;
    client.send(&call(1, "held", &json!({}))).await;
    client.send(b"\xff\n").await;
    assert_eq!(client.line().await["error"]["code"], PARSE_ERROR);
    served.methods.open.notify_one();
    assert_eq!(client.line().await["id"], 1);
    client.closed().await;
}

#[tokio::test]
async fn notifications_come_before_their_answer() {
    let served = served(Limits::default());
    let mut client = served.connect().await;
    client.send(&call(1, "tells", &json!({"count": 2}))).await;
    assert_eq!(client.line().await["params"]["n"], 0);
    assert_eq!(client.line().await["params"]["n"], 1);
    assert_eq!(client.line().await["id"], 1);
}

#[tokio::test]
async fn a_client_that_is_slow_to_read_loses_notifications_and_no_answer() {
    let served = served(Limits::default());
    let mut client = served.connect().await;
    let calls = 20;
    for id in 0..calls {
        client.send(&call(id, "tells", &json!({"count": 1000}))).await;
    }
    let (mut told, mut answered) = (0, 0);
    while answered < calls {
        let line = client.line().await;
        if line["method"] == "told" { told += 1 } else { answered += 1 }
    }
    assert!(told < calls * 1000, "20 MB of notifications were kept for it");
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_closed() {
    let mut served = served(Limits { stalled: Duration::from_millis(50), ..Limits::default() });
    let mut client = served.connect().await;
    let line = call(1, "echo", &json!(["x".repeat(1000)]));
    // More answers than the socket's buffer and the queue hold; the server stops reading, so the rest is not waited for.
    let flood = timeout(PATIENCE, async { while client.0.get_mut().write_all(&line).await.is_ok() {} });
    flood.await.expect("it takes requests without end");
    served.until(|load| *load == Load::default()).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_why() {
    let mut served = served(Limits { connections: 1, ..Limits::default() });
    let first = served.connect().await;
    served.until(|load| load.connections == 1).await;
    let mut second = served.connect().await;
    let answer = second.line().await;
    assert_eq!((&answer["id"], &answer["error"]["data"]["kind"]), (&Value::Null, &json!("busy")));
    second.closed().await;
    drop(first);
    served.until(|load| load.connections == 0).await;
    let mut third = served.connect().await;
    third.send(&call(1, "echo", &json!({}))).await;
    assert_eq!(third.line().await["id"], 1);
}

#[tokio::test]
async fn a_shutdown_answers_what_is_in_flight_and_takes_no_more() {
    let mut served = served(Limits { shutdown: PATIENCE, ..Limits::default() });
    let mut idle = served.connect().await;
    let mut client = served.connect().await;
    client.send(&call(1, "held", &json!({}))).await;
    served.until(|load| load.requests == 1 && load.connections == 2).await;
    served.stop.send_replace(true);
    idle.closed().await;
    assert!(UnixStream::connect(&served.path).await.is_err());
    client.send(&call(2, "echo", &json!({}))).await;
    served.methods.open.notify_one();
    assert_eq!(client.line().await["id"], 1);
    client.closed().await;
    timeout(PATIENCE, &mut served.server).await.expect("it never ends").unwrap();
}

#[tokio::test]
async fn a_shutdown_waits_only_so_long() {
    let mut served = served(Limits { shutdown: Duration::from_millis(50), ..Limits::default() });
    let mut client = served.connect().await;
    client.send(&call(1, "held", &json!({}))).await;
    served.until(|load| load.requests == 1).await;
    served.stop.send_replace(true);
    timeout(PATIENCE, &mut served.server).await.expect("it never ends").unwrap();
    client.closed().await;
}

/// Runs the blocking client beside the server.
async fn with_client<T: Send + 'static>(served: &Served, talk: impl FnOnce(Client) -> T + Send + 'static) -> T {
    let path = served.path.clone();
    let client = tokio::task::spawn_blocking(move || talk(Client::connect(&path).unwrap()));
    timeout(PATIENCE, client).await.expect("the client hangs").unwrap()
}

#[tokio::test]
async fn the_client_calls() {
    let served = served(Limits::default());
    with_client(&served, |mut client| {
        let mut told = Vec::new();
        let wait = Wait::default();
        let result = client.call("tells", &json!({"count": 2}), &wait, |method, params| {
            told.push((method.to_owned(), params.read::<Value>().unwrap()["n"].as_u64()));
        });
        assert_eq!(result, Ok(json!("told").into()));
        assert_eq!(told, [("told".into(), Some(0)), ("told".into(), Some(1))]);
        let Err(CallFailure::Remote(error)) = client.call("refused", &json!({}), &wait, |_, _| {}) else {
            panic!("not refused")
        };
        assert_eq!(error, Error::new(Kind::NotFound, "no such volume").hint("volctl ls").into());
    })
    .await;
}

#[tokio::test]
async fn the_client_gathers_several_answers_as_they_come() {
    let served = served(Limits::default());
    let methods = Arc::clone(&served.methods);
    with_client(&served, move |mut client| {
        let held = client.send("held", &json!({})).unwrap();
        let echoed = client.send("echo", &json!([1])).unwrap();
        let wait = Wait::default();
        assert_eq!(client.next(&wait), Ok(Incoming::Answer { id: echoed, outcome: Ok(json!([1]).into()) }));
        methods.open.notify_one();
        assert_eq!(client.next(&wait), Ok(Incoming::Answer { id: held, outcome: Ok(json!("let go").into()) }));
    })
    .await;
}

#[tokio::test]
async fn the_client_waits_only_to_its_deadline_and_goes_on_afterwards() {
    let served = served(Limits::default());
    let methods = Arc::clone(&served.methods);
    with_client(&served, move |mut client| {
        let held = client.send("held", &json!({})).unwrap();
        let deadline = Instant::now().into_std() + Duration::from_millis(20);
        let short = Wait { deadline: Some(deadline), interrupt: None };
        assert_eq!(client.next(&short), Ok(Incoming::TimedOut));
        assert!(Instant::now().into_std() >= deadline);
        methods.open.notify_one();
        let answer = client.next(&Wait::default());
        assert_eq!(answer, Ok(Incoming::Answer { id: held, outcome: Ok(json!("let go").into()) }));
    })
    .await;
}

#[tokio::test]
async fn the_client_can_be_interrupted() {
    let served = served(Limits::default());
    let (mut sender, receiver) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut load = served.load.clone();
    let interrupted = with_client(&served, move |mut client| {
        let wait = Wait { deadline: None, interrupt: Some(receiver.as_fd()) };
        client.call("held", &json!({}), &wait, |_, _| {})
    });
    let interrupt = async {
        load.wait_for(|load| load.requests == 1).await.unwrap();
        sender.write_all(b"x").unwrap();
    };
    assert_eq!(tokio::join!(interrupted, interrupt).0, Err(CallFailure::Interrupted));
}

#[tokio::test]
async fn the_client_says_that_the_daemon_went_away() {
    let served = served(Limits { shutdown: Duration::ZERO, ..Limits::default() });
    let stop = served.stop.clone();
    let mut load = served.load.clone();
    let stopping = async move {
        load.wait_for(|load| load.requests == 1).await.unwrap();
        stop.send_replace(true);
    };
    let failure = with_client(&served, |mut client| client.call("held", &json!({}), &Wait::default(), |_, _| {}));
    let (failure, ()) = tokio::join!(failure, stopping);
    let Err(CallFailure::Lost(error)) = failure else { panic!("{failure:?}") };
    assert_eq!(error.kind, Kind::DaemonUnreachable);
    let path = served.path.display();
    assert_eq!(error.message, format!("the daemon on {path} closed the connection before it had answered"));
}

#[tokio::test]
async fn the_client_hears_why_it_was_refused_even_where_it_cannot_write_any_more() {
    let mut served = served(Limits { connections: 1, ..Limits::default() });
    let _first = served.connect().await;
    served.until(|load| load.connections == 1).await;
    with_client(&served, |mut client| {
        let wait = Wait::default();
        let heard = client.next(&wait).unwrap_err();
        assert_eq!(heard.kind, Kind::Busy);
    })
    .await;
    with_client(&served, |mut client| {
        let failure = client.call("echo", &json!(["x".repeat(MAX_LINE)]), &Wait::default(), |_, _| {}).unwrap_err();
        assert!(matches!(failure, CallFailure::Lost(Error { kind: Kind::Busy, .. })), "{failure:?}");
    })
    .await;
}

#[test]
fn the_client_tells_three_kinds_of_unreachable_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let error = Client::connect(&path).unwrap_err();
    assert_eq!(error.kind, Kind::DaemonUnreachable);
    assert_eq!(error.message, format!("there is no daemon's socket at {}", path.display()));
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let error = Client::connect(&path).unwrap_err();
    assert_eq!(error.kind, Kind::DaemonUnreachable);
    assert_eq!(error.message, format!("no daemon listens on {}", path.display()));
    assert!(error.hint.unwrap().contains("VOLCTL_SOCKET"));
    let long = dir.path().join("x".repeat(200));
    assert_eq!(Client::connect(&long).unwrap_err().kind, Kind::DaemonUnreachable);
}

#[test]
fn the_client_does_not_take_another_server_for_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut client = Client::connect(&path).unwrap();
    listener.accept().unwrap().0.write_all(b"220 mail.example ESMTP\r\n").unwrap();
    let error = client.next(&Wait::default()).unwrap_err();
    assert_eq!(error.message, format!("what answers on {} is not volctld", path.display()));
}
