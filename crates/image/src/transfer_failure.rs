//! How one layer's way in or out failed, before the image's name stands beside it.

use mica_registry_client::RegistryError;
use mica_store::StoreError;

use crate::error::ImageError;

/// By what the transfer itself found (`E`), or by one of the rooms below.
pub(crate) enum Failure<E> {
    Own(E),
    Image(ImageError),
}

impl<E> Failure<E> {
    /// The error of the whole; `name` puts the image's name beside what was found.
    pub fn of(self, name: impl FnOnce(E) -> ImageError) -> ImageError {
        match self {
            Failure::Own(source) => name(source),
            Failure::Image(error) => error,
        }
    }
}

impl<E> From<ImageError> for Failure<E> {
    fn from(error: ImageError) -> Self {
        Failure::Image(error)
    }
}

impl<E> From<RegistryError> for Failure<E> {
    fn from(error: RegistryError) -> Self {
        Failure::Image(error.into())
    }
}

impl<E> From<StoreError> for Failure<E> {
    fn from(error: StoreError) -> Self {
        Failure::Image(error.into())
    }
}

impl<E> From<mica_sys::Error> for Failure<E> {
    fn from(error: mica_sys::Error) -> Self {
        Failure::Image(error.into())
    }
}
