//! The HTTP server: reads bounded requests, and sends answers whole, or broken as a fault has it (facts sheet, 1.1).

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Channel, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, LOCATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use crate::faults::Delivery;
use crate::reply::Reply;
use crate::request::ApiRequest;
use crate::simulator::Simulator;
use crate::{admin, api};

/// The largest form.
const MAX_BODY: usize = 1 << 20;
/// The largest head, URL included.
const MAX_HEAD: usize = 8 << 10;
/// How long an idle connection stays.
const IDLE: Duration = Duration::from_secs(30);

type Body = BoxBody<Bytes, Cut>;

/// An error that ends the connection, for hyper's ears.
#[derive(Debug)]
struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cut on purpose")
    }
}

impl std::error::Error for Cut {}

/// Serves connections for ever.
pub async fn serve(listener: TcpListener, simulator: Arc<Simulator>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(converse(stream, simulator.clone()))),
            // Out of file descriptors, say: let others finish.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn converse(stream: TcpStream, simulator: Arc<Simulator>) {
    let service = service_fn(|request| handle(simulator.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(MAX_HEAD)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service);
    // How a connection ends is the client's affair, or a fault's.
    let _ = connection.await;
}

async fn handle(simulator: Arc<Simulator>, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        return Ok(page(StatusCode::BAD_REQUEST, "Form too large"));
    };
    let body = body.to_bytes();
    match head.uri.path() {
        path if path.starts_with("/admin/") => {
            let (status, answer) = admin::handle(&simulator, &head.method, path, &body).await;
            Ok(json(status, answer))
        }
        "/client/api" | "/client/api/" => {
            let form: &[u8] = if is_form(&head.headers) { &body } else { &[] };
            let is_post = head.method == Method::POST;
            if !is_post && head.method != Method::GET {
                return Ok(page(StatusCode::METHOD_NOT_ALLOWED, "HTTP method is not supported by this URL"));
            }
            match ApiRequest::decode(is_post, head.uri.query().unwrap_or_default(), form) {
                Some(request) => call(simulator, request).await,
                None => Ok(page(StatusCode::BAD_REQUEST, "Form has too many keys")),
            }
        }
        path if path.starts_with("/client/") => Ok(page(StatusCode::NOT_FOUND, "Not Found")),
        _ => Ok(elsewhere()),
    }
}

/// Carries a call out in a task of its own, so that it does not end when the client goes away.
async fn call(simulator: Arc<Simulator>, request: ApiRequest) -> Result<Response<Body>, Cut> {
    let answer = tokio::spawn(api::answer(simulator.clone(), request)).await;
    // An unexpected exception: the servlet logs it and sends nothing.
    let delivery = answer.unwrap_or_else(|_| Delivery::Whole(Reply::text("")));
    let mut response = match delivery {
        Delivery::Cut => return Err(Cut),
        Delivery::Whole(reply) => with_body(&reply, whole(reply.body.clone())),
        Delivery::Truncated(reply) => truncated(&reply),
        Delivery::Endless => with_body(&Reply::text(""), endless()),
        Delivery::Slow(reply, interval) => with_body(&reply, slow(reply.body.clone(), interval)),
    };
    if let Some(date) = date(&simulator) {
        response.headers_mut().insert(DATE, date);
    }
    Ok(response)
}

/// The cloud's time, where it tells it.
fn date(simulator: &Simulator) -> Option<HeaderValue> {
    let world = simulator.world();
    let text = world.now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    HeaderValue::from_str(&text).ok().filter(|_| world.settings.tells_time)
}

fn is_form(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

fn with_body(reply: &Reply, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
    let description = reply.description.as_deref().map(HeaderValue::from_str);
    if let Some(Ok(description)) = description {
        headers.insert("X-Description", description);
    }
    response
}

fn whole(text: String) -> Body {
    Full::from(text).map_err(|never: Infallible| match never {}).boxed()
}

fn truncated(reply: &Reply) -> Response<Body> {
    let (mut sender, body) = Channel::<Bytes, Cut>::new(2);
    let half = Bytes::copy_from_slice(&reply.body.as_bytes()[..reply.body.len() / 2]);
    tokio::spawn(async move {
        // Fails only if nobody reads any more.
        let _ = sender.send_data(half).await;
        sender.abort(Cut);
    });
    let mut response = with_body(reply, body.boxed());
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(reply.body.len()));
    response
}

fn endless() -> Body {
    let (mut sender, body) = Channel::<Bytes, Cut>::new(2);
    tokio::spawn(async move {
        let mut chunk = Bytes::from_static(b"{\"listvolumesresponse\":{\"volume\":[");
        while sender.send_data(chunk).await.is_ok() {
            chunk = Bytes::from_static(&[b' '; 4096]);
        }
    });
    body.boxed()
}

fn slow(text: String, interval: Duration) -> Body {
    let (mut sender, body) = Channel::<Bytes, Cut>::new(2);
    tokio::spawn(async move {
        for byte in text.into_bytes() {
            tokio::time::sleep(interval).await;
            if sender.send_data(Bytes::from(vec![byte])).await.is_err() {
                return;
            }
        }
    });
    body.boxed()
}

fn page(status: StatusCode, title: &str) -> Response<Body> {
    let reply = Reply::html(status.as_u16(), title);
    with_body(&reply, whole(reply.body.clone()))
}

fn json(status: u16, body: String) -> Response<Body> {
    with_body(&Reply { status, ..Reply::text("") }, whole(body))
}

/// What is outside the servlet's context is sent to it, for good.
fn elsewhere() -> Response<Body> {
    let mut response = page(StatusCode::MOVED_PERMANENTLY, "Moved Permanently");
    response.headers_mut().insert(LOCATION, HeaderValue::from_static("/client"));
    response
}
