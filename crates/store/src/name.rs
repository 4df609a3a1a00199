//! Names of images: canonical references that lead to an image. A name moves only after all it leads to is there.
//!
//! A name that was pulled has a *target*, what it leads to in its registry: often an index of several platforms. Then it may
//! have several images, those of the platforms that were pulled: it leads to the one that came last, and keeps the others.

use crate::codec;
use crate::error::{Result, StoreError};
use crate::image;
use crate::store::Store;
use mica_oci::{Digest, ImageId};
use rusqlite::{Connection, OptionalExtension};

impl Store {
    /// Lets `name` (a canonical reference) lead to the image, and to nothing else; answers where it led before.
    pub fn set_name(&self, name: &str, id: &ImageId) -> Result<Option<ImageId>> {
        self.write(|transaction| {
            if image::find(transaction, id)?.is_none() {
                return Err(StoreError::ImageMissing(id.clone()));
            }
            set(transaction, name, id, None)
        })
    }

    /// Removes a name, and answers where it led. Images of other platforms that it had stay, as this one does.
    pub fn remove_name(&self, name: &str) -> Result<Option<ImageId>> {
        self.write(|transaction| {
            let previous = image_of(transaction, name)?;
            transaction.execute("DELETE FROM names WHERE name=?1", [name])?;
            Ok(previous)
        })
    }

    /// Removes a name if it leads to that image; `false` if it does not (any more).
    pub fn remove_name_of(&self, name: &str, id: &ImageId) -> Result<bool> {
        self.write(|transaction| {
            let sql = "DELETE FROM names WHERE name=?1 AND image=?2";
            Ok(transaction.execute(sql, [name, &id.to_string()])? > 0)
        })
    }

    /// The image that a name leads to.
    pub fn name(&self, name: &str) -> Result<Option<ImageId>> {
        self.read(|connection| image_of(connection, name))
    }

    /// What a name leads to in its registry, if it was pulled or pushed.
    pub fn target_of(&self, name: &str) -> Result<Option<Digest>> {
        self.read(|connection| target_of(connection, name))
    }

    /// Sets what a name leads to in its registry (after a push), keeping the images it has. A name that is not there stays
    /// away.
    pub fn set_target(&self, name: &str, target: &Digest) -> Result<()> {
        self.write(|transaction| {
            transaction
                .prepare_cached("UPDATE names SET target=?2 WHERE name=?1")?
                .execute([name, &target.to_string()])?;
            Ok(())
        })
    }

    /// All images that a name has: the one it leads to first, then those of other platforms of the same index, as they came
    /// in. Empty if the name is not there.
    pub fn images_of(&self, name: &str) -> Result<Vec<ImageId>> {
        self.read(|connection| images_of(connection, name))
    }

    /// Lets `name` lead to what `from` leads to, with its target and all its images. Answers the image; `None` if `from`
    /// is not there, and nothing changes.
    pub fn copy_name(&self, from: &str, name: &str) -> Result<Option<ImageId>> {
        self.write(|transaction| {
            let Some(id) = image_of(transaction, from)? else { return Ok(None) };
            if from != name {
                let target = target_of(transaction, from)?;
                // Not as another platform of the same index: what `name` had before goes.
                set(transaction, name, &id, None)?;
                mica_sys::fail_point!("store.image.copy")?;
                transaction
                    .prepare_cached("UPDATE names SET target=?2 WHERE name=?1")?
                    .execute([name, &codec::text_or_empty(target.as_ref())])?;
                transaction
                    .prepare_cached(
                        "INSERT INTO name_images(name, image) SELECT ?2, image FROM name_images WHERE name=?1",
                    )?
                    .execute([from, name])?;
            }
            Ok(Some(id))
        })
    }

    /// Lets a name lead to another of its images; `false` if that one is not among them.
    pub fn lead_name_to(&self, name: &str, id: &ImageId) -> Result<bool> {
        self.write(|transaction| {
            let images = images_of(transaction, name)?;
            let Some(first) = images.first().filter(|_| images.contains(id)) else { return Ok(false) };
            if first != id {
                transaction
                    .prepare_cached("UPDATE names SET image=?2 WHERE name=?1")?
                    .execute([name, &id.to_string()])?;
                transaction
                    .prepare_cached("UPDATE name_images SET image=?3 WHERE name=?1 AND image=?2")?
                    .execute([name, &id.to_string(), &first.to_string()])?;
            }
            Ok(true)
        })
    }

    /// Takes one image from a name: where it was the one the name led to, the name leads to the next. The last one is not
    /// taken: `false`, and so if the name does not have it.
    pub fn remove_image_of(&self, name: &str, id: &ImageId) -> Result<bool> {
        self.write(|transaction| {
            let images = images_of(transaction, name)?;
            let Some(next) = images.iter().find(|image| *image != id).filter(|_| images.contains(id)) else {
                return Ok(false);
            };
            if images.first() == Some(id) {
                transaction
                    .prepare_cached("UPDATE names SET image=?2 WHERE name=?1")?
                    .execute([name, &next.to_string()])?;
            }
            let gone = if images.first() == Some(id) { next } else { id };
            transaction
                .prepare_cached("DELETE FROM name_images WHERE name=?1 AND image=?2")?
                .execute([name, &gone.to_string()])?;
            Ok(true)
        })
    }

    /// The names that have an image as that of another platform, sorted.
    pub fn other_names_of(&self, id: &ImageId) -> Result<Vec<String>> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT name FROM name_images WHERE image=?1 ORDER BY name")?;
            let names = statement.query_map([id.to_string()], |row| row.get(0))?;
            Ok(names.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// The names that lead to an image, sorted.
    pub fn names_of(&self, id: &ImageId) -> Result<Vec<String>> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT name FROM names WHERE image=?1 ORDER BY name")?;
            let names = statement.query_map([id.to_string()], |row| row.get(0))?;
            Ok(names.collect::<rusqlite::Result<_>>()?)
        })
    }
}

/// Lets a name lead to an image, in a transaction; answers where it led before.
pub(crate) fn set(
    connection: &Connection,
    name: &str,
    id: &ImageId,
    target: Option<&Digest>,
) -> Result<Option<ImageId>> {
    if name.is_empty() {
        return Err(StoreError::InvalidName { what: "reference", value: name.to_owned() });
    }
    let previous = image_of(connection, name)?;
    match &previous {
        // Another platform of the same index: the images that the name had stay its own.
        Some(previous) if target.is_some() && target_of(connection, name)?.as_ref() == target => {
            connection
                .prepare_cached("INSERT OR IGNORE INTO name_images(name, image) VALUES(?1, ?2)")?
                .execute([name, &previous.to_string()])?;
            connection
                .prepare_cached("DELETE FROM name_images WHERE name=?1 AND image=?2")?
                .execute([name, &id.to_string()])?;
        }
        _ => {
            connection.prepare_cached("DELETE FROM name_images WHERE name=?1")?.execute([name])?;
        }
    }
    connection
        .prepare_cached(
            "INSERT INTO names(name, image, target) VALUES(?1, ?2, ?3)
         ON CONFLICT(name) DO UPDATE SET image=?2, target=?3",
        )?
        .execute([name, &id.to_string(), &codec::text_or_empty(target)])?;
    Ok(previous)
}

fn image_of(connection: &Connection, name: &str) -> Result<Option<ImageId>> {
    let text: Option<String> = connection
        .prepare_cached("SELECT image FROM names WHERE name=?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    text.map(|text| codec::parse(&text, "image ID")).transpose()
}

fn target_of(connection: &Connection, name: &str) -> Result<Option<Digest>> {
    let text: Option<String> = connection
        .prepare_cached("SELECT target FROM names WHERE name=?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    codec::parse_option(&text.unwrap_or_default(), "digest")
}

fn images_of(connection: &Connection, name: &str) -> Result<Vec<ImageId>> {
    let mut images: Vec<ImageId> = image_of(connection, name)?.into_iter().collect();
    let mut statement = connection.prepare_cached(
    "SELECT o.image FROM name_images AS o JOIN images AS i ON i.id=o.image WHERE o.name=?1 ORDER BY i.sequence",
)?;
    let mut rows = statement.query([name])?;
    while let Some(row) = rows.next()? {
        images.push(codec::parse(row.get_ref(0)?.as_str().unwrap_or(""), "image ID")?);
    }
    Ok(images)
}
