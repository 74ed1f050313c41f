//! A small NBD client that sends what a test wants sent; it shares no code with the server.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// `NBD_CMD_READ`
pub const READ: u16 = 0;
/// `NBD_CMD_WRITE`
pub const WRITE: u16 = 1;

const OPTION_MAGIC: &[u8; 8] = b"IHAVEOPT";
const EXPORT_NAME: u32 = 1;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const COOKIE: [u8; 8] = *b"a cookie";

/// A connection to the Unix socket.
pub struct Client(UnixStream);

impl Client {
    /// Connected, and greeted by the server; nothing is sent yet.
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut client = Self(stream);
        assert_eq!(&client.receive(16).unwrap(), b"NBDMAGICIHAVEOPT");
        client.receive(2).unwrap();
        client
    }

    /// Inside an export; an error where the server does not let it in.
    pub fn enter(socket: &Path, name: &str) -> io::Result<Self> {
        let mut client = Self::connect(socket);
        let length = u32::try_from(name.len()).unwrap().to_be_bytes();
        // Fixed newstyle, without the zeroes after the flags.
        let flags = 3u32.to_be_bytes();
        client.send(&[&flags[..], OPTION_MAGIC, &EXPORT_NAME.to_be_bytes(), &length, name.as_bytes()].concat())?;
        client.receive(10)?;
        Ok(client)
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Receives so many bytes.
    pub fn receive(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Makes a request without data after it, and gives the error number of its reply.
    pub fn request(&mut self, command: u16, offset: u64, length: u32) -> io::Result<u32> {
        self.ask(command, offset, length)?;
        self.outcome()
    }

    fn ask(&mut self, command: u16, offset: u64, length: u32) -> io::Result<()> {
        let head = [&REQUEST_MAGIC.to_be_bytes()[..], &0u16.to_be_bytes(), &command.to_be_bytes(), &COOKIE].concat();
        self.send(&[&head[..], &offset.to_be_bytes(), &length.to_be_bytes()].concat())
    }

    fn outcome(&mut self) -> io::Result<u32> {
        let reply = self.receive(16)?;
        assert_eq!(reply[..4], SIMPLE_REPLY_MAGIC.to_be_bytes());
        assert_eq!(reply[8..], COOKIE);
        Ok(u32::from_be_bytes([reply[4], reply[5], reply[6], reply[7]]))
    }

    /// Reads bytes of the export.
    pub fn read(&mut self, offset: u64, length: u32) -> io::Result<Vec<u8>> {
        match self.request(READ, offset, length)? {
            0 => self.receive(length as usize),
            errno => Err(io::Error::from_raw_os_error(errno as i32)),
        }
    }

    /// Writes bytes to the export.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.ask(WRITE, offset, bytes.len() as u32)?;
        self.send(bytes)?;
        match self.outcome()? {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno as i32)),
        }
    }

    /// Waits for the end of the connection, and gives what came before it.
    pub fn until_closed(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.0.read_to_end(&mut bytes) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("it is kept open: {error}"),
            _ => bytes,
        }
    }
}
