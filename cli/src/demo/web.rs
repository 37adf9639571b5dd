//! The example's page for customers, on a port of its own: a front end as another server would have it.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

/// Browsers at a demo, at most.
const CONNECTIONS_MAX: usize = 64;

macro_rules! file {
    ($name:literal, $kind:literal) => {
        (concat!("/", $name), $kind, include_str!(concat!("../../../examples/billing/web/", $name)))
    };
}

const FILES: [(&str, &str, &str); 8] = [
    file!("index.html", "text/html; charset=utf-8"),
    file!("style.css", "text/css; charset=utf-8"),
    file!("app.js", "text/javascript; charset=utf-8"),
    file!("api.js", "text/javascript; charset=utf-8"),
    file!("detail.js", "text/javascript; charset=utf-8"),
    file!("dom.js", "text/javascript; charset=utf-8"),
    file!("format.js", "text/javascript; charset=utf-8"),
    file!("list.js", "text/javascript; charset=utf-8"),
];

/// Serves the page on this loopback port until `stop` is cancelled; it asks the API on `api_port`.
pub(super) async fn start(port: u16, api_port: u16, stop: CancellationToken) -> Result<(), Failure> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| Failure::caused(format_args!("cannot listen on {address} for the example's page"), &error))?;
    tokio::spawn(stop.run_until_cancelled_owned(serve(listener, api_port)));
    Ok(())
}

async fn serve(listener: TcpListener, api_port: u16) {
    // Connections end with this task.
    let mut connections = JoinSet::new();
    loop {
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else { continue };
        let service = service_fn(move |request: Request<Incoming>| async move {
            Ok::<_, Infallible>(answer(request.uri().path(), api_port))
        });
        connections.spawn(async move {
            if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "a connection to the example's page ended early");
            }
        });
    }
}

fn answer(path: &str, api_port: u16) -> Response<Full<Bytes>> {
    let path = if path == "/" { "/index.html" } else { path };
    let found = FILES.iter().find(|(name, ..)| *name == path);
    let (status, kind, body) = match found {
        Some((_, kind, text)) => (StatusCode::OK, *kind, Bytes::from_static(text.as_bytes())),
        None if path == "/config.json" => {
            let config = serde_json::json!({ "api": format!("http://127.0.0.1:{api_port}") });
            (StatusCode::OK, "application/json", config.to_string().into())
        }
        None => (StatusCode::NOT_FOUND, "text/plain; charset=utf-8", Bytes::from_static(b"there is nothing here\n")),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_page_is_served() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/billing/web");
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert_eq!(answer(&format!("/{name}"), 1).status(), StatusCode::OK, "{name}");
        }
        assert_eq!(answer("/", 1).headers()[CONTENT_TYPE], "text/html; charset=utf-8");
        assert_eq!(answer("/other", 1).status(), StatusCode::NOT_FOUND);
    }
}
