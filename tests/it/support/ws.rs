//! A WebSocket client that sends frames as the test says, right or wrong.

use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::client::Client;
use super::http::each_is_secured;
use super::pki::{Certified, PATIENCE};
use super::served::{Served, Site, modern};

/// The key and the answer to it of RFC 6455, section 1.3.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const MASK: [u8; 4] = [7, 0, 255, 9];

pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;

pub struct Ws {
    pub stream: TlsStream<TcpStream>,
    next_id: u64,
}

/// A masked frame with this first byte.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = head(first, payload.len());
    out.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    out
}

/// The head of a masked frame that says it is so long.
pub fn head(first: u8, length: usize) -> Vec<u8> {
    let mut out = vec![first];
    match length {
        short @ ..=125 => out.push(0x80 | u8::try_from(short).unwrap()),
        middle @ ..=0xffff => {
            out.push(0x80 | 126);
            out.extend(u16::try_from(middle).unwrap().to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend((long as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out
}

/// TLS for HTTP/1.1 as this client.
pub async fn https(site: &Site, served: &Served, who: &Certified) -> TlsStream<TcpStream> {
    let client = Client::of(who, &site.server_root).offering(&["http/1.1"]);
    let tcp = TcpStream::connect(served.address).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let connector = TlsConnector::from(std::sync::Arc::new(client.config));
    connector
        .connect(ServerName::try_from("localhost").unwrap(), tcp)
        .await
        .unwrap()
}

/// Asks for the upgrade with these fields beside the necessary ones; the answer's head in lower case.
pub async fn upgrade(stream: &mut TlsStream<TcpStream>, more: &str) -> String {
    let request = format!(
        "GET /mcp HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{more}\r\n"
    );
    answer(stream, &request).await
}

/// Sends this and reads the head of the answer.
pub async fn answer(stream: &mut TlsStream<TcpStream>, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    // TLS keeps what the socket does not take at once, and reading does not send it.
    stream.flush().await.unwrap();
    let reading = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("the head is whole"));
        }
        String::from_utf8(head).unwrap()
    };
    let head = tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("an answer in time");
    each_is_secured(&head);
    head
}

impl Ws {
    /// An open WebSocket with the subprotocol.
    pub async fn open(site: &Site, served: &Served, who: &Certified) -> Self {
        let mut stream = https(site, served, who).await;
        let head = upgrade(&mut stream, "Sec-WebSocket-Protocol: mcp\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        Self { stream, next_id: 0 }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        // A server that has hung up is noticed by reading.
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// The first byte and the payload of the next frame; none at the end of the stream.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let reading = async {
            let first = self.stream.read_u8().await.ok()?;
            let length = match self.stream.read_u8().await.ok()? {
                126 => usize::from(self.stream.read_u16().await.ok()?),
                127 => usize::try_from(self.stream.read_u64().await.ok()?).unwrap(),
                short => usize::from(short),
            };
            let mut payload = vec![0; length];
            self.stream.read_exact(&mut payload).await.ok()?;
            Some((first, payload))
        };
        tokio::time::timeout(PATIENCE, reading)
            .await
            .expect("a frame in time")
    }

    /// The next message.
    pub async fn message(&mut self) -> Value {
        let (first, payload) = self.frame().await.expect("the WebSocket is open");
        assert_eq!(first, TEXT, "{}", String::from_utf8_lossy(&payload));
        serde_json::from_slice(&payload).unwrap()
    }

    /// The code of the close frame that comes next but for messages, and then the end.
    pub async fn closed(&mut self) -> u16 {
        loop {
            match self.frame().await.expect("a close frame before the end") {
                (CLOSE, payload) => {
                    assert!(
                        self.frame().await.is_none(),
                        "nothing follows a close frame"
                    );
                    return u16::from_be_bytes([payload[0], payload[1]]);
                }
                (TEXT | PING | PONG, _) => (),
                (other, _) => panic!("a frame {other:#x}"),
            }
        }
    }

    /// A modern request and its answer as it is written.
    pub async fn ask_raw(&mut self, method: &str, params: Value) -> String {
        self.next_id += 1;
        let request = modern(self.next_id, method, params).to_string();
        self.send(&frame(TEXT, request.as_bytes())).await;
        let (first, payload) = self.frame().await.expect("the WebSocket is open");
        assert_eq!(first, TEXT);
        String::from_utf8(payload).unwrap()
    }

    pub async fn ask(&mut self, method: &str, params: Value) -> Value {
        serde_json::from_str(&self.ask_raw(method, params).await).unwrap()
    }
}
