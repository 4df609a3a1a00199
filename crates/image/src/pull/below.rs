//! The layers of an image while several of them are made at once: who needs what is below waits for it.

use std::cell::OnceCell;
use std::fs::File;
use std::sync::{Condvar, Mutex, PoisonError};

use mica_layer::apply::Parents;
use mica_store::Layer;
use mica_tree::Entry;

use crate::chain::{Chain, read_index};

/// How far each layer is, the lowest first.
pub(super) struct Layers {
    slots: Mutex<Vec<Slot>>,
    changed: Condvar,
}

enum Slot {
    Coming,
    Done(Layer),
    Failed,
}

impl Layers {
    pub fn new(count: usize) -> Layers {
        let slots = std::iter::repeat_with(|| Slot::Coming).take(count).collect();
        Layers { slots: Mutex::new(slots), changed: Condvar::new() }
    }

    pub fn done(&self, position: usize, layer: Layer) {
        self.set(position, Slot::Done(layer));
    }

    pub fn failed(&self, position: usize) {
        self.set(position, Slot::Failed);
    }

    fn set(&self, position: usize, value: Slot) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get_mut(position) {
            *slot = value;
        }
        self.changed.notify_all();
    }

    /// Whether any layer has failed, so that work on the others is in vain.
    pub fn any_failed(&self) -> bool {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.iter().any(|slot| matches!(slot, Slot::Failed))
    }

    /// The layers from the lowest up to, without, `end`, once they are all there. `None` if one has failed.
    ///
    /// Layers are begun in order, so the lowest that is not there is always being worked on: waiting ends.
    pub fn wait_below(&self, end: usize) -> Option<Chain> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let below = slots.get(..end)?;
            if below.iter().any(|slot| matches!(slot, Slot::Failed)) {
                return None;
            }
            if below.iter().all(|slot| matches!(slot, Slot::Done(_))) {
                let mut chain = Chain::default();
                for slot in below {
                    if let Slot::Done(layer) = slot {
                        chain.push(layer.clone());
                    }
                }
                return Some(chain);
            }
            slots = self.changed.wait(slots).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// What is below the layer at `position`: looked at, and waited for, only if the layer asks.
pub(super) struct Below<'a> {
    pub layers: &'a Layers,
    pub position: usize,
    chain: OnceCell<Option<Chain>>,
}

impl<'a> Below<'a> {
    pub fn new(layers: &'a Layers, position: usize) -> Below<'a> {
        Below { layers, position, chain: OnceCell::new() }
    }

    /// The root of the topmost layer that has one.
    fn root(&self) -> Option<Entry> {
        let layers = self.chain()?.layers().iter().rev();
        layers
            .filter_map(|layer| read_index(layer).ok())
            .find_map(|index| index.entries().first().cloned().filter(|entry| entry.path.is_empty()))
    }

    fn chain(&self) -> Option<&Chain> {
        self.chain.get_or_init(|| self.layers.wait_below(self.position)).as_ref()
    }
}

impl Parents for Below<'_> {
    fn directory(&self, path: &[u8]) -> Option<Entry> {
        if self.position == 0 {
            return None;
        }
        if path.is_empty() {
            // Every layer whose tar has no `./` asks for this, and the merged index of all below would be dear.
            return self.root();
        }
        self.chain()?.directory(path)
    }

    fn open_file(&self, path: &[u8]) -> Option<(Entry, File)> {
        if self.position == 0 {
            return None;
        }
        self.chain()?.open_file(path)
    }
}
