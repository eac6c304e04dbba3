//! The handshake as a resource: deadlines, bounds, versions, ALPN, the drain.

use countersign::listener::Close;
use countersign::tls::{Class, ClientTls, ClientTlsError, Profile, explain_alert};
use rustls::AlertDescription as Alert;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::{Answer, Client};
use crate::support::echo::{House, SHORT, Seen};
use crate::support::pki::PATIENCE;

#[tokio::test]
async fn a_silent_client_is_gone_at_the_deadline() {
    let mut house = House::new();
    house.listen.handshake_timeout = SHORT;
    let mut open = house.open().await;
    assert_eq!(
        house
            .client(&house.enrol("reader"))
            .knock(open.address)
            .await,
        Answer::Served
    );
    open.came_and_went().await;
    let mut silent = TcpStream::connect(open.address).await.unwrap();
    let read = tokio::time::timeout(PATIENCE, silent.read(&mut [0; 16]))
        .await
        .unwrap();
    assert_eq!(read.unwrap(), 0);
    assert_eq!(open.refused().await.class, Class::Timeout);
}

#[tokio::test]
async fn one_byte_at_a_time_does_not_move_the_deadline() {
    let mut house = House::new();
    house.listen.handshake_timeout = SHORT;
    let mut open = house.open().await;
    let mut slow = TcpStream::connect(open.address).await.unwrap();
    // The head of a record that announces 16 KiB, and then a byte whenever the clock ticks.
    let mut tick = tokio::time::interval(SHORT / 20);
    let drip = async {
        slow.write_all(&[0x16, 3, 1, 0x40, 0]).await?;
        loop {
            tick.tick().await;
            slow.write_all(&[1]).await?;
        }
    };
    let drip: Result<std::io::Result<()>, _> = tokio::time::timeout(PATIENCE, drip).await;
    assert!(drip.expect("the server ends it").is_err());
    assert_eq!(open.refused().await.class, Class::Timeout);
}

#[tokio::test]
async fn a_client_that_speaks_no_tls_is_told_apart() {
    let house = House::new();
    let mut open = house.open().await;
    for says in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"{\"jsonrpc\":\"2.0\"}\n"] {
        let mut odd = TcpStream::connect(open.address).await.unwrap();
        odd.write_all(says).await.unwrap();
        assert_eq!(open.refused().await.class, Class::Protocol);
        // A stranger is told nothing but an alert (RFC 8446, section 6.2), and that it is fatal.
        let mut told = Vec::new();
        odd.read_to_end(&mut told).await.unwrap();
        assert_eq!((told[0], told[5], told.len()), (21, 2, 7), "{told:?}");
    }
    drop(TcpStream::connect(open.address).await.unwrap());
    let refusal = open.refused().await;
    assert_eq!(refusal.class, Class::Protocol);
    assert!(refusal.reason.contains("left"), "{refusal}");
}

#[tokio::test]
async fn handshakes_at_once_are_bounded() {
    let mut house = House::new();
    house.listen.handshakes = 2;
    let mut open = house.open().await;
    let client = house.client(&house.enrol("reader"));
    let first = TcpStream::connect(open.address).await.unwrap();
    let second = TcpStream::connect(open.address).await.unwrap();
    let address = open.address;
    let mut third = tokio::spawn(async move { client.knock(address).await });
    let waited = tokio::time::timeout(SHORT, &mut third).await;
    assert!(
        waited.is_err(),
        "a third handshake beside two that are under way"
    );
    drop(first);
    assert_eq!(third.await.unwrap(), Answer::Served);
    assert!(matches!(open.next().await, Seen::Refused(_)));
    assert!(matches!(open.next().await, Seen::Admitted(..)));
    drop(second);
}

#[tokio::test]
async fn connections_at_once_are_bounded() {
    let mut house = House::new();
    house.listen.connections = 1;
    let open = house.open().await;
    let client = house.client(&house.enrol("reader"));
    let first = client.connect(open.address).await.unwrap();
    let address = open.address;
    let mut second = tokio::spawn(async move { client.knock(address).await });
    assert!(tokio::time::timeout(SHORT, &mut second).await.is_err());
    first.end().await;
    assert_eq!(second.await.unwrap(), Answer::Served);
}

#[tokio::test]
async fn a_name_has_its_share_of_connections() {
    let mut house = House::new();
    house.listen.connections_per_identity = 1;
    let mut open = house.open().await;
    let reader = house.client(&house.enrol("reader"));
    let mut first = reader.connect(open.address).await.unwrap();
    open.admitted().await;
    assert_eq!(reader.knock(open.address).await, Answer::Closed);
    let refusal = open.refused().await;
    assert_eq!(refusal.class, Class::AccessDenied);
    assert!(
        refusal.reason.contains("1 connections already"),
        "{refusal}"
    );
    let other = house.client(&house.enrol("writer"));
    assert_eq!(other.knock(open.address).await, Answer::Served);
    first.echo().await.unwrap();
}

#[tokio::test]
async fn alpn_must_overlap_where_it_is_offered() {
    let house = House::new();
    let mut open = house.open().await;
    let reader = house.enrol("reader");
    for offered in [&["mcp"][..], &["h2", "mcp"]] {
        let client = house.client(&reader).offering(offered);
        assert_eq!(client.knock(open.address).await, Answer::Served);
        let Seen::Admitted(_, alpn) = open.next().await else {
            panic!("not admitted")
        };
        assert_eq!(alpn.as_deref(), Some(&b"mcp"[..]));
        open.ended().await;
    }
    assert_eq!(
        house.client(&reader).knock(open.address).await,
        Answer::Served
    );
    let Seen::Admitted(_, alpn) = open.next().await else {
        panic!("not admitted")
    };
    assert_eq!(alpn, None);
    open.ended().await;
    let client = house.client(&reader).offering(&["h2"]);
    let answer = client.knock(open.address).await;
    assert_eq!(answer, Answer::Alert(Alert::NoApplicationProtocol));
    assert_eq!(open.refused().await.class, Class::Protocol);
}

#[tokio::test]
async fn tls_12_is_spoken_only_where_it_is_allowed() {
    let mut house = House::new();
    let only_12 = |house: &House, name| {
        let mut client = house.client(&house.enrol(name));
        let mut roots = rustls::RootCertStore::empty();
        roots.add(house.server_root.der.clone()).unwrap();
        let resolver = client.config.client_auth_cert_resolver.clone();
        let builder =
            rustls::ClientConfig::builder_with_provider(crate::support::client::provider());
        let builder = builder
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap();
        client.config = builder
            .with_root_certificates(roots)
            .with_client_cert_resolver(resolver);
        client
    };
    house.tls.profile = Profile::Compatible;
    let mut open = house.open().await;
    let client = only_12(&house, "reader");
    assert_eq!(client.knock(open.address).await, Answer::Served);
    let peer = open.admitted().await;
    assert_eq!(
        (peer.agreed().version, peer.agreed().resumed),
        ("TLSv1.2", false)
    );
    open.ended().await;
    assert_eq!(client.knock(open.address).await, Answer::Served);
    assert!(open.admitted().await.agreed().resumed);
    open.ended().await;
    let stranger = house.client(&house.issue("writer"));
    assert_eq!(
        stranger.knock(open.address).await,
        Answer::Alert(Alert::AccessDenied)
    );
    house.tls.profile = Profile::Modern;
    let mut open = house.open().await;
    let answer = only_12(&house, "reader").knock(open.address).await;
    assert_eq!(answer, Answer::Alert(Alert::ProtocolVersion));
    assert_eq!(open.refused().await.class, Class::Protocol);
}

#[tokio::test]
async fn what_was_agreed_is_known() {
    let house = House::new();
    let mut open = house.open().await;
    assert_eq!(
        house
            .client(&house.enrol("reader"))
            .knock(open.address)
            .await,
        Answer::Served
    );
    let agreed = open.admitted().await.agreed();
    assert_eq!((agreed.version, agreed.resumed), ("TLSv1.3", false));
    assert!(agreed.suite.starts_with("TLS_"), "{}", agreed.suite);
    let best = if cfg!(feature = "post-quantum") {
        "X25519MLKEM768"
    } else {
        "x25519"
    };
    assert_eq!(agreed.group, best);
}

#[tokio::test]
async fn a_drain_tells_who_is_there_and_waits_for_them() {
    let house = House::new();
    let mut open = house.open().await;
    let client = house.client(&house.enrol("reader"));
    let mut live = client.connect(open.address).await.unwrap();
    open.admitted().await;
    let address = open.address;
    let mut stopping = open.stop();
    live.ended().await;
    stopping.running.await.unwrap();
    assert!(matches!(
        stopping.seen.recv().await,
        Some(Seen::Ended(Some(Close::Draining)))
    ));
    assert!(
        TcpStream::connect(address).await.is_err(),
        "nobody listens any more"
    );
}

#[tokio::test]
async fn our_own_client_is_served_and_told_why_it_is_refused() {
    let house = House::new();
    let open = house.open().await;
    let folder = house.folder.path();
    let roots = crate::support::echo::bundle(folder, "roots.pem", &[&house.server_root]);
    let address = format!("localhost:{}", open.address.port());
    let good = house.enrol("reader").identity(folder, "reader");
    let client = ClientTls::new(&good, &roots, &[b"mcp"]).unwrap();
    let mut stream = client.connect(&address, "localhost").await.unwrap();
    stream.write_all(b"x").await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    let bad = house.issue("writer").identity(folder, "writer");
    let client = ClientTls::new(&bad, &roots, &[b"mcp"]).unwrap();
    let class = match client.connect(&address, "localhost").await {
        Ok(mut stream) => explain_alert(&stream.read_u8().await.unwrap_err()),
        Err(ClientTlsError::Refused { class, .. }) => Some(class),
        Err(other) => panic!("{other}"),
    };
    assert_eq!(class, Some(Class::AccessDenied));
    let elsewhere = crate::support::echo::bundle(folder, "others.pem", &[&house.root]);
    let client = ClientTls::new(&good, &elsewhere, &[b"mcp"]).unwrap();
    let error = client.connect(&address, "localhost").await.unwrap_err();
    assert!(matches!(error, ClientTlsError::Handshake { .. }), "{error}");
}

#[tokio::test]
async fn a_new_server_certificate_breaks_nothing() {
    let house = House::new();
    let mut open = house.open().await;
    let client = house.client(&house.enrol("reader"));
    let mut live = client.connect(open.address).await.unwrap();
    open.admitted().await;
    let renewed = house.server_root.sign(crate::support::pki::server());
    open.tls
        .reload(&renewed.identity(house.folder.path(), "renewed"))
        .unwrap();
    live.echo().await.unwrap();
    let fresh = house.client(&house.enrol("writer"));
    let conversation = fresh.connect(open.address).await.unwrap();
    let seen = conversation.stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    assert_eq!(seen, renewed.der);
    open.admitted().await;
    live.end().await;
    open.ended().await;
    assert_eq!(client.knock(open.address).await, Answer::Served);
    assert!(
        open.admitted().await.agreed().resumed,
        "tickets outlive the certificate"
    );
    let nobody = Client::anonymous(&house.server_root);
    assert_eq!(
        nobody.knock(open.address).await,
        Answer::Alert(Alert::CertificateRequired)
    );
}
