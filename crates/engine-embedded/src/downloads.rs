//! Files of the web, for a builder that knows neither TLS nor an async runtime.

use std::{
    error::Error,
    io::Write,
    time::{Duration, Instant},
};

use builder::{Download, DownloadError, Downloaded, Downloads, Version};
use events::{Event, EventSink};
use jiff::{Timestamp, fmt::rfc2822};
use reqwest::{
    Client, Response, StatusCode,
    header::{ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED},
    redirect::Policy,
};
use url::Url;

/// Redirects followed for one file, as Go's client and so BuildKit does.
const REDIRECTS_MAX: usize = 10;
/// A server that cannot be reached in this time is down.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(30);
/// A server that says nothing for this long has forgotten us.
const IDLE_WAIT_MAX: Duration = Duration::from_secs(60);
/// Asking again after a failure that may pass: the third answer is believed.
const ATTEMPTS_MAX: u32 = 3;
/// The wait before the second attempt; before the third it is twice as long.
const RETRY_WAIT: Duration = Duration::from_millis(500);
/// Larger than any layer that can be pushed; what goes on beyond it never ends.
const FILE_BYTES_MAX: u64 = 32 << 30;
/// How often a waiting download looks whether the build was stopped.
const STOP_TICK: Duration = Duration::from_millis(100);
/// How often progress is told.
const PROGRESS_TICK: Duration = Duration::from_millis(100);

/// Fetches files for one build.
pub(crate) struct WebDownloads<'a> {
    pub(crate) events: &'a EventSink,
    /// The stage id of events.
    pub(crate) stage: &'a str,
}

impl Downloads for WebDownloads<'_> {
    fn get(&self, download: &Download<'_>, to: &mut (dyn Write + Send)) -> Result<Downloaded, DownloadError> {
        // A thread and a runtime of their own: this may be called from inside a runtime or without any.
        std::thread::scope(|scope| {
            let fetch = || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.map_err(|error| DownloadError::Failed(error.into()))?.block_on(self.fetch(download, to))
            };
            let thread = std::thread::Builder::new().name("download".into()).spawn_scoped(scope, fetch);
            let thread = thread.map_err(|error| DownloadError::Failed(error.into()))?;
            thread.join().unwrap_or_else(|_| Err(failed("downloading panicked")))
        })
    }
}

impl WebDownloads<'_> {
    async fn fetch(&self, download: &Download<'_>, to: &mut (dyn Write + Send)) -> Result<Downloaded, DownloadError> {
        let url: Url = download.url.parse().map_err(|error: url::ParseError| DownloadError::Failed(error.into()))?;
        let client = client(&url)?;
        let mut attempt = 1;
        let response = loop {
            let failure = match ask(&client, &url, download).await {
                Ok(Ok(response)) => break response,
                Ok(Err(outcome)) => return Ok(outcome),
                Err(Failure { error, is_transient: true }) if attempt < ATTEMPTS_MAX => error,
                Err(Failure { error, .. }) => return Err(error),
            };
            if (download.is_stopped)() {
                return Err(failure);
            }
            tokio::time::sleep(RETRY_WAIT * attempt).await;
            attempt += 1;
        };
        let version = version(response.headers());
        self.save(response, &url, download, to).await?;
        Ok(Downloaded::Whole(version))
    }

    async fn save(
        &self,
        mut response: Response,
        url: &Url,
        download: &Download<'_>,
        to: &mut (dyn Write + Send),
    ) -> Result<(), DownloadError> {
        let total_bytes = response.content_length();
        let item = url.path_segments().and_then(|mut parts| parts.next_back()).filter(|name| !name.is_empty());
        let item = item.or(url.host_str()).unwrap_or_default().to_owned();
        let (mut done_bytes, mut told) = (0, None::<Instant>);
        loop {
            let chunk = unless_stopped(download, response.chunk()).await?.map_err(lost)?;
            done_bytes += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
            if done_bytes > FILE_BYTES_MAX {
                return Err(failed(format!("the file is larger than {} GiB", FILE_BYTES_MAX >> 30)));
            }
            if chunk.is_none() || told.is_none_or(|told| told.elapsed() > PROGRESS_TICK) {
                told = Some(Instant::now());
                let (stage, item) = (self.stage.to_owned(), item.clone());
                self.events.emit(Event::Transfer { stage, item, done_bytes, total_bytes, rate: None });
            }
            let Some(chunk) = chunk else { return Ok(()) };
            to.write_all(&chunk).map_err(|error| DownloadError::Failed(error.into()))?;
        }
    }
}

/// A failed request, and whether it may go well next time.
struct Failure {
    error: DownloadError,
    is_transient: bool,
}

/// One request: an answer with the file in it, or the outcome that needs no file.
async fn ask(client: &Client, url: &Url, download: &Download<'_>) -> Result<Result<Response, Downloaded>, Failure> {
    let mut request = client.get(url.clone());
    if let Some(known) = download.known {
        if let Some(etag) = &known.etag {
            request = request.header(IF_NONE_MATCH, etag);
        } else if let Some(time) = known.modified.and_then(http_date) {
            request = request.header(IF_MODIFIED_SINCE, time);
        }
    }
    let fatal = |error| Failure { error, is_transient: false };
    let response = match unless_stopped(download, request.send()).await.map_err(fatal)? {
        Ok(response) => response,
        Err(error) => {
            let is_transient = !error.is_redirect() && !error.is_builder();
            return Err(Failure { error: lost(error), is_transient });
        }
    };
    let status = response.status();
    if status == StatusCode::NOT_MODIFIED && download.known.is_some() {
        return Ok(Err(Downloaded::Unchanged));
    }
    if status == StatusCode::OK {
        // Some servers give entity tags and do not look at ours.
        let same =
            |known: &Version| known.etag.is_some() && strong(&known.etag) == strong(&version(response.headers()).etag);
        return Ok(if download.known.is_some_and(same) { Err(Downloaded::Unchanged) } else { Ok(response) });
    }
    let answer = || failed(format!("the server answers {status}"));
    Err(match status.as_u16() {
        404 | 410 => fatal(DownloadError::NotFound),
        401 | 403 => fatal(DownloadError::Refused(format!("the server answers {status}").into())),
        408 | 425 | 429 | 500.. => Failure { error: answer(), is_transient: true },
        _ => fatal(answer()),
    })
}

/// What an entity tag is compared by: weak ones stand for equal content too (RFC 9110, "Comparison").
fn strong(etag: &Option<String>) -> Option<&str> {
    etag.as_deref().map(|etag| etag.trim_start_matches("W/"))
}

fn version(headers: &HeaderMap) -> Version {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let time = |text: String| {
        let zoned = rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_zoned(&text).ok()?;
        u64::try_from(zoned.timestamp().as_second()).ok()
    };
    Version { etag: text(ETAG), modified: text(LAST_MODIFIED).and_then(time) }
}

fn http_date(seconds: u64) -> Option<String> {
    let timestamp = Timestamp::from_second(i64::try_from(seconds).ok()?).ok()?;
    rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&timestamp).ok()
}

fn client(url: &Url) -> Result<Client, DownloadError> {
    // Fails only if a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .user_agent(concat!("seatrial/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_WAIT_MAX)
        .retry(reqwest::retry::never())
        .referer(false)
        .redirect(Policy::custom(|attempt| {
            // Credentials of the URL are for its own host: the client drops them when the host changes.
            let is_downgrade =
                attempt.url().scheme() != "https" && attempt.previous().iter().any(|url| url.scheme() == "https");
            if is_downgrade {
                attempt.error("it leads from https to a connection that is not encrypted")
            } else if attempt.previous().len() > REDIRECTS_MAX {
                attempt.error(format!("there are more than {REDIRECTS_MAX} of them"))
            } else {
                attempt.follow()
            }
        }));
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    if host == "localhost" || address.is_ok_and(|address| address.is_loopback()) {
        // As Go's client: this machine is not asked for by way of another.
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| DownloadError::Failed(error.into()))
}

/// Awaits a piece, with a limit; looks every now and then whether the build was stopped.
async fn unless_stopped<T>(download: &Download<'_>, future: impl Future<Output = T>) -> Result<T, DownloadError> {
    let mut future = std::pin::pin!(future);
    let start = Instant::now();
    loop {
        if let Ok(value) = tokio::time::timeout(STOP_TICK, &mut future).await {
            return Ok(value);
        }
        if (download.is_stopped)() {
            return Err(DownloadError::Stopped);
        }
        if start.elapsed() > IDLE_WAIT_MAX {
            return Err(failed(format!("the server says nothing for {} s", IDLE_WAIT_MAX.as_secs())));
        }
    }
}

/// An error without its URL, which may hold a password.
fn lost(error: reqwest::Error) -> DownloadError {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    failed(text)
}

fn failed(message: impl Into<String>) -> DownloadError {
    DownloadError::Failed(message.into().into())
}
