//! The client of the API server: kube's own, over connections that notice the end of the other side.
//!
//! A watch only listens. When the server's host loses its power, or a node forgets how it translates
//! the connection, nothing is ever heard again; the server's bookmarks come about once a minute, so
//! that their absence says little soon. TCP's own keepalive asks the other end (RFC 9293 §3.8.4):
//! silence ends the connection after [`ASK`] and [`TRIES`] × [`AGAIN`], a server that has started
//! anew ends it at the first question.

use std::time::Duration;

use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::{Client, Config, Error};
use tower::retry::RetryLayer;
use tower::{BoxError, ServiceBuilder};

/// A connection that is as long silent is asked.
const ASK: Duration = Duration::from_secs(10);
/// Between two questions.
const AGAIN: Duration = Duration::from_secs(5);
/// So many without an answer end it.
const TRIES: u32 = 3;
/// Sent data must be acknowledged within this.
const UNHEARD: Duration = Duration::from_secs(15);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

/// What a connection reads at once, at most: a watch's buffer keeps the size that its first list
/// made it take.
const BUFFER: usize = 64 << 10;

/// A client by this configuration.
///
/// # Errors
/// When certificates or credentials in it cannot be used.
pub(crate) fn client(config: Config) -> Result<Client, Error> {
    let http = Http::builder(TokioExecutor::new())
        .http1_max_buf_size(BUFFER)
        .build::<_, Body>(config.rustls_https_connector_with_connector(connector())?);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(RetryLayer::new(RetryPolicy::server_retry()))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    // TLS comes above it.
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_keepalive(Some(ASK));
    connector.set_keepalive_interval(Some(AGAIN));
    connector.set_keepalive_retries(Some(TRIES));
    connector.set_tcp_user_timeout(Some(UNHEARD));
    connector
}

#[cfg(test)]
mod tests {
    use hyper_util::client::legacy::connect::Connection as _;
    use hyper_util::rt::TokioIo;
    use socket2::SockRef;
    use tokio::net::{TcpListener, TcpStream};
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn connections_are_asked_whether_the_other_end_is_there() {
        let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let to = format!("http://{}", server.local_addr().expect("its address"));
        let stream: TokioIo<TcpStream> = connector()
            .oneshot(to.parse().expect("an address"))
            .await
            .expect("connected");
        assert!(!stream.connected().is_proxied());
        let stream = stream.into_inner();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().expect("the option"));
        assert_eq!(socket.tcp_keepalive_time().expect("the option"), ASK);
        assert_eq!(socket.tcp_keepalive_interval().expect("the option"), AGAIN);
        assert_eq!(socket.tcp_keepalive_retries().expect("the option"), TRIES);
        assert_eq!(
            socket.tcp_user_timeout().expect("the option"),
            Some(UNHEARD)
        );
    }
}
