//! A listener on a real socket behind whose door everything is echoed, and that tells what came.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use countersign::clock::UnixTime;
use countersign::grant::WrittenGrants;
use countersign::identity::{Fingerprint, Name};
use countersign::listener::{Close, Door, Guest, Listener, ListenerOptions, Live, LiveIndex};
use countersign::peer::Peer;
use countersign::registry::{EnrolmentKind, Outline, View};
use countersign::tls::{
    AnchorOptions, NameFrom, Profile, Refusal, ServerTls, ServerTlsOptions, Trust,
};
use rcgen::CertificateParams;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::client::Client;
use super::pki::{self, Certified, PATIENCE};

/// What the door saw, in order.
#[derive(Debug)]
pub enum Seen {
    Admitted(Peer, Option<Vec<u8>>),
    Refused(Refusal),
    /// Ended, and whether the door was told to end it.
    Ended(Option<Close>),
}

/// Without a bound: a test that does not look must not hold the server up.
struct EchoDoor(mpsc::UnboundedSender<Seen>);

impl Door for EchoDoor {
    async fn serve(&self, guest: Guest, live: Live) {
        let Guest {
            peer,
            mut stream,
            alpn,
        } = guest;
        let _ = self.0.send(Seen::Admitted(peer, alpn));
        let mut heard = vec![0; 1024];
        let why = loop {
            tokio::select! {
                why = live.told_to_close() => break Some(why),
                read = stream.read(&mut heard) => match read {
                    Ok(0) | Err(_) => break None,
                    Ok(count) => {
                        if stream.write_all(&heard[..count]).await.is_err()
                            || stream.flush().await.is_err()
                        {
                            break None;
                        }
                    }
                },
            }
        };
        let _ = stream.shutdown().await;
        drop(live);
        let _ = self.0.send(Seen::Ended(why));
    }

    async fn refused(&self, _: SocketAddr, refusal: &Refusal) {
        let _ = self.0.send(Seen::Refused(refusal.clone()));
    }
}

/// The folder, the CA of servers, and one anchor `ours` with an issuing CA below its root.
pub struct House {
    pub folder: tempfile::TempDir,
    pub server_root: Certified,
    pub root: Certified,
    pub issuing: Certified,
    pub view: Arc<View>,
    pub anchors: Vec<AnchorOptions>,
    pub tls: ServerTlsOptions,
    pub listen: ListenerOptions,
}

pub fn listen() -> ListenerOptions {
    ListenerOptions {
        address: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        handshake_timeout: PATIENCE,
        handshakes: 64,
        connections: 1024,
        connections_per_identity: 1024,
        backlog: 128,
        drain: PATIENCE,
    }
}

pub fn anchor(name: &str, bundle: PathBuf) -> AnchorOptions {
    AnchorOptions {
        name: name.into(),
        bundle,
        mode: None,
        identity_from: NameFrom::Spiffe,
        crl: None,
        crl_file: None,
        ceiling: None,
    }
}

pub fn bundle(folder: &Path, file: &str, certificates: &[&Certified]) -> PathBuf {
    let path = folder.join(file);
    let chain: Vec<_> = certificates
        .iter()
        .map(|certified| certified.der.clone())
        .collect();
    std::fs::write(&path, pki::pem(&chain)).unwrap();
    path
}

impl House {
    pub fn new() -> Self {
        Self::under(pki::root("root"))
    }

    pub fn under(root: Certified) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let issuing = root.sign(pki::ca("issuing", 1));
        let anchors = vec![anchor("ours", bundle(folder.path(), "ours.pem", &[&root]))];
        Self {
            server_root: pki::root("server root"),
            root,
            issuing,
            view: Arc::default(),
            anchors,
            tls: ServerTlsOptions {
                alpn: vec![b"mcp".to_vec()],
                profile: Profile::Modern,
            },
            listen: listen(),
            folder,
        }
    }

    /// A good client's certificate of this name, carrying `tools:*`, not pinned.
    pub fn issue(&self, name: &str) -> Certified {
        self.issue_as(name, |_| {})
    }

    /// The same, changed.
    pub fn issue_as(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Certified {
        let mut params = pki::client(name);
        params.custom_extensions = vec![pki::permissions(&["tools:*"])];
        change(&mut params);
        self.issuing.sign(params)
    }

    /// The same, pinned.
    pub fn enrol_as(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Certified {
        let certified = self.issue_as(name, change);
        self.record(name, &certified, |_| {});
        certified
    }

    pub fn enrol(&self, name: &str) -> Certified {
        self.enrol_as(name, |_| {})
    }

    /// What the registry says of a certificate: pinned, under this name, unless changed.
    pub fn record(&self, name: &str, certified: &Certified, change: impl FnOnce(&mut Outline)) {
        let mut outline = outline(name, certified);
        change(&mut outline);
        self.view.apply(&[outline]);
    }

    pub fn revoke(&self, name: &str, certified: &Certified) {
        self.record(name, certified, |outline| outline.revoked = true);
    }

    pub fn client(&self, certified: &Certified) -> Client {
        Client::of(certified, &self.server_root)
    }

    /// Starts the server.
    pub async fn open(&self) -> Open {
        let identity = self
            .server_root
            .sign(pki::server())
            .identity(self.folder.path(), "server");
        let trust = Trust::load(
            &self.anchors,
            countersign::cert::DEFAULT_PERMISSION_OID,
            self.view.clone(),
            self.tls.profile,
        );
        let trust = Arc::new(trust.unwrap());
        let tls = Arc::new(ServerTls::new(&identity, trust.clone(), &self.tls).unwrap());
        let listener = Listener::bind(self.listen.clone()).await.unwrap();
        let address = listener.local_addresses()[0];
        let index = Arc::<LiveIndex>::default();
        let (tell, seen) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            let _ = stopped.await;
        };
        let door = Arc::new(EchoDoor(tell));
        let running = tokio::spawn(listener.run(tls.clone(), index.clone(), door, stopped));
        Open {
            address,
            trust,
            tls,
            index,
            seen,
            stop,
            running,
        }
    }
}

pub fn outline(name: &str, certified: &Certified) -> Outline {
    Outline {
        fingerprint: certified.fingerprint(),
        kind: EnrolmentKind::Leaf,
        name: Name::new(&pki::spiffe(name)).unwrap(),
        grants: None,
        not_after: certified.not_after(),
        pinned: true,
        revoked: false,
    }
}

pub fn grants(written: &[&str]) -> Option<Arc<WrittenGrants>> {
    Some(Arc::new(WrittenGrants::parse(written).unwrap()))
}

/// A server that runs.
pub struct Open {
    pub address: SocketAddr,
    pub trust: Arc<Trust>,
    pub tls: Arc<ServerTls>,
    pub index: Arc<LiveIndex>,
    seen: mpsc::UnboundedReceiver<Seen>,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Open {
    pub async fn next(&mut self) -> Seen {
        let next = tokio::time::timeout(PATIENCE, self.seen.recv()).await;
        next.expect("the door sees something in time")
            .expect("the door is there")
    }

    pub async fn admitted(&mut self) -> Peer {
        match self.next().await {
            Seen::Admitted(peer, _) => peer,
            other => panic!("{other:?}"),
        }
    }

    /// Somebody was let in, and left by himself.
    pub async fn came_and_went(&mut self) {
        self.admitted().await;
        assert_eq!(self.ended().await, None);
    }

    pub async fn refused(&mut self) -> Refusal {
        match self.next().await {
            Seen::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    pub async fn ended(&mut self) -> Option<Close> {
        match self.next().await {
            Seen::Ended(why) => why,
            other => panic!("{other:?}"),
        }
    }

    /// Revoked in the registry's picture, and the live connections told, as the server does it.
    pub fn close(&self, fingerprint: &Fingerprint) -> usize {
        self.index.close(fingerprint, Close::Revoked)
    }

    /// Reads the anchors again, as the server does it; returns how many connections must close.
    pub fn reload(&self, anchors: &[AnchorOptions], now: UnixTime) -> usize {
        self.trust
            .reload(anchors, countersign::cert::DEFAULT_PERMISSION_OID)
            .unwrap();
        self.index
            .recheck(|peer| self.trust.recheck(peer, now).err().map(|_| Close::Revoked))
    }

    pub fn stop(self) -> Stopping {
        let _ = self.stop.send(());
        Stopping {
            seen: self.seen,
            running: self.running,
        }
    }
}

pub struct Stopping {
    pub seen: mpsc::UnboundedReceiver<Seen>,
    pub running: JoinHandle<()>,
}

/// The shortest deadline for a handshake that a loaded machine still keeps.
pub const SHORT: Duration = Duration::from_millis(700);
