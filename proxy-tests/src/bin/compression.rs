//! Does compression between a driver and the proxy pay? `cargo run --release -p proxy-tests --bin
//! compression` sends messages of real documents through a socket, compressed in each way that
//! drivers know and not at all, over loopback and over a link of 1 Gbit/s, and prints a table.
//!
//! A message is compressed, sent, received, decompressed and acknowledged before the next one goes:
//! what a driver waits for in one direction. The CPU time is that of both ends together; the proxy
//! has the worse half of it with every reply.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::ZlibEncoder;
use proxy_tests::machine::repository;

/// 1 Gbit/s.
const LINK_BYTES_PER_SECOND: f64 = 125e6;

/// A short reply, a page of a cursor, a large document. Bytes.
const SIZES: [usize; 3] = [300, 16 * 1024, 1024 * 1024];

/// Bytes that each cell of the table sends, and the fewest and most messages it does so in.
const SENT_BYTES: usize = 16 * 1024 * 1024;
const MESSAGES: (usize, usize) = (16, 500);

#[derive(Clone, Copy, Debug)]
enum Codec {
    Plain,
    Snappy,
    Zlib,
    Zstd,
}

#[derive(Clone, Copy, Debug)]
enum Link {
    Loopback,
    Gigabit,
}

struct Cell {
    median: Duration,
    cpu: Duration,
    ratio: f64,
}

fn main() -> Result<()> {
    let documents = documents()?;
    println!("| link | bytes | codec | time to arrive, us | CPU, us | sent / plain |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for link in [Link::Loopback, Link::Gigabit] {
        for size in SIZES {
            for codec in [Codec::Plain, Codec::Snappy, Codec::Zlib, Codec::Zstd] {
                let Cell { median, cpu, ratio } = measure(&documents, size, codec, link)?;
                let (median, cpu) = (median.as_micros(), cpu.as_micros());
                println!("| {link:?} | {size} | {codec:?} | {median} | {cpu} | {ratio:.2} |");
            }
        }
    }
    Ok(())
}

/// The sample base, unpacked: BSON documents one after the other.
fn documents() -> Result<Vec<u8>> {
    let archive = repository().join("data/base_dump.archive");
    let mut packed = Vec::new();
    File::open(&archive).and_then(|mut file| file.read_to_end(&mut packed))?;
    let mut bytes = Vec::new();
    match packed.starts_with(&[0x1f, 0x8b]) {
        true => GzDecoder::new(&packed[..]).read_to_end(&mut bytes).context("unpack the base")?,
        false => packed.as_slice().read_to_end(&mut bytes)?,
    };
    Ok(bytes)
}

fn measure(documents: &[u8], size: usize, codec: Codec, link: Link) -> Result<Cell> {
    let messages = (SENT_BYTES / size).clamp(MESSAGES.0, MESSAGES.1);
    let mut far = receiver(codec, link)?;
    let last = documents.len() - size;
    let (mut times, mut sent, begun) = (Vec::with_capacity(messages), 0, cpu_time());
    for number in 0..messages {
        // Another part each time, so that nothing is in a cache that would not be.
        let start = number * 7_919 * 97 % last;
        let message = &documents[start..start + size];
        let started = Instant::now();
        let packed = codec.compress(message)?;
        far.write_all(&u32::try_from(packed.len())?.to_le_bytes())?;
        far.write_all(&packed)?;
        far.read_exact(&mut [0])?;
        times.push(started.elapsed());
        sent += packed.len();
    }
    let cpu = (cpu_time() - begun) / u32::try_from(messages)?;
    times.sort();
    let ratio = sent as f64 / (messages * size) as f64;
    Ok(Cell { median: times[messages / 2], cpu, ratio })
}

/// A peer that decompresses each message and acknowledges it with one byte.
fn receiver(codec: Codec, link: Link) -> Result<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || -> Result<()> {
        let (mut near, _) = listener.accept()?;
        near.set_nodelay(true)?;
        loop {
            let mut length = [0; 4];
            near.read_exact(&mut length)?;
            let mut packed = vec![0; u32::from_le_bytes(length) as usize];
            near.read_exact(&mut packed)?;
            std::hint::black_box(codec.decompress(&packed)?);
            near.write_all(&[1])?;
        }
    });
    let address = match link {
        Link::Loopback => address,
        Link::Gigabit => throttle(address)?,
    };
    let far = TcpStream::connect(address)?;
    far.set_nodelay(true)?;
    Ok(far)
}

/// A relay that passes bytes on no faster than the link would, and answers at once.
fn throttle(to: std::net::SocketAddr) -> Result<std::net::SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || -> Result<()> {
        let (mut from, _) = listener.accept()?;
        let mut to = TcpStream::connect(to)?;
        from.set_nodelay(true)?;
        to.set_nodelay(true)?;
        let (mut back_from, mut back_to) = (to.try_clone()?, from.try_clone()?);
        thread::spawn(move || std::io::copy(&mut back_from, &mut back_to));
        let mut buffer = vec![0; 16 * 1024];
        let mut free_at = Instant::now();
        loop {
            let count = from.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            let time = Duration::from_secs_f64(count as f64 / LINK_BYTES_PER_SECOND);
            free_at = free_at.max(Instant::now()) + time;
            thread::sleep(free_at.saturating_duration_since(Instant::now()));
            to.write_all(&buffer[..count])?;
        }
    });
    Ok(address)
}

impl Codec {
    fn compress(self, bytes: &[u8]) -> Result<Vec<u8>> {
        Ok(match self {
            Self::Plain => bytes.to_vec(),
            Self::Snappy => snap::raw::Encoder::new().compress_vec(bytes)?,
            Self::Zlib => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(bytes)?;
                encoder.finish()?
            }
            Self::Zstd => zstd::bulk::compress(bytes, zstd::DEFAULT_COMPRESSION_LEVEL)?,
        })
    }

    fn decompress(self, bytes: &[u8]) -> Result<Vec<u8>> {
        Ok(match self {
            Self::Plain => bytes.to_vec(),
            Self::Snappy => snap::raw::Decoder::new().decompress_vec(bytes)?,
            Self::Zlib => {
                let mut plain = Vec::new();
                ZlibDecoder::new(bytes).read_to_end(&mut plain)?;
                plain
            }
            Self::Zstd => zstd::bulk::decompress(bytes, SIZES[2])?,
        })
    }
}

/// CPU time that this process used so far.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local of the right type.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    let nanos = u32::try_from(time.tv_nsec).expect("less than a second");
    Duration::new(u64::try_from(time.tv_sec).expect("time goes on"), nanos)
}
