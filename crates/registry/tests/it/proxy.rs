//! An HTTP proxy that does to answers what the test's script says, and remembers what was asked.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, TryStreamExt};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle};

/// What happens to one request.
pub(crate) enum Fault {
    /// It is passed on.
    Pass,
    /// It is answered here.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// It is answered here without end and without a length.
    Endless,
    /// It is passed on; after so many bytes of the answer's body the rest waits for a permit.
    Held(usize, Arc<Semaphore>),
    /// It is passed on, and the answer gets this header.
    Header(&'static str, String),
    /// It is passed on; what the answer points to (`Location`) is on this host.
    Redirected(SocketAddr),
    /// It is passed on; the answer breaks off after so many bytes of its body.
    Cut(usize),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    /// With its query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// Requests under way when it came, itself included.
    pub(crate) active: usize,
}

impl Seen {
    pub(crate) fn authorization(&self) -> Option<&str> {
        self.headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn is(&self, method: Method, part: &str) -> bool {
        self.method == method && self.path.contains(part)
    }
}

type Script = dyn Fn(&Seen, &[Seen]) -> Fault + Send + Sync;

struct Shared {
    target: SocketAddr,
    script: Box<Script>,
    seen: Mutex<Vec<Seen>>,
    active: AtomicUsize,
    http: reqwest::Client,
}

/// The proxy, running.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// `script` sees each request and those before it.
    pub(crate) async fn start(
        target: SocketAddr,
        script: impl Fn(&Seen, &[Seen]) -> Fault + Send + Sync + 'static,
    ) -> Self {
        // Makes the TLS provider known, without which no client can be built.
        let _ = crate::support::client().ping(&target.to_string()).await;
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let shared = Arc::new(Shared {
            target,
            script: Box::new(script),
            seen: Mutex::default(),
            active: AtomicUsize::new(0),
            http,
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(relay).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, shared, task }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, method: Method, part: &str) -> usize {
        self.seen().iter().filter(|seen| seen.is(method.clone(), part)).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let under_way = UnderWay::begin(&shared);
    let active = shared.active.load(Ordering::SeqCst);
    let seen = Seen { method: parts.method.clone(), path: path.clone(), headers: parts.headers.clone(), active };
    let fault = {
        let mut all = shared.seen.lock().unwrap();
        let fault = (shared.script)(&seen, &all);
        all.push(seen);
        fault
    };
    let (mut held, mut cut, mut redirected) = (None, None, None);
    let extra = match fault {
        Fault::Pass => None,
        Fault::Held(bytes, permits) => {
            held = Some((bytes, permits));
            None
        }
        Fault::Redirected(host) => {
            redirected = Some(host);
            None
        }
        Fault::Cut(bytes) => {
            cut = Some(bytes);
            None
        }
        Fault::Header(name, value) => Some((name, value)),
        Fault::Answer(status, headers, bytes) => {
            // The body is read, as an honest server would.
            let mut stream = body.into_data_stream();
            while let Some(Ok(_)) = stream.next().await {}
            let mut response = (StatusCode::from_u16(status).unwrap(), bytes).into_response();
            for (name, value) in headers {
                response.headers_mut().insert(HeaderName::from_static(name), value.parse().unwrap());
            }
            return response;
        }
        Fault::Endless => {
            let spaces = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 4096]));
            return Body::from_stream(spaces).into_response();
        }
    };
    let mut headers = parts.headers;
    headers.remove(header::HOST);
    let request = shared
        .http
        .request(parts.method, format!("http://{}{path}", shared.target))
        .headers(headers)
        .body(reqwest::Body::wrap_stream(body.into_data_stream()));
    let Ok(answer) = request.send().await else { return StatusCode::BAD_GATEWAY.into_response() };
    let mut response = Response::builder().status(answer.status());
    *response.headers_mut().unwrap() = answer.headers().clone();
    let body = match held {
        None => {
            let mut left = cut.unwrap_or(usize::MAX);
            let body = answer.bytes_stream().map_err(std::io::Error::other).and_then(move |mut chunk| {
                // The request is under way until its answer is through.
                let _under_way = &under_way;
                chunk.truncate(left);
                left -= chunk.len();
                std::future::ready(if left == 0 && chunk.is_empty() {
                    Err(std::io::Error::other("cut"))
                } else {
                    Ok(chunk)
                })
            });
            Body::from_stream(body)
        }
        Some((first, permits)) => {
            let mut bytes = answer.bytes().await.unwrap();
            let rest = bytes.split_off(first.min(bytes.len()));
            let rest = async move {
                permits.acquire().await.unwrap().forget();
                rest
            };
            let first = futures::stream::once(async move { bytes });
            Body::from_stream(first.chain(futures::stream::once(rest)).map(Ok::<_, std::io::Error>))
        }
    };
    let mut response = response.body(body).unwrap();
    if let (Some(host), Some(path)) = (redirected, response.headers().get(header::LOCATION)) {
        let target = format!("http://{host}{}", path.to_str().unwrap());
        response.headers_mut().insert(header::LOCATION, target.parse().unwrap());
    }
    if let Some((name, value)) = extra {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_str(&value).unwrap());
    }
    response
}

/// Counts a request while it lives.
struct UnderWay(Arc<Shared>);

impl UnderWay {
    fn begin(shared: &Arc<Shared>) -> Self {
        shared.active.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(shared))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::SeqCst);
    }
}
