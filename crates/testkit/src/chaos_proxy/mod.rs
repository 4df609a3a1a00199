//! A proxy on loopback between a client and a registry that spoils the conversation, as a seed or an exact plan wants it.

mod mangler;
mod tracker;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Random;
use mangler::{Fate, Mangler};
use tracker::{Methods, Tracker};

/// What the proxy does. The exact plans happen once and lead to what `then` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chaos {
    /// It hands on what it gets.
    Calm,
    /// It closes connections as soon as they come.
    Refuse,
    /// It cuts, delays, drops, alters, repeats and reorders at places that the seed chooses, so many times in all, and is calm
    /// afterwards.
    ///
    /// Heads of requests are only cut and delayed: nobody could tell a changed path from the one that was meant.
    Seeded {
        /// Of the choices.
        seed: u64,
        /// How often it may happen.
        budget: usize,
    },
    /// After so many bytes of replies in all, everything is cut.
    CutReplies {
        /// So many, heads included.
        after: u64,
        /// What comes then.
        then: Then,
    },
    /// After so many bytes of requests in all, everything is cut.
    CutRequests {
        /// So many, heads included.
        after: u64,
        /// What comes then.
        then: Then,
    },
    /// When a request of this method comes for the `number`th time (from 1), everything is cut before it.
    CutAtRequest {
        /// Such as `PATCH`.
        method: &'static str,
        /// Which of them.
        number: u64,
        /// What comes then.
        then: Then,
    },
    /// As soon as so much of the body of a reply has come, everything is cut.
    CutReplyBody {
        /// So much of it.
        percent: u64,
        /// Smaller bodies are let through.
        size_bytes_min: u64,
        /// What comes then.
        then: Then,
    },
}

/// What comes after the cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Connections that come are served.
    Calm,
    /// Connections that come are closed, until [`ChaosProxy::set`].
    Refuse,
}

/// A running proxy. It ends with the value.
#[derive(Debug)]
pub struct ChaosProxy {
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    port: u16,
    target: u16,
    stop: AtomicBool,
    connections: AtomicUsize,
    reply_bytes: AtomicU64,
    request_bytes: AtomicU64,
    plan: Mutex<Plan>,
    sockets: Mutex<Vec<TcpStream>>,
}

/// What is left of the chaos.
#[derive(Debug)]
struct Plan {
    chaos: Chaos,
    /// Of [`Chaos::Seeded`].
    random: Random,
    budget: usize,
    /// Bytes in each direction since the plan was made.
    reply_bytes: u64,
    request_bytes: u64,
    /// Of [`Chaos::CutAtRequest`].
    requests: u64,
    happened: Vec<String>,
}

impl Shared {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn sockets(&self) -> MutexGuard<'_, Vec<TcpStream>> {
        self.sockets.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Ends every connection. What was handed on before still arrives: only the sending side is closed at first.
    fn cut_all(&self) {
        for socket in self.sockets().drain(..) {
            let _ = socket.shutdown(Shutdown::Write);
            drain(socket);
        }
    }
}

impl Plan {
    fn new(chaos: Chaos) -> Plan {
        let (seed, budget) = match chaos {
            Chaos::Seeded { seed, budget } => (seed, budget),
            _ => (0, 0),
        };
        let random = Random::new(seed);
        Plan { chaos, random, budget, reply_bytes: 0, request_bytes: 0, requests: 0, happened: Vec::new() }
    }
}

impl ChaosProxy {
    /// A calm one before a port of this machine.
    pub fn before(port: u16) -> ChaosProxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port of loopback");
        let shared = Arc::new(Shared {
            port: listener.local_addr().expect("the address of a listener").port(),
            target: port,
            stop: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            reply_bytes: AtomicU64::new(0),
            request_bytes: AtomicU64::new(0),
            plan: Mutex::new(Plan::new(Chaos::Calm)),
            sockets: Mutex::default(),
        });
        let accepting = std::thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        });
        ChaosProxy { shared, accepting: Some(accepting) }
    }

    /// Port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.shared.port
    }

    /// `127.0.0.1:PORT`, as the registry of a reference.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.shared.port)
    }

    /// From now on, for all connections. Counts begin at 0 again.
    pub fn set(&self, chaos: Chaos) {
        *self.shared.plan() = Plan::new(chaos);
        self.shared.connections.store(0, Ordering::Relaxed);
        self.shared.reply_bytes.store(0, Ordering::Relaxed);
        self.shared.request_bytes.store(0, Ordering::Relaxed);
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Bytes that were handed on to clients, heads included.
    pub fn reply_bytes(&self) -> u64 {
        self.shared.reply_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that were handed on to the registry, heads included.
    pub fn request_bytes(&self) -> u64 {
        self.shared.request_bytes.load(Ordering::Relaxed)
    }

    /// What it did, to be told when a test fails.
    pub fn happened(&self) -> Vec<String> {
        self.shared.plan().happened.clone()
    }
}

impl Drop for ChaosProxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.shared.port));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        for socket in self.shared.sockets().iter() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok(client) = client else { continue };
        let number = shared.connections.fetch_add(1, Ordering::Relaxed);
        if refuses(&mut shared.plan(), number) {
            continue;
        }
        let Ok(registry) = TcpStream::connect(("127.0.0.1", shared.target)) else { continue };
        let _ = registry.set_read_timeout(Some(IDLE_STEP));
        let _ = client.set_read_timeout(Some(IDLE_STEP));
        let methods = Methods::default();
        let liveness =
            Arc::new(Liveness { has_lied: AtomicBool::new(false), last: Mutex::new(Instant::now()) });
        for is_reply in [false, true] {
            let (from, to) = if is_reply { (&registry, &client) } else { (&client, &registry) };
            let (Ok(from), Ok(to), Ok(kept)) = (from.try_clone(), to.try_clone(), to.try_clone()) else {
                continue;
            };
            let _ = to.set_nodelay(true);
            shared.sockets().push(kept);
            let tracker = Tracker::new(is_reply, methods.clone());
            let (shared, liveness) = (shared.clone(), liveness.clone());
            let mangler = Mangler::new(is_reply, number, tracker);
            std::thread::spawn(move || hand_on(&shared, &liveness, mangler, is_reply, from, to));
        }
    }
}

fn refuses(plan: &mut Plan, number: usize) -> bool {
    match plan.chaos {
        Chaos::Refuse => true,
        Chaos::Seeded { .. } if plan.budget > 0 && plan.random.below(12) == 0 => {
            plan.budget -= 1;
            plan.happened.push(format!("connection {number} was refused"));
            true
        }
        _ => false,
    }
}

/// How often idle connections are looked at.
const IDLE_STEP: Duration = Duration::from_millis(200);
/// A connection that was lied on may leave both sides waiting for each other. It ends after this.
const IDLE_AFTER_LIE_MAX: Duration = Duration::from_millis(1000);

/// What both directions of a connection know of each other.
#[derive(Debug)]
struct Liveness {
    has_lied: AtomicBool,
    last: Mutex<Instant>,
}

impl Liveness {
    fn last(&self) -> MutexGuard<'_, Instant> {
        self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn is_stuck(&self) -> bool {
        self.has_lied.load(Ordering::Relaxed) && self.last().elapsed() > IDLE_AFTER_LIE_MAX
    }
}

/// One direction of one connection, until its end.
fn hand_on(
    shared: &Shared,
    liveness: &Liveness,
    mut mangler: Mangler,
    is_reply: bool,
    mut from: TcpStream,
    mut to: TcpStream,
) {
    let count = if is_reply { &shared.reply_bytes } else { &shared.request_bytes };
    let mut piece = [0; 16 << 10];
    loop {
        let bytes = match from.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => &piece[..length],
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if !liveness.is_stuck() {
                    continue;
                }
                let _ = to.shutdown(Shutdown::Both);
                let _ = from.shutdown(Shutdown::Both);
                return;
            }
            Err(_) => break,
        };
        *liveness.last() = Instant::now();
        let mut mangled = Vec::with_capacity(bytes.len());
        let fate = mangler.mangle(&mut shared.plan(), bytes, &mut mangled);
        if mangler.has_lied {
            liveness.has_lied.store(true, Ordering::Relaxed);
        }
        // Counted first: whoever has the bytes may ask at once.
        count.fetch_add(mangled.len() as u64, Ordering::Relaxed);
        if to.write_all(&mangled).is_err() {
            break;
        }
        match fate {
            Fate::GoOn => {}
            Fate::Delay(time) => std::thread::sleep(time),
            Fate::Cut => {
                let _ = to.shutdown(Shutdown::Both);
                let _ = from.shutdown(Shutdown::Both);
                return;
            }
            Fate::CutAll => {
                shared.cut_all();
                return;
            }
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Reads what still comes, so that closing does not take back what was sent; not for ever.
fn drain(mut socket: TcpStream) {
    std::thread::spawn(move || {
        let _ = socket.set_read_timeout(Some(Duration::from_millis(200)));
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut waste = [0; 16 << 10];
        while Instant::now() < deadline {
            match socket.read(&mut waste) {
                Ok(count) if count > 0 => {}
                _ => break,
            }
        }
        let _ = socket.shutdown(Shutdown::Both);
    });
}
