//! OP_COMPRESSED: another message's body, compressed.
//! Source: drivers' specification `compression/OP_COMPRESSED.md`.

use std::io::Read;

use bytes::Bytes;

use super::bytes::Reader;
use super::error::WireError;
use super::header::{Header, OpCode};

/// Unpacks the body of an OP_COMPRESSED: the opcode and the body of the message inside.
/// `max_bytes` bounds that message, its header included; it is checked against the announced size
/// before anything is allocated, and the unpacked bytes must be exactly as many as announced.
pub fn decompress(body: &[u8], max_bytes: usize) -> Result<(OpCode, Bytes), WireError> {
    let mut reader = Reader::new(body, "OP_COMPRESSED");
    let opcode = OpCode::from(reader.i32()?);
    if opcode == OpCode::Compressed {
        return Err(reader.malformed("a compressed message in a compressed message"));
    }
    let size = usize::try_from(reader.i32()?).map_err(|_| reader.malformed("negative size"))?;
    let length = size.saturating_add(Header::BYTES);
    if length > max_bytes {
        return Err(WireError::TooLarge { length, max: max_bytes });
    }
    let compressor = match reader.u8()? {
        0 => Compressor::Noop,
        1 => Compressor::Snappy,
        2 => Compressor::Zlib,
        3 => Compressor::Zstd,
        _ => return Err(reader.malformed("unknown compressor")),
    };
    let unpacked = unpack(compressor, reader.rest(), size)
        .ok_or_else(|| reader.malformed("its bytes do not unpack"))?;
    if unpacked.len() != size {
        return Err(reader.malformed("it unpacks to another size than announced"));
    }
    Ok((opcode, Bytes::from(unpacked)))
}

#[derive(Clone, Copy)]
enum Compressor {
    Noop,
    Snappy,
    Zlib,
    Zstd,
}

/// Unpacks to at most `size` bytes, and one more where there are too many.
fn unpack(compressor: Compressor, packed: &[u8], size: usize) -> Option<Vec<u8>> {
    match compressor {
        Compressor::Noop => (packed.len() == size).then(|| packed.to_vec()),
        Compressor::Snappy => {
            // Snappy announces a size of its own, which its decoder allocates.
            if snap::raw::decompress_len(packed).ok()? != size {
                return None;
            }
            snap::raw::Decoder::new().decompress_vec(packed).ok()
        }
        Compressor::Zlib => {
            let mut unpacked = Vec::new();
            let decoder = flate2::read::ZlibDecoder::new(packed);
            decoder.take(size as u64 + 1).read_to_end(&mut unpacked).ok()?;
            Some(unpacked)
        }
        Compressor::Zstd => zstd::bulk::decompress(packed, size).ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// The original opcode, the size, the compressor's id.
    const HEAD_BYTES: usize = 4 + 4 + 1;

    fn pack(compressor: u8, bytes: &[u8]) -> Vec<u8> {
        match compressor {
            0 => bytes.to_vec(),
            1 => snap::raw::Encoder::new().compress_vec(bytes).unwrap(),
            2 => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), Default::default());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            _ => zstd::bulk::compress(bytes, 1).unwrap(),
        }
    }

    fn body(opcode: i32, size: i32, compressor: u8, packed: &[u8]) -> Vec<u8> {
        let head = [&opcode.to_le_bytes()[..], &size.to_le_bytes(), &[compressor]].concat();
        assert_eq!(head.len(), HEAD_BYTES);
        [&head, packed].concat()
    }

    #[test]
    fn every_compressor_is_undone() {
        for plain in [vec![], vec![9; 100_000]] {
            for compressor in 0..=3 {
                let packed = pack(compressor, &plain);
                let bytes = body(2013, plain.len() as i32, compressor, &packed);
                let (opcode, unpacked) = decompress(&bytes, 100_016).unwrap();
                assert_eq!((opcode, &unpacked[..]), (OpCode::Msg, &plain[..]), "{compressor}");
            }
        }
    }

    #[test]
    fn lies_about_the_size_are_errors() {
        let plain = vec![9; 1000];
        for compressor in 0..=3 {
            let packed = pack(compressor, &plain);
            for size in [i32::MIN, -1, 0, 1, 999, 1001, 48_000_000, i32::MAX] {
                let bytes = body(2013, size, compressor, &packed);
                assert!(decompress(&bytes, 10_000).is_err(), "{compressor}: {size}");
            }
            assert!(decompress(&body(2013, 1000, compressor, &packed), 1015).is_err());
            assert!(decompress(&body(2013, 1000, compressor, &packed[..2]), 10_000).is_err());
            assert!(decompress(&body(2012, 1000, compressor, &packed), 10_000).is_err());
        }
        assert!(decompress(&body(2013, 1000, 4, &plain), 10_000).is_err());
        for end in 0..HEAD_BYTES {
            assert!(decompress(&body(2013, 0, 0, &[])[..end], 10_000).is_err());
        }
    }
}
