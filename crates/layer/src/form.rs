//! In which form a layer's tar goes out: algorithm and level.

use std::fmt;

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Not at all.
    Uncompressed,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl Algorithm {
    /// As flags spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uncompressed => "uncompressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// The lowest level, the one that is taken if none is given, and the highest.
    fn levels(self) -> (u8, u8, u8) {
        match self {
            Self::Uncompressed => (0, 0, 0),
            // As gzip, docker and buildkit compress: the best that is not slow.
            Self::Gzip => (0, 6, 9),
            Self::Zstd => (1, 3, 22),
        }
    }
}

/// Algorithm and level, which fits the algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Form {
    algorithm: Algorithm,
    level: u8,
}

/// Why there is no such form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// The algorithm is known elsewhere, and not made here.
    #[error("compression `{name}` is not supported; there are `gzip`, `zstd` and `uncompressed`")]
    Unsupported {
        /// As written.
        name: String,
    },
    /// No such algorithm.
    #[error("unknown compression `{name}`; there are `gzip`, `zstd` and `uncompressed`")]
    Unknown {
        /// As written.
        name: String,
    },
    /// The algorithm has no such level.
    #[error("compression level `{level}` of {} is not between {least} and {most}", algorithm.name())]
    Level {
        /// Of this.
        algorithm: Algorithm,
        /// As written.
        level: String,
        /// The lowest there is.
        least: u8,
        /// The highest there is.
        most: u8,
    },
    /// What is not compressed has no level.
    #[error("`uncompressed` has no compression level")]
    NoLevel,
}

impl Default for Form {
    /// What layers are pushed in.
    fn default() -> Self {
        Self::of(Algorithm::Gzip)
    }
}

impl Form {
    /// An algorithm at its usual level.
    pub fn of(algorithm: Algorithm) -> Self {
        Self { algorithm, level: algorithm.levels().1 }
    }

    /// What flags say: the name of the algorithm, and perhaps a level.
    pub fn parse(algorithm: &str, level: Option<&str>) -> Result<Self, FormError> {
        let known = [Algorithm::Uncompressed, Algorithm::Gzip, Algorithm::Zstd];
        let found = known.into_iter().find(|known| known.name() == algorithm);
        let Some(algorithm) = found else {
            let name = algorithm.to_owned();
            return Err(match algorithm {
                "estargz" | "zstd:chunked" => FormError::Unsupported { name },
                _ => FormError::Unknown { name },
            });
        };
        let Some(text) = level else { return Ok(Self::of(algorithm)) };
        let (least, _, most) = algorithm.levels();
        if algorithm == Algorithm::Uncompressed {
            return Err(FormError::NoLevel);
        }
        match text.parse::<u8>() {
            // Zstd's own word for its usual level; buildkit takes it.
            Ok(0) if algorithm == Algorithm::Zstd => Ok(Self::of(algorithm)),
            Ok(level) if (least..=most).contains(&level) => Ok(Self { algorithm, level }),
            _ => Err(FormError::Level { algorithm, level: text.to_owned(), least, most }),
        }
    }

    /// The algorithm.
    pub fn algorithm(self) -> Algorithm {
        self.algorithm
    }

    /// The level.
    pub fn level(self) -> u8 {
        self.level
    }

    /// Algorithm, level and version of what is made: equal names mean equal bytes of equal streams.
    pub fn name(self) -> String {
        match self.algorithm {
            Algorithm::Uncompressed => self.algorithm.name().to_owned(),
            Algorithm::Gzip | Algorithm::Zstd => format!("{self}.1"),
        }
    }

    /// The form of a name that [`Form::name`] gives in this version.
    pub fn of_name(name: &str) -> Option<Self> {
        let (algorithm, level) = name.strip_suffix(".1")?.split_once('-')?;
        Self::parse(algorithm, Some(level)).ok().filter(|form| form.name() == name)
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.algorithm.name(), self.level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_by_their_words() {
        let check = |algorithm: &str, level: Option<&str>, expect: &str| {
            let found = match Form::parse(algorithm, level) {
                Ok(form) => {
                    let is_itself = form.algorithm == Algorithm::Uncompressed
                        || Form::of_name(&form.name()) == Some(form);
                    assert!(is_itself, "{form}");
                    form.name()
                }
                Err(error) => error.to_string(),
            };
            assert_eq!(found, expect, "{algorithm} {level:?}");
        };
        check("gzip", None, "gzip-6.1");
        check("gzip", Some("0"), "gzip-0.1");
        check("gzip", Some("9"), "gzip-9.1");
        check("zstd", None, "zstd-3.1");
        check("zstd", Some("0"), "zstd-3.1");
        check("zstd", Some("22"), "zstd-22.1");
        check("uncompressed", None, "uncompressed");
        check("uncompressed", Some("1"), "`uncompressed` has no compression level");
        check("gzip", Some("10"), "compression level `10` of gzip is not between 0 and 9");
        check("gzip", Some("-1"), "compression level `-1` of gzip is not between 0 and 9");
        check("zstd", Some("23"), "compression level `23` of zstd is not between 1 and 22");
        check("zstd", Some("x"), "compression level `x` of zstd is not between 1 and 22");
        check(
            "estargz",
            None,
            "compression `estargz` is not supported; there are `gzip`, `zstd` and `uncompressed`",
        );
        check("brotli", None, "unknown compression `brotli`; there are `gzip`, `zstd` and `uncompressed`");
        assert_eq!(Form::default().name(), crate::encode::FORM);
        assert_eq!(Form::of_name("gzip-6.2"), None);
        assert_eq!(Form::of_name("gzip-06.1"), None);
    }
}
