//! The accept loop: a place before a connection, a task for each, a deadline for the drain.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::OptionFuture;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};

use super::crew::Crew;
use super::guest::{Guest, House, Places};
use super::live::{Close, Live, LiveIndex};
use crate::tls::{Refusal, ServerTls};

/// The wait after an accept that failed for want of something (files, memory): doubles from here…
const FIRST_WAIT: Duration = Duration::from_millis(5);
/// …to here.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Between two looks at the connections that have ended: of thousands that end together not each wakes
/// this loop…
const REPORTS: Duration = Duration::from_millis(1);
/// …which sees to so many at a time, and gives back what they held: of hundreds that takes long enough for
/// somebody to wait for this processor.
const AT_A_TIME: usize = 32;

/// `[listen]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerOptions {
    /// Where to listen. An IPv6 address takes IPv6 only, so `0.0.0.0` and `[::]` go together.
    pub address: Vec<SocketAddr>,
    /// From accept to admission, all of it (10 s). Whoever is slower is gone.
    pub handshake_timeout: Duration,
    /// Handshakes at once (256); each costs up to some 40 KiB while it runs. Further ones wait in
    /// the backlog.
    pub handshakes: usize,
    /// Connections at once, handshakes included. Further ones wait in the backlog.
    pub connections: usize,
    /// Connections at once of one name. Further ones are refused.
    pub connections_per_identity: usize,
    /// Connections that the system holds until they are accepted.
    pub backlog: u32,
    /// How long calls in flight may finish when the server goes.
    pub drain: Duration,
}

/// What the listener hands on and reports to. `server` implements it.
pub trait Door: Send + Sync + 'static {
    /// Serves one admitted connection to its end.
    fn serve(&self, guest: Guest, live: Live) -> impl Future<Output = ()> + Send;

    /// Records a refusal (one too many of a name included).
    fn refused(&self, address: SocketAddr, refusal: &Refusal) -> impl Future<Output = ()> + Send;
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Taken, not ours, or not allowed.
    #[error("cannot listen on {address}: {cause}")]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system says.
        cause: io::Error,
    },
}

/// Bound and not yet accepting.
pub struct Listener {
    sockets: Vec<TcpListener>,
    options: ListenerOptions,
    crew: Option<Arc<Crew>>,
}

impl Listener {
    /// Binds every address.
    ///
    /// # Errors
    /// The address is taken or not ours; the message names it.
    pub async fn bind(options: ListenerOptions) -> Result<Self, ListenError> {
        let bound = options.address.iter().map(|address| {
            bind(*address, options.backlog).map_err(|cause| ListenError::Bind {
                address: *address,
                cause,
            })
        });
        Ok(Self {
            sockets: bound.collect::<Result<_, _>>()?,
            options,
            crew: None,
        })
    }

    /// Connections stay each on one thread of this crew, and not on the runtime of whoever calls
    /// [`Self::run`].
    #[must_use]
    pub fn with_crew(mut self, crew: Option<Arc<Crew>>) -> Self {
        self.crew = crew;
        self
    }

    /// Where it listens, with the ports that the system chose.
    #[must_use]
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.sockets
            .iter()
            .filter_map(|socket| socket.local_addr().ok())
            .collect()
    }

    /// Accepts until `stop` is ready, then drains for at most the configured time, then drops the
    /// rest.
    pub async fn run<D: Door>(
        self,
        tls: Arc<ServerTls>,
        index: Arc<LiveIndex>,
        door: Arc<D>,
        stop: impl Future<Output = ()> + Send,
    ) {
        let house = Arc::new(House::new(tls, index.clone(), door, &self.options));
        // Ends with this function, however that ends.
        let mut waking = JoinSet::new();
        waking.spawn({
            let index = Arc::clone(&index);
            async move { match index.wake_by_and_by().await {} }
        });
        let mut guests = JoinSet::new();
        self.accept_until(&house, &mut guests, stop).await;
        let drain = self.options.drain;
        // Until the last of its guests is gone.
        let _crew = self.crew.clone();
        // From here on the system refuses whoever knocks.
        drop(self);
        index.close_all(Close::Draining);
        let all_gone = async { while guests.join_next().await.map(report).is_some() {} };
        if tokio::time::timeout(drain, all_gone).await.is_err() {
            tracing::warn!(
                "dropped {} connections at the end of the drain",
                guests.len()
            );
        }
        guests.shutdown().await;
    }

    async fn accept_until<D: Door>(
        &self,
        house: &Arc<House<D>>,
        guests: &mut JoinSet<()>,
        stop: impl Future<Output = ()> + Send,
    ) {
        let mut stop = std::pin::pin!(stop);
        let mut places: Option<Places> = None;
        let (mut wait, mut next) = (FIRST_WAIT, 0);
        let mut pause = None;
        loop {
            tokio::select! {
                biased;
                () = &mut stop => return,
                Some(done) = guests.join_next(), if pause.is_none() && !guests.is_empty() => {
                    report(done);
                    std::iter::from_fn(|| guests.try_join_next())
                        .take(AT_A_TIME)
                        .for_each(report);
                    pause = Some(Box::pin(tokio::time::sleep(REPORTS)));
                }
                () = OptionFuture::from(pause.as_mut()).map(drop), if pause.is_some() => pause = None,
                taken = house.places(), if places.is_none() => places = Some(taken),
                accepted = self.accept(&mut next), if places.is_some() => match accepted {
                    Ok((tcp, address)) => {
                        wait = FIRST_WAIT;
                        if let Some(places) = places.take() {
                            self.let_in(house, guests, tcp, address, places);
                        }
                    }
                    Err(cause) if of_one_connection(&cause) => {}
                    Err(cause) => {
                        tracing::error!("accepting fails: {cause}; trying again in {wait:?}");
                        tokio::select! {
                            () = &mut stop => return,
                            () = tokio::time::sleep(wait) => {}
                        }
                        wait = (wait * 2).min(LONGEST_WAIT);
                    }
                },
            }
        }
    }

    /// Spawns the life of one connection: with the crew, where there is one and no handshake can hold
    /// its other guests up.
    fn let_in<D: Door>(
        &self,
        house: &Arc<House<D>>,
        guests: &mut JoinSet<()>,
        tcp: TcpStream,
        address: SocketAddr,
        places: Places,
    ) {
        let house = Arc::clone(house);
        let Some(crew) = self.crew.as_ref().filter(|_| !house.handshakes_wait()) else {
            guests.spawn(house.host(tcp, address, places));
            return;
        };
        let (berth, runtime) = crew.berth();
        // Each runtime hears of its own sockets only.
        let moved = tcp.into_std();
        let life = async move {
            let _berth = berth;
            match moved.and_then(TcpStream::from_std) {
                Ok(tcp) => house.host(tcp, address, places).await,
                Err(cause) => tracing::error!("a connection is dropped: {cause}"),
            }
        };
        guests.spawn_on(life, runtime);
    }

    /// The next connection of any socket; `next` goes round, so that none is starved.
    async fn accept(&self, next: &mut usize) -> io::Result<(TcpStream, SocketAddr)> {
        std::future::poll_fn(|context| {
            for _ in 0..self.sockets.len() {
                *next = (*next + 1) % self.sockets.len();
                if let Poll::Ready(accepted) = self.sockets[*next].poll_accept(context) {
                    return Poll::Ready(accepted);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// The connection was gone before it was taken; the socket is fine.
fn of_one_connection(cause: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        cause.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// A panic ends its own connection and is told; the server goes on.
fn report(done: Result<(), JoinError>) {
    if let Err(cause) = done
        && cause.is_panic()
    {
        tracing::error!("a connection ended in a panic: {cause}");
    }
}

fn bind(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}
