//! A CloudStack API simulator: real HTTP, real signatures, real job timing, faults on demand.
//!
//! It is written from the facts about CloudStack's API and shares no code with `volctl`, so that it is an independent
//! witness: what the real server refuses is refused here, with its code and its envelope.

mod admin;
mod api;
mod commands;
mod error;
mod events;
mod faults;
mod guest;
mod http;
mod hypervisor;
mod jobs;
mod journal;
mod params;
mod reply;
mod request;
mod signature;
mod simulator;
mod view;
mod world;

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use hypervisor::Hypervisor;
use simulator::Simulator;
use world::World;
use world::seed::Seed;

/// Simulates the CloudStack API.
#[derive(Parser)]
struct Arguments {
    /// Address to listen on; port 0 lets the kernel choose.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The one API key that is known.
    #[arg(long, default_value = "simulator-key")]
    api_key: String,
    /// Its secret.
    #[arg(long, default_value = "simulator-secret")]
    secret_key: String,
    /// Zones, offerings, VMs, volumes and settings to start with, JSON.
    #[arg(long, value_name = "FILE")]
    seed: Option<PathBuf>,
    /// The VM whose disks the back end plugs; by default the seed's VM "appliance".
    #[arg(long, value_name = "UUID", default_value = world::seed::APPLIANCE)]
    this_vm: String,
    /// Plug as links in this directory, to sparse files.
    #[arg(long, value_name = "DIR", conflicts_with = "qmp")]
    devices: Option<PathBuf>,
    /// Plug into the QEMU guest that listens on this QMP socket.
    #[arg(long, value_name = "SOCKET", requires = "data")]
    qmp: Option<PathBuf>,
    /// How many free PCIe root ports the guest has, named rp1, rp2, ...
    #[arg(long, value_name = "N", default_value_t = 8)]
    qmp_ports: u32,
    /// Where the volumes' data are; by default "disks" beside the devices' directory.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// End when standard input does.
    #[arg(long)]
    until_stdin_closes: bool,
}

impl Arguments {
    fn hypervisor(&self) -> std::io::Result<Hypervisor> {
        let beside = |devices: &Path| devices.parent().unwrap_or(Path::new(".")).join("disks");
        if let Some(devices) = &self.devices {
            let data = self.data.clone().unwrap_or_else(|| beside(devices));
            return Hypervisor::directory(devices, &data);
        }
        match (&self.qmp, &self.data) {
            (Some(socket), Some(data)) => Hypervisor::qmp(socket, self.qmp_ports, data),
            _ => Ok(Hypervisor::Memory),
        }
    }

    fn world(&self) -> Result<World, Box<dyn Error>> {
        let seed = match &self.seed {
            Some(file) => {
                serde_json::from_slice(&std::fs::read(file)?).map_err(|error| format!("{}: {error}", file.display()))?
            }
            None => Seed::default(),
        };
        Ok(World::new(seed, &self.this_vm, &self.api_key, &self.secret_key))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let mut terminated = signal(SignalKind::terminate())?;
    let simulator = Arc::new(Simulator::new(arguments.world()?, arguments.hypervisor()?));
    guest::start_all(&simulator).await?;
    let listener = TcpListener::bind(arguments.listen).await?;
    let address = listener.local_addr()?;
    tokio::spawn(http::serve(listener, simulator));
    println!("http://{address}/client/api");
    std::io::stdout().flush()?;
    tokio::select! {
        _ = terminated.recv() => {}
        () = stdin_closed(), if arguments.until_stdin_closes => {}
    }
    // Not by returning: the thread that reads standard input could hold the runtime up.
    std::process::exit(0)
}

async fn stdin_closed() {
    // Whether by its end or by an error: standard input is over.
    let _ = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await;
}
