//! The composition root: what is configured, opened, resumed, served, and when the daemon leaves.

mod arguments;
mod asker;
mod check;
mod dispatch;
mod events;
mod health;
mod idle;
mod log;
mod looks;
mod memory;
mod metrics;
mod operations;
mod params;
mod probe;
mod rights;
mod version;

use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::cloudstack::CloudStack;
use crate::config::{Config, Environment, Paths};
use crate::device::Devices;
use crate::error::{Error, Kind, Result};
use crate::nbd::Server;
use crate::operation::{Engine, World, keep_exports, keep_history, keep_in_step, keep_tally};
use crate::rpc;
use crate::rpc::server::{Limits, Load};
use crate::rpc::socket::{SocketFile, listen_on};
use crate::store::Store;
use crate::systemd::{Inherited, ServiceManager, Stored, inherited};

use arguments::Arguments;
pub use arguments::definition;
use dispatch::Dispatch;
use log::Log;
use rights::Rights;

/// Threads that wait for disks. Each has a stack, which stays: a crowd of clients must not become as many. What can hang
/// for long, the flush of a disk, is one a disk, and a VM has fewer.
const MOST_BLOCKING: usize = 32;

/// `volctld`
pub fn main() -> ExitCode {
    let arguments = Arguments::of_process();
    if arguments.check {
        return check::main(arguments);
    }
    let log = Log::start();
    memory::limit_pools();
    match inherited() {
        Ok(Inherited { control, stored }) => {
            let callers = control.as_ref().and_then(|control| control.try_clone().ok());
            let served = serve(arguments, &log, control, stored);
            served.unwrap_or_else(|error| fail(&error, callers))
        }
        Err(error) => fail(&error, None),
    }
}

/// Serves until it is told to stop or has nothing to do.
fn serve(arguments: Arguments, log: &Log, control: Option<StdListener>, stored: Vec<Stored>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(MOST_BLOCKING)
        .thread_keep_alive(memory::IDLE_THREAD)
        .enable_all()
        .build();
    let runtime =
        runtime.map_err(|error| Error::new(Kind::Internal, format!("the runtime cannot be started: {error}")))?;
    let ended = runtime.block_on(start(arguments, log, control, stored));
    // A device that hangs holds a thread for as long as it likes; the daemon leaves all the same.
    runtime.shutdown_background();
    ended.map(|()| ExitCode::SUCCESS)
}

/// Says why it does not serve: on stderr, and to those whose connection started it.
fn fail(error: &Error, callers: Option<StdListener>) -> ExitCode {
    if let Some(callers) = callers {
        let why = Error::new(
            Kind::DaemonUnreachable,
            format_args!("the service failed: volctld cannot start: {}", error.message),
        );
        rpc::server::turn_away(&callers, &Error { hint: error.hint.clone(), ..why.retryable(false) });
    }
    eprintln!("volctld: {error}");
    if let Some(hint) = &error.hint {
        eprintln!("hint: {hint}");
    }
    ExitCode::from(error.kind.exit_code())
}

async fn start(arguments: Arguments, log: &Log, control: Option<StdListener>, stored: Vec<Stored>) -> Result<()> {
    let environment = Environment::of_process();
    let paths = Paths::of(&environment);
    let config = Config::load(arguments.config.as_deref(), &environment)?;
    log.filter(&config.daemon.log)?;
    let store = Store::open(&arguments.state_dir.unwrap_or(paths.state_dir))?;
    let (listener, own_file) = listener(&arguments.socket.unwrap_or(paths.socket), control)?;
    let shutdown = signals()?;
    tokio::spawn(reloads(arguments.config, environment, log.clone(), caught(SignalKind::hangup())?));
    let served = run(config, store, listener, stored, shutdown).await;
    if let Some(file) = own_file {
        file.remove();
    }
    served
}

/// systemd's socket, or one of our own with its file.
fn listener(path: &Path, control: Option<StdListener>) -> Result<(UnixListener, Option<SocketFile>)> {
    let unusable =
        |error: std::io::Error| Error::new(Kind::Internal, format!("the control socket cannot be used: {error}"));
    if let Some(control) = control {
        return Ok((UnixListener::from_std(control).map_err(unusable)?, None));
    }
    let (bound, file) = listen_on(path, "volctld")?;
    rights::give_to_lookers(path)?;
    Ok((UnixListener::from_std(bound).map_err(unusable)?, Some(file)))
}

/// Becomes true at SIGTERM or SIGINT.
fn signals() -> Result<watch::Receiver<bool>> {
    let (tell, shutdown) = watch::channel(false);
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let (tell, mut caught) = (tell.clone(), caught(kind)?);
        tokio::spawn(async move {
            caught.recv().await;
            tell.send_replace(true);
        });
    }
    Ok(shutdown)
}

fn caught(kind: SignalKind) -> Result<Signal> {
    signal(kind).map_err(|error| Error::new(Kind::Internal, format!("signals cannot be caught: {error}")))
}

/// Takes over at each SIGHUP what can change while it runs; a configuration that cannot be read changes nothing.
async fn reloads(path: Option<PathBuf>, environment: Environment, log: Log, mut hangups: Signal) {
    while hangups.recv().await.is_some() {
        let read = Config::load(path.as_deref(), &environment);
        match read.and_then(|config| log.filter(&config.daemon.log)) {
            Ok(()) => tracing::info!("the configuration was read again: the log's filter counts from now on"),
            Err(error) => tracing::error!(%error, "the configuration cannot be read; what was read before counts"),
        }
    }
}

/// Serves on a bound listener until it is told to stop or has been idle for long enough.
async fn run(
    config: Config,
    store: Store,
    listener: UnixListener,
    stored: Vec<Stored>,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let idle_timeout = config.daemon.idle_timeout;
    let manager = Arc::new(ServiceManager::from_environment());
    let engine = compose(config, store, manager.clone(), stored).await?;
    let world = engine.world().clone();
    let historian = tokio::spawn(keep_history(world.clone()));
    world.take_clients_back().await;
    engine.resume()?;
    let keeper = tokio::spawn(keep_exports(world.clone(), engine.ended()));
    let reconciler = tokio::spawn(keep_in_step(world.clone()));
    let counter = tokio::spawn(keep_tally(world.clone()));
    let cleaner = tokio::spawn(memory::give_back(engine.clone()));
    let load = watch::Sender::new(Load::default());
    let (close, closed) = watch::channel(false);
    let activity = idle::Activity::default();
    let handler = Arc::new(Dispatch::new(engine.clone(), Rights::of_this_machine(), activity.clone()));
    let serving = tokio::spawn(rpc::server::serve(listener, handler, closed, Limits::default(), load));
    manager.ready();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");
    let told_to_stop = tokio::select! {
        _ = stop.wait_for(|stop| *stop) => true,
        () = watched(&manager) => false,
        () = idle::long_enough(&engine, &activity, idle_timeout) => false,
    };
    tracing::info!("{}", if told_to_stop { "told to stop" } else { "idle" });
    manager.stopping();
    keeper.abort();
    reconciler.abort();
    counter.abort();
    cleaner.abort();
    close.send_replace(true);
    // A step that went on would take what now ends for its own failure.
    engine.halt_all();
    let leaving = async {
        match told_to_stop {
            true => world.nbd.hand_over().await,
            false => world.nbd.shutdown().await,
        }
    };
    let _ = tokio::join!(serving, leaving);
    historian.abort();
    if let Err(error) = world.keep_tally().and_then(|()| world.store.settle()) {
        tracing::warn!(%error, "the state store is left as it is");
    }
    Ok(())
}

/// Tells systemd that the runtime turns, for ever.
async fn watched(manager: &ServiceManager) {
    let Some(interval) = manager.watchdog_interval() else { return std::future::pending().await };
    loop {
        tokio::time::sleep(interval).await;
        manager.alive();
    }
}

async fn compose(config: Config, store: Store, manager: Arc<ServiceManager>, stored: Vec<Stored>) -> Result<Engine> {
    let cloud = CloudStack::new(&config.cloudstack)?;
    let devices = Devices::start(&config.device)?;
    let nbd = Server::bind(&config.nbd, manager, stored).await?;
    rights::give_to_changers(&config.nbd.unix_socket)?;
    Ok(Engine::new(Arc::new(World::new(config, store, cloud, devices, nbd))))
}
