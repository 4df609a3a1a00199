//! How a manifest list can fail. Where docker has words that scripts look for, they are docker's.

/// A manifest list that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// There is no list of that name.
    #[error("No such manifest: {list}")]
    Missing {
        /// The name in full.
        list: String,
    },
    /// There is one already.
    #[error("refusing to amend an existing manifest list with no --amend flag: {list}")]
    Exists {
        /// The name in full.
        list: String,
    },
    /// The list has no such member.
    #[error("manifest for image {image} does not exist in {list}")]
    NoMember {
        /// The member.
        image: String,
        /// The list.
        list: String,
    },
    /// A platform that there is not.
    #[error("manifest entry for image has unsupported os/arch combination: {os}/{architecture}")]
    UnknownPlatform {
        /// The operating system.
        os: String,
        /// The architecture.
        architecture: String,
    },
    /// Nothing says what a member is for.
    #[error("manifest {image} must have an OS and Architecture to be pushed to a registry")]
    NoPlatform {
        /// The member.
        image: String,
    },
    /// The image is in the store only, and a list is made of what registries have.
    #[error("`{image}` is in the store, but its registry does not have it")]
    NotPushed {
        /// The image.
        image: String,
    },
    /// An index in an index, deeper than any real one.
    #[error("the indexes of `{image}` are nested too deep")]
    Nesting {
        /// The image.
        image: String,
    },
    /// More manifests than any list has.
    #[error("manifest list {list} has more than {max} manifests")]
    TooMany {
        /// The list, or the index that would become part of one.
        list: String,
        /// The limit.
        max: usize,
    },
    /// What the store has kept is no list.
    #[error("manifest list {list} in the store is damaged: {problem}")]
    Damaged {
        /// The list.
        list: String,
        /// What is wrong.
        problem: String,
    },
}
