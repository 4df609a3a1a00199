//! Applies the tar named first to the directory named second, and says how long it took: for comparing with other programs.

use std::fs::File;
use std::time::Instant;

use mica_layer::apply::{ApplyContext, Mapping, NoParents, apply_layer};
use mica_layer::compress::{Limits, decompress};
use mica_layer::tar_entry::TarLimits;

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(tar), Some(tree)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: apply_speed TAR DIRECTORY");
        std::process::exit(2);
    };
    let start = Instant::now();
    let applied = (|| {
        let (_, reader) = decompress(File::open(tar)?, Limits::default())?;
        let context =
            ApplyContext { lower: &NoParents, mapping: Mapping::Root, limits: TarLimits::default() };
        apply_layer(reader, File::open(tree)?, &context)
    })();
    match applied {
        Ok(applied) => println!(
            "{} entries, {} bytes, {:?}",
            applied.entries.len(),
            applied.tar_size_bytes,
            start.elapsed()
        ),
        Err(error) => println!("{error}"),
    }
}
