//! What the commands that speak to registries have in common: the client, what names may mean, and one pull.

use std::sync::Once;

use mica_image::{ImageError, PullRequest, Pulled, TransferEvent};
use mica_oci::{Platform, Reference, ReferenceError};
use mica_registry_client::{Client, Credentials, Registries, RegistryError, Settings};
use mica_store::Store;

use crate::advice::Advise;
use crate::error::CliError;
use crate::progress::{Stream, Transfer};

/// Where registries are, as files of this machine and user say.
pub(crate) fn registries() -> Result<Registries, RegistryError> {
    Registries::load()
}

/// A client with the settings and logins of this user. Drop it before a container is made: its threads end with it.
pub(crate) fn client() -> Result<Client, RegistryError> {
    let registries = registries()?;
    let credentials = Credentials::of_user().with_helpers(registries.credential_helpers());
    Ok(Client::new(Settings { registries, credentials, ..Settings::default() }))
}

/// The same for the registries of these names, which are spoken to over plain http or with any certificate if `insecure` is
/// asked for.
pub(crate) fn client_for(insecure: bool, names: &[Reference]) -> Result<Client, RegistryError> {
    let client = client()?;
    if !insecure {
        return Ok(client);
    }
    let mut settings = client.settings().clone();
    for name in names {
        settings.registries = settings.registries.with_insecure(name.registry());
    }
    Ok(Client::new(settings))
}

/// A name as people write it, with neither tag nor digest added.
pub(crate) fn parse_reference(text: &str) -> Result<Reference, CliError> {
    Reference::parse(text).map_err(|error| {
        if let ReferenceError::Login { registry } = &error {
            return CliError::new(&error).hint(format!("log in once with `mica login {registry}`"));
        }
        let shown = CliError::new(format!("invalid image name `{text}`: {error}"));
        match &error {
            ReferenceError::Uppercase { suggestion, .. } => {
                shown.hint(format!("did you mean `{suggestion}`?"))
            }
            _ => shown,
        }
    })
}

/// Says what mirrors did wrong; where nobody had what was wanted, also which of them were asked.
pub(crate) fn tell_warnings(client: &Client, has_failed: bool) {
    for warning in client.take_warnings() {
        match warning.is_failure() {
            true => eprintln!("warning: {warning}"),
            false if has_failed => eprintln!("note: {warning}"),
            false => {}
        }
    }
}

/// What a name may mean, the likeliest first, each with a tag or digest: more than one where settings name other
/// registries for short names.
pub(crate) fn candidates(registries: &Registries, as_written: &str) -> Result<Vec<Reference>, ImageError> {
    let candidates = registries.candidates(as_written)?;
    Ok(candidates.iter().map(Reference::with_default_tag).collect())
}

/// Where a pull goes, and what it tells.
pub(crate) struct Puller<'a> {
    /// Where images come to.
    pub store: &'a Store,
    /// Whom registries are asked by.
    pub client: &'a Client,
    /// Inside a user namespace.
    pub rootless: bool,
    /// Where progress is written.
    pub stream: Stream,
}

impl Puller<'_> {
    /// Pulls one image with docker's lines, but for the last one, which only `pull` has.
    pub fn pull(&self, reference: &Reference, platform: Option<&Platform>) -> Result<Pulled, ImageError> {
        let pulled = self.pull_without_status(reference, platform)?;
        self.status(&reference.resolvable().familiar(), pulled.is_new);
        Ok(pulled)
    }

    /// Pulls one image up to the line with its digest.
    pub fn pull_without_status(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
    ) -> Result<Pulled, ImageError> {
        // A name with both is asked for by its digest.
        let asked = reference.resolvable();
        let what = match (asked.tag(), asked.digest()) {
            (Some(tag), None) => tag.to_owned(),
            _ => asked.canonical(),
        };
        // Not before the registry has answered: a name that it does not know is no pull.
        let header = Once::new();
        let say_header = || {
            header.call_once(|| {
                self.stream.line(&format!("{what}: Pulling from {}", asked.repository()));
            });
        };
        let transfer = Transfer::start(self.stream);
        let watch = |event: TransferEvent| {
            if let TransferEvent::Layers(_) = &event {
                say_header();
            }
            transfer.tell(event);
        };
        let request = PullRequest { reference, platform, rootless: self.rootless };
        let pulled = mica_image::pull(self.store, self.client, &request, &watch);
        drop(transfer);
        tell_warnings(self.client, pulled.is_err());
        let pulled = pulled?;
        say_header();
        self.stream.line(&format!("Digest: {}", pulled.target));
        Ok(pulled)
    }

    /// Says whether anything came.
    pub fn status(&self, name: &str, is_new: bool) {
        let what = if is_new { "Downloaded newer image" } else { "Image is up to date" };
        self.stream.line(&format!("Status: {what} for {name}"));
    }

    /// Pulls the first of the images that a name may mean and that there is. If there is none, the first one's failure is
    /// told, as that is what was most likely meant.
    pub fn pull_any(
        &self,
        candidates: &[Reference],
        platform: Option<&Platform>,
    ) -> Result<(Reference, Pulled), ImageError> {
        let mut first = None;
        for reference in candidates {
            match self.pull(reference, platform) {
                Ok(pulled) => return Ok((reference.clone(), pulled)),
                // Another registry cannot mend what is wrong here.
                Err(error) if !matches!(error, ImageError::Registry(_)) => return Err(error),
                Err(error) if first.is_some() => eprintln!("note: {}", error.message()),
                Err(error) => first = Some(error),
            }
        }
        Err(first.unwrap_or_else(|| ImageError::NotFound { text: String::new() }))
    }
}
