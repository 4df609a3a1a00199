//! Maps of sparse files: GNU's old form in headers, and its three forms in PAX (0.0, 0.1, 1.0).

use crate::error::Result;
use crate::tar_header::{BLOCK_SIZE_BYTES, Block, decimal, parse_number};

/// Stored bytes and where in the file they belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Position in the file.
    pub offset: u64,
    /// Number of bytes.
    pub size_bytes: u64,
}

/// More segments in one file than this nobody has; GNU tar's own files have one per 512 bytes at worst.
const SEGMENTS_MAX: usize = 1 << 18;

#[derive(Debug, Default)]
pub(crate) struct Map {
    pub segments: Vec<Segment>,
    /// Length of the file with its holes.
    pub size_bytes: u64,
    /// The real name (PAX forms put a made-up one into the header).
    pub name: Option<Vec<u8>>,
    /// The segments stand before the content (form 1.0) and are still to be read.
    pub in_content: bool,
}

impl Map {
    fn push(&mut self, offset: u64, size_bytes: u64) -> Option<()> {
        if self.segments.len() >= SEGMENTS_MAX {
            return None;
        }
        self.segments.push(Segment { offset, size_bytes });
        Some(())
    }
}

/// The old GNU form. `None`: it is malformed.
pub(crate) fn parse_gnu(
    header: &Block,
    read_block: &mut dyn FnMut() -> Result<Block>,
) -> Result<Option<Map>> {
    let field = |block: &Block, start: usize| {
        let field = block.get(start..start + 12).unwrap_or_default();
        parse_number(field).and_then(|number| u64::try_from(number).ok())
    };
    let take = |map: &mut Map, block: &Block, first: usize, count: usize| -> Option<()> {
        for position in 0..count {
            let start = first + position * 24;
            // An unused place ends the list.
            if block.get(start).copied().unwrap_or(0) == 0 {
                break;
            }
            map.push(field(block, start)?, field(block, start + 12)?)?;
        }
        Some(())
    };
    let mut map = Map::default();
    let Some(size_bytes) = field(header, 483) else { return Ok(None) };
    map.size_bytes = size_bytes;
    if take(&mut map, header, 386, 4).is_none() {
        return Ok(None);
    }
    let mut extended = header.get(482).is_some_and(|byte| *byte != 0);
    let mut blocks = 0;
    while extended {
        blocks += 1;
        let block = read_block()?;
        if blocks > SEGMENTS_MAX / 21 || take(&mut map, &block, 0, 21).is_none() {
            return Ok(None);
        }
        extended = block.get(504).is_some_and(|byte| *byte != 0);
    }
    Ok(Some(map))
}

/// The PAX forms; `Ok(None)` if the records are of no sparse file.
pub(crate) fn parse_pax(records: &[(&[u8], &[u8])]) -> std::result::Result<Option<Map>, ()> {
    let mut map = Map::default();
    let (mut version, mut size_bytes, mut offset, mut has_map) = ((0, 0), None, None, false);
    for (key, value) in records {
        let Some(key) = key.strip_prefix(b"GNU.sparse.") else { continue };
        let number = || decimal(value).ok_or(());
        match key {
            b"major" => version.0 = number()?,
            b"minor" => version.1 = number()?,
            b"size" | b"realsize" => size_bytes = Some(number()?),
            b"name" => map.name = Some(value.to_vec()),
            b"offset" => offset = Some(number()?),
            b"numbytes" => {
                has_map = true;
                map.push(offset.take().ok_or(())?, number()?).ok_or(())?;
            }
            b"map" => {
                has_map = true;
                map.segments.clear();
                let mut numbers = value.split(|byte| *byte == b',').filter(|number| !number.is_empty());
                while let Some(offset) = numbers.next() {
                    let size_bytes = numbers.next().and_then(decimal).ok_or(())?;
                    map.push(decimal(offset).ok_or(())?, size_bytes).ok_or(())?;
                }
            }
            // `numblocks` says again what the list itself says.
            _ => {}
        }
    }
    map.in_content = version == (1, 0);
    if !map.in_content && !has_map {
        return Ok(None);
    }
    map.size_bytes = size_bytes.ok_or(())?;
    Ok(Some(map))
}

/// The segments of form 1.0, decimal lines before the content; gives the number of blocks they take. `None`: malformed.
pub(crate) fn parse_pax_content(
    map: &mut Map,
    read_block: &mut dyn FnMut() -> Result<Block>,
) -> Result<Option<u64>> {
    let (mut blocks, mut position, mut block) = (0, BLOCK_SIZE_BYTES, [0; BLOCK_SIZE_BYTES]);
    let mut next_number = || -> Result<Option<u64>> {
        let mut text = Vec::new();
        loop {
            if position == BLOCK_SIZE_BYTES {
                block = read_block()?;
                blocks += 1;
                position = 0;
            }
            let Some(byte) = block.get(position).copied() else { return Ok(None) };
            position += 1;
            if byte == b'\n' {
                return Ok(decimal(&text));
            }
            text.push(byte);
            if text.len() > 20 {
                return Ok(None);
            }
        }
    };
    let Some(count) = next_number()? else { return Ok(None) };
    if count > SEGMENTS_MAX as u64 {
        return Ok(None);
    }
    for _ in 0..count {
        let (Some(offset), Some(size_bytes)) = (next_number()?, next_number()?) else { return Ok(None) };
        map.segments.push(Segment { offset, size_bytes });
    }
    Ok(Some(blocks))
}

/// Whether the segments are in order, apart, inside the file, and have as many bytes as are stored; gives the bytes in holes.
pub(crate) fn check(map: &Map, stored_bytes: u64) -> Option<u64> {
    let (mut end, mut sum) = (0_u64, 0_u64);
    for segment in &map.segments {
        if segment.offset < end {
            return None;
        }
        end = segment.offset.checked_add(segment.size_bytes)?;
        sum = sum.checked_add(segment.size_bytes)?;
    }
    if end > map.size_bytes || sum != stored_bytes {
        return None;
    }
    map.size_bytes.checked_sub(sum)
}
