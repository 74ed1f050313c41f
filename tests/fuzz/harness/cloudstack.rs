//! What a CloudStack, or whatever answers in its place, may say: bodies for each call, over real HTTP.
//!
//! The first byte chooses the call and the HTTP status, the rest is the body.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::timeout;
use volctl::cloudstack::{CallError, CloudStack, NewVolume};
use volctl::config::{self, SecretKey};
use volctl::model::{JobId, VmId, VolumeId, printable};

const STATUSES: [u16; 6] = [200, 401, 431, 530, 429, 503];
/// By then a call has ended, whatever the answers are; far above what it takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// The body and status that are answered now.
type Answer = Arc<Mutex<(u16, Vec<u8>)>>;

/// A client, and the server that answers what it is told to.
pub struct Door {
    cloud: CloudStack,
    answer: Answer,
    runtime: Runtime,
}

impl Door {
    /// Starts the server.
    pub fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let endpoint = format!("http://{}/client/api", listener.local_addr().expect("an address"));
        let answer = Answer::default();
        let told = Arc::clone(&answer);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let told = Arc::clone(&told);
                std::thread::spawn(move || serve(connection, &told));
            }
        });
        let settings = config::CloudStack {
            endpoint,
            api_key: "key".to_owned(),
            secret_key: SecretKey::Given("secret".to_owned().into()),
            zone: None,
            disk_offering: None,
            project: None,
            vm_id: None,
            ca_file: None,
            timeout: Duration::from_secs(5),
        };
        let runtime = Runtime::new().expect("a runtime");
        let cloud = runtime.block_on(async { CloudStack::new(&settings) }).expect("a client");
        Self { cloud, answer, runtime }
    }

    /// Makes the call to which the server answers so, and panics unless it ends with something that people can read.
    pub fn try_bytes(&self, bytes: &[u8]) {
        let Some((choice, body)) = bytes.split_first() else { return };
        let status = STATUSES[usize::from(choice >> 4) % STATUSES.len()];
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = (status, body.to_vec());
        let ended = self.runtime.block_on(async { timeout(PATIENCE, self.call(choice & 15)).await });
        if let Err(error) = ended.expect("the call ends") {
            let error = error.into_error("trying");
            assert_eq!(error.message, printable(&error.message), "nothing from outside moves a cursor");
            assert!(error.message.len() < 8 << 10, "a sentence, and not a page: {}", error.message);
        }
    }

    async fn call(&self, choice: u8) -> Result<(), CallError> {
        let (volume, vm, job) = (VolumeId::random(), VmId::random(), JobId::random());
        let cloud = &self.cloud;
        match choice {
            0 => cloud.volumes().await.map(drop),
            1 => cloud.volume(volume).await.map(drop),
            2 => cloud.volumes_of_vm(vm).await.map(drop),
            3 => cloud.vms().await.map(drop),
            4 => cloud.vm(vm).await.map(drop),
            5 => cloud.zones().await.map(drop),
            6 => cloud.disk_offerings().await.map(drop),
            7 => cloud.ping().await.map(drop),
            8 => cloud.job(job).await.map(drop),
            9 => cloud.volume_of_job(job).await.map(drop),
            10 => cloud.attach_volume(&cloud.intend(), volume, vm, Some(0)).await.map(drop),
            11 => cloud.detach_volume(&cloud.intend(), volume).await.map(drop),
            12 => cloud.delete_volume(volume).await.map(drop),
            13 => cloud.volumes_named("data").await.map(drop),
            14 => cloud.vms_named("worker").await.map(drop),
            _ => {
                let (offering_id, zone_id) = ("offering".to_owned(), "zone".to_owned());
                let new = NewVolume { name: "data".to_owned(), size_gib: Some(1), offering_id, zone_id };
                cloud.create_volume(&cloud.intend(), &new).await.map(drop)
            }
        }
    }
}

/// Answers each request of a connection, until it is closed.
fn serve(connection: TcpStream, told: &Answer) {
    let mut requests = BufReader::new(connection.try_clone().expect("a second handle"));
    let mut connection = connection;
    while let Some(length) = head(&mut requests) {
        let mut body = vec![0; length];
        if requests.read_exact(&mut body).is_err() {
            return;
        }
        let (status, body) = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let head = format!(
            "HTTP/1.1 {status} said so\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        if connection.write_all(&[head.as_bytes(), &body].concat()).is_err() {
            return;
        }
    }
}

/// Reads the head of a request, and gives its body's length.
fn head(requests: &mut impl BufRead) -> Option<usize> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if requests.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            return Some(length);
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
}
