//! One question over HTTP to a container, on a connection that the engine makes.

use std::net::TcpStream;

use compose::ReadyHttp;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, body::Bytes};
use hyper_util::rt::TokioIo;
use regex::Regex;

/// What a readiness page says fits; a longer answer is not looked at.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Of a wrong answer, so much is shown.
const SHOWN_CHARS_MAX: usize = 80;

/// Asks; `Ok` when the answer is as expected, else why not, in words.
pub(crate) async fn ask(stream: TcpStream, host: &str, wanted: &ReadyHttp, body: Option<&Regex>) -> Result<(), String> {
    stream.set_nonblocking(true).map_err(|error| error.to_string())?;
    let stream = tokio::net::TcpStream::from_std(stream).map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let request = Request::get(&wanted.path)
        .header("host", host)
        .header("user-agent", "seatrial")
        .header("connection", "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let is_expected = match wanted.status {
            Some(expected) => expected.matches(status),
            None => (200..400).contains(&status),
        };
        if !is_expected {
            return Err(format!("answers {status}"));
        }
        let Some(pattern) = body else { return Ok(()) };
        let bytes = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        let bytes = bytes.map_err(|error| format!("the answer cannot be read: {error}"))?.to_bytes();
        let text = String::from_utf8_lossy(&bytes);
        if pattern.is_match(&text) {
            return Ok(());
        }
        let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
        Err(format!("the answer does not match: {}", shown.replace(char::is_control, " ").trim()))
    };
    // The connection has to be driven for as long as the exchange waits for it, and no longer.
    tokio::pin!(exchange);
    tokio::pin!(connection);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(error.to_string()),
        },
    }
}
