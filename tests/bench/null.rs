//! A server that answers each READ with zeroes, forgets each WRITE, and calls the rest done: what a client can reach.

use std::error::Error;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;

const BUFFER: usize = 1 << 20;
static ZEROES: [u8; BUFFER] = [0; BUFFER];

/// Serves so many bytes at both addresses, for ever.
pub fn serve(size: u64, socket: &Path, address: SocketAddr) -> Result<(), Box<dyn Error>> {
    let (unix, tcp) = (UnixListener::bind(socket)?, TcpListener::bind(address)?);
    thread::spawn(move || {
        for client in unix.incoming().flatten() {
            let Ok(answers) = client.try_clone() else { continue };
            thread::spawn(move || attend(client, answers, size));
        }
    });
    for client in tcp.incoming() {
        let client = client?;
        client.set_nodelay(true)?;
        let answers = client.try_clone()?;
        thread::spawn(move || attend(client, answers, size));
    }
    Ok(())
}

/// Serves one client until it leaves; how is all the same.
fn attend(requests: impl Read, answers: impl Write, size: u64) -> io::Result<()> {
    let mut requests = BufReader::with_capacity(BUFFER, requests);
    let mut answers = BufWriter::with_capacity(BUFFER, answers);
    answers.write_all(b"NBDMAGICIHAVEOPT\0\x03")?;
    answers.flush()?;
    take(&mut requests, 4)?;
    while !choose(&mut requests, &mut answers, size)? {}
    loop {
        if requests.buffer().is_empty() {
            answers.flush()?;
        }
        let request = take(&mut requests, 28)?;
        let length = u32::from_be_bytes([request[24], request[25], request[26], request[27]]) as usize;
        match request[7] {
            2 => return answers.flush(),
            1 => skip(&mut requests, length)?,
            _ => {}
        }
        answers.write_all(b"\x67\x44\x66\x98\0\0\0\0")?;
        answers.write_all(&request[8..16])?;
        if request[7] == 0 {
            let mut left = length;
            while left > 0 {
                let piece = left.min(BUFFER);
                answers.write_all(&ZEROES[..piece])?;
                left -= piece;
            }
        }
    }
}

/// Answers one option; true where it entered the export.
fn choose(requests: &mut impl BufRead, answers: &mut impl Write, size: u64) -> io::Result<bool> {
    const GO: u32 = 7;
    const UNKNOWN: [u8; 4] = [0x80, 0, 0, 1];
    // Flags, flush, FUA, trim, zeroes, several connections.
    const FLAGS: u16 = 0x016d;
    let head = take(requests, 16)?;
    let option = u32::from_be_bytes([head[8], head[9], head[10], head[11]]);
    skip(requests, u32::from_be_bytes([head[12], head[13], head[14], head[15]]) as usize)?;
    let mut reply = |kind: [u8; 4], data: &[u8]| {
        answers.write_all(&0x0003_e889_0455_65a9_u64.to_be_bytes())?;
        answers.write_all(&option.to_be_bytes())?;
        answers.write_all(&kind)?;
        answers.write_all(&(data.len() as u32).to_be_bytes())?;
        answers.write_all(data)
    };
    if option == GO {
        reply([0, 0, 0, 3], &[&[0, 0], &size.to_be_bytes()[..], &FLAGS.to_be_bytes()].concat())?;
        reply([0, 0, 0, 1], &[])?;
    } else {
        reply(UNKNOWN, &[])?;
    }
    answers.flush()?;
    Ok(option == GO)
}

fn take(requests: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    requests.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn skip(requests: &mut impl BufRead, mut length: usize) -> io::Result<()> {
    while length > 0 {
        let available = requests.fill_buf()?.len().min(length);
        if available == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        requests.consume(available);
        length -= available;
    }
    Ok(())
}
