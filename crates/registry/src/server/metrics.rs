//! What the server counts, in Prometheus' text form. Labels are of closed sets or of the configuration: nothing that a client
//! sends becomes one.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use tokio::task::spawn_blocking;

use super::{Shared, answer::Refusal, collect::CollectReport};

/// Repositories and blobs are counted again after this time: it takes a walk over all their names.
const COUNTED_EVERY: Duration = Duration::from_secs(60);
/// Seconds: a manifest from memory takes a thousandth, a layer of gigabytes minutes.
const DURATION_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0];

/// How a question to a cached registry was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CacheAnswer {
    /// By what is here.
    Hit,
    /// By what is here, after the upstream said that it is still so.
    Revalidated,
    /// By what was fetched.
    Miss,
    /// By what is here, because the upstream cannot be asked.
    Stale,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: &'static str,
    status: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: &'static str,
    route: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheLabels {
    upstream: String,
    kind: &'static str,
    answer: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HookLabels {
    webhook: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

/// The counters of one server.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    bytes_in: Counter,
    bytes_out: Counter,
    cache: Family<CacheLabels, Counter>,
    collections: Counter,
    collected: Family<KindLabels, Counter>,
    collected_bytes: Counter,
    hook_attempts: Family<HookLabels, Counter>,
    hook_deliveries: Family<HookLabels, Gauge>,
    uploads: Gauge,
    downloads: Gauge,
    repositories: Gauge,
    contents: Gauge,
    counted: Mutex<Option<Instant>>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("seatrial_registry");
        let durations: Family<_, _, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS));
        let mut metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            durations,
            in_flight: Gauge::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            cache: Family::default(),
            collections: Counter::default(),
            collected: Family::default(),
            collected_bytes: Counter::default(),
            hook_attempts: Family::default(),
            hook_deliveries: Family::default(),
            uploads: Gauge::default(),
            downloads: Gauge::default(),
            repositories: Gauge::default(),
            contents: Gauge::default(),
            counted: Mutex::default(),
        };
        let it = &metrics;
        registry.register("requests", "Requests answered", it.requests.clone());
        let help = "Time from a request's head to its answer's last byte";
        registry.register_with_unit("request_duration", help, Unit::Seconds, it.durations.clone());
        registry.register("requests_in_flight", "Requests being answered", it.in_flight.clone());
        registry.register_with_unit("received", "Bytes of bodies received", Unit::Bytes, it.bytes_in.clone());
        registry.register_with_unit("sent", "Bytes of bodies sent", Unit::Bytes, it.bytes_out.clone());
        registry.register("cache_answers", "Questions for what other registries have", it.cache.clone());
        registry.register("collections", "Garbage collections that ended", it.collections.clone());
        registry.register("collected", "Things that garbage collections removed", it.collected.clone());
        let help = "Bytes that garbage collections removed";
        registry.register_with_unit("collected", help, Unit::Bytes, it.collected_bytes.clone());
        registry.register("webhook_attempts", "Attempts to deliver to webhooks", it.hook_attempts.clone());
        registry.register("webhook_deliveries", "Deliveries that wait or failed", it.hook_deliveries.clone());
        registry.register("uploads", "Uploads under way", it.uploads.clone());
        registry.register("downloads", "Downloads from upstreams under way", it.downloads.clone());
        registry.register("repositories", "Repositories with a manifest", it.repositories.clone());
        registry.register("contents", "Blobs and manifests, each counted once", it.contents.clone());
        metrics.registry = registry;
        metrics
    }

    /// A question for what an upstream has was answered.
    pub(super) fn cache(&self, upstream: &str, kind: &'static str, answer: CacheAnswer) {
        let answer = match answer {
            CacheAnswer::Hit => "hit",
            CacheAnswer::Revalidated => "revalidated",
            CacheAnswer::Miss => "miss",
            CacheAnswer::Stale => "stale",
        };
        self.cache.get_or_create(&CacheLabels { upstream: upstream.to_owned(), kind, answer }).inc();
    }

    /// Something was `delivered` to a webhook, or the attempt `failed`, or nothing was tried: `dropped`.
    pub(super) fn hook_attempt(&self, webhook: &str, outcome: &'static str) {
        self.hook_attempts.get_or_create(&HookLabels { webhook: webhook.to_owned(), outcome }).inc();
    }

    /// A garbage collection ended.
    pub(super) fn collected(&self, report: &CollectReport) {
        if report.is_dry_run {
            return;
        }
        self.collections.inc();
        self.collected_bytes.inc_by(report.bytes);
        let counts = [
            ("tag", report.tags),
            ("manifest", report.manifests),
            ("blob", report.blobs),
            ("content", report.contents),
        ];
        for (kind, count) in counts {
            self.collected.get_or_create(&KindLabels { kind }).inc_by(count as u64);
        }
    }
}

/// A request under way.
pub(super) struct Seen {
    shared: Arc<Shared>,
    labels: RouteLabels,
    begun: Instant,
    status: StatusCode,
}

impl Seen {
    /// Begins to count a request; its body is counted as it is read.
    pub(super) fn begin(shared: &Arc<Shared>, route: &'static str, request: Request) -> (Self, Request) {
        let metrics = &shared.metrics;
        metrics.in_flight.inc();
        let labels = RouteLabels { method: method(request.method()), route };
        let seen =
            // An answer that never comes about is one that nobody waited for, as nginx counts it.
            Self { shared: Arc::clone(shared), labels, begun: Instant::now(), status: CLIENT_WENT };
        let counter = metrics.bytes_in.clone();
        (seen, request.map(|body| Body::new(Counted { body, counter, _seen: None })))
    }

    /// The answer's head is known: its body is counted as it is sent, and the request ends with it.
    pub(super) fn answer(mut self, response: Response) -> Response {
        self.status = response.status();
        let counter = self.shared.metrics.bytes_out.clone();
        response.map(|body| Body::new(Counted { body, counter, _seen: Some(self) }))
    }
}

/// The client went before it had an answer.
const CLIENT_WENT: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::BAD_REQUEST,
};

impl Drop for Seen {
    fn drop(&mut self) {
        let metrics = &self.shared.metrics;
        metrics.in_flight.dec();
        metrics.durations.get_or_create(&self.labels).observe(self.begun.elapsed().as_secs_f64());
        let RouteLabels { method, route } = self.labels;
        let status = u32::from(self.status.as_u16());
        metrics.requests.get_or_create(&RequestLabels { method, route, status }).inc();
    }
}

/// A body whose bytes are counted.
struct Counted {
    body: Body,
    counter: Counter,
    // Ends with the body.
    _seen: Option<Seen>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(bytes) = frame.data_ref()
        {
            self.counter.inc_by(bytes.len() as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

fn method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

/// `GET /metrics`.
pub(super) async fn get(shared: &Arc<Shared>) -> Result<Response, Refusal> {
    let shared = Arc::clone(shared);
    let text = spawn_blocking(move || -> io::Result<String> {
        let metrics = &shared.metrics;
        metrics.uploads.set(shared.uploads.count() as i64);
        metrics.downloads.set(shared.upstreams.downloads_count() as i64);
        for (webhook, pending, failed) in shared.hooks.counts()? {
            for (outcome, count) in [("pending", pending), ("failed", failed)] {
                let labels = HookLabels { webhook: webhook.clone(), outcome };
                metrics.hook_deliveries.get_or_create(&labels).set(count as i64);
            }
        }
        let mut counted = metrics.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.is_none_or(|at| at.elapsed() >= COUNTED_EVERY) {
            metrics.repositories.set(shared.storage.repositories()?.len() as i64);
            metrics.contents.set(shared.storage.content_count()? as i64);
            *counted = Some(Instant::now());
        }
        drop(counted);
        let mut text = String::new();
        encode(&mut text, &metrics.registry).map_err(io::Error::other)?;
        Ok(text)
    });
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text.await??).into_response())
}

/// `GET /healthz`: whether the storage answers.
pub(super) async fn health(shared: &Arc<Shared>) -> Result<Response, Refusal> {
    let shared = Arc::clone(shared);
    spawn_blocking(move || shared.storage.backend.list("journal")).await??;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], "ok\n").into_response())
}
