//! Mounts that the caller made and attached nowhere, as lowers of the container's overlays.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use mica_sys::error::{Error, Result};
use mica_sys::mount::{self, MountAttrFlags, Overlay};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::spec::{Lower, Mount};
use crate::target::Root;

/// The trees of a container while its overlays are made.
///
/// An overlay takes a lower by its path only, so a tree is attached for that moment, in the container's own mount
/// namespace. The overlay keeps a mount of its own that has no place anywhere.
pub(crate) struct Trees {
    descriptors: Vec<OwnedFd>,
    /// Where those are attached that have been asked for. Each once: a mount can be moved, and before Linux 6.15 one
    /// that is attached nowhere cannot be cloned.
    places: BTreeMap<usize, PathBuf>,
}

impl Trees {
    pub fn new(descriptors: Vec<OwnedFd>) -> Self {
        Self { descriptors, places: BTreeMap::new() }
    }

    /// The paths of an overlay's lowers; trees among them are attached.
    pub fn lowers(&mut self, lowers: &[Lower]) -> Result<Vec<PathBuf>> {
        lowers
            .iter()
            .map(|lower| match lower {
                Lower::Directory(path) => Ok(path.clone()),
                Lower::Tree { descriptor, place } => self.attach(*descriptor, place),
            })
            .collect()
    }

    fn attach(&mut self, descriptor: usize, place: &Path) -> Result<PathBuf> {
        if let Some(place) = self.places.get(&descriptor) {
            return Ok(place.clone());
        }
        let tree = self
            .descriptors
            .get(descriptor)
            .ok_or_else(|| Error::new("move_mount", format!("tree {descriptor}"), Errno::BADF))?;
        mount::attach(tree, mount::open_directory(place)?, place)?;
        self.places.insert(descriptor, place.to_owned());
        Ok(place.to_owned())
    }

    /// What a [`Mount::Tree`] is to show, attached nowhere; nothing for other mounts.
    pub fn clone_source(&mut self, mount: &Mount) -> Result<Option<OwnedFd>> {
        let Mount::Tree { descriptor, place, upper, work, userxattr, source, read_only, target: _ } = mount
        else {
            return Ok(None);
        };
        let lowers = [self.attach(*descriptor, place)?];
        let overlay = Overlay { lowers: &lowers, upper, work, user_xattr: *userxattr, volatile: true };
        // A path below a mount can be cloned only while that mount is attached.
        let root = Root::new(overlay.mount(upper)?)?;
        let source = if source.is_empty() { "/" } else { source };
        let clone = mount::clone_tree(root.open(source, OFlags::PATH)?, "", false)?;
        mount::detach(upper)?;
        if *read_only {
            mount::set_attributes(&clone, MountAttrFlags::MOUNT_ATTR_RDONLY, false)?;
        }
        Ok(Some(clone))
    }

    /// Takes the trees from their places and closes them.
    pub fn detach(self) -> Result<()> {
        self.places.values().try_for_each(|place| mount::detach(place))
    }
}
