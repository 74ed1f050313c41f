//! A server for the benchmark, until it is killed: the NBD server of volctl alone, over one file or device, or one that
//! answers without I/O and so is the clients' ceiling. Its export is `disk`.
//!
//!   nbd-bench-server cached|direct PATH SOCKET PORT
//!   nbd-bench-server null BYTES SOCKET PORT

mod null;

use std::error::Error;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use volctl::api::{Access, Usage};
use volctl::config;
use volctl::model::VolumeId;
use volctl::nbd::{ExportSpec, Server};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [mode, what, socket, port] = words.as_slice() else {
        return Err("usage: nbd-bench-server cached|direct|null PATH|BYTES SOCKET PORT".into());
    };
    let socket = PathBuf::from(socket);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse()?));
    match mode.as_str() {
        "cached" | "direct" => serve(PathBuf::from(what), mode == "direct", socket, address),
        "null" => null::serve(what.parse()?, &socket, address),
        _ => Err(format!("{mode} is no mode").into()),
    }
}

fn serve(device_path: PathBuf, direct: bool, unix_socket: PathBuf, address: SocketAddr) -> Result<(), Box<dyn Error>> {
    let mut file = File::options().read(true).write(true).open(&device_path)?;
    let spec = ExportSpec {
        name: "disk".to_owned(),
        volume_id: VolumeId::random(),
        read_only: false,
        shared: false,
        access: Access::default(),
        device_path,
        size_bytes: file.seek(SeekFrom::End(0))?,
        file,
        usage: Usage::default(),
    };
    let settings = config::Nbd { listen: vec![address], unix_socket, direct, ..config::Nbd::default() };
    tokio::runtime::Runtime::new()?.block_on(async {
        let server = Server::bind(&settings, Arc::default(), Vec::new()).await?;
        server.add(spec).await?;
        std::future::pending().await
    })
}
