//! Reads settings from the environment and from a file of `NAME=value` lines, and collects every mistake before it
//! gives up, so that a wrong start says all that is wrong at once. The same code that reads a setting documents it:
//! `docs/configuration.md` is printed from the declarations.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use secrecy::SecretString;

/// One setting, as its struct declares it.
#[derive(Debug, Clone)]
pub struct Declared {
    /// The environment variable.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// What a good value looks like.
    pub wants: &'static str,
    /// The value when it isn't set; `None` means that it is required or optional without one.
    pub default: Option<String>,
    /// Whether a process refuses to start without it.
    pub required: bool,
    /// Whether its value must never be shown, and may be given by `<NAME>_FILE`.
    pub secret: bool,
}

/// All that was wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub struct SettingsError {
    mistakes: Vec<String>,
}

impl SettingsError {
    /// One line a mistake, each naming its variable.
    #[must_use]
    pub fn mistakes(&self) -> &[String] {
        &self.mistakes
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "the settings are not usable (docs/configuration.md explains each):"
        )?;
        for mistake in &self.mistakes {
            writeln!(f, "  {mistake}")?;
        }
        Ok(())
    }
}

/// Where the values come from.
#[derive(Debug)]
pub struct Reader {
    values: BTreeMap<String, String>,
    from_file: Vec<String>,
    declared: Vec<Declared>,
    mistakes: Vec<String>,
}

impl Reader {
    /// Takes the process's environment, over the file that `CONFIG_FILE` names, where it names one.
    ///
    /// # Errors
    /// The file can't be read, or a line of it is not `NAME=value`.
    pub fn from_environment() -> Result<Self, SettingsError> {
        let environment: BTreeMap<String, String> =
            std::env::vars().filter(|(_, value)| !value.is_empty()).collect();
        let Some(path) = environment.get("CONFIG_FILE").cloned() else {
            return Ok(Self::new(String::new().as_str(), environment));
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Self::new(&text, environment)),
            Err(error) => Err(SettingsError {
                mistakes: vec![format!("CONFIG_FILE: can't read {path}: {error}")],
            }),
        }
    }

    /// A reader over a file's text and an environment, which wins.
    #[must_use]
    pub fn new(file: &str, environment: BTreeMap<String, String>) -> Self {
        let mut reader = Self {
            values: BTreeMap::new(),
            from_file: Vec::new(),
            declared: Vec::new(),
            mistakes: Vec::new(),
        };
        for (index, line) in file.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.split_once('=') {
                Some((name, value)) if is_name(name.trim()) => {
                    let (name, value) = (name.trim().to_owned(), unquoted(value.trim()).to_owned());
                    if reader.from_file.contains(&name) {
                        reader
                            .mistakes
                            .push(format!("{name}: set twice in the configuration file"));
                    }
                    reader.from_file.push(name.clone());
                    reader.values.insert(name, value);
                }
                _ => reader.mistakes.push(format!(
                    "line {} of the configuration file: wants NAME=value",
                    index + 1
                )),
            }
        }
        reader.values.extend(environment);
        reader
    }

    /// Declares a setting and reads it later with one of [`Setting`]'s endings.
    pub fn setting(&mut self, name: &'static str, wants: &'static str, about: &'static str) -> Setting<'_> {
        Setting {
            reader: self,
            declared: Declared {
                name,
                about,
                wants,
                default: None,
                required: false,
                secret: false,
            },
        }
    }

    /// Notes a mistake that concerns several settings together.
    pub fn mistake(&mut self, text: String) {
        self.mistakes.push(text);
    }

    /// What has been declared, in order.
    #[must_use]
    pub fn declared(&self) -> &[Declared] {
        &self.declared
    }

    /// Ends the reading: unknown names in the file, and names of our own families in the environment that no
    /// setting has, are mistakes too.
    ///
    /// # Errors
    /// Every mistake that was met.
    pub fn finish<T>(mut self, settings: Option<T>) -> Result<T, SettingsError> {
        let known = |name: &str| {
            name == "CONFIG_FILE"
                || self.declared.iter().any(|setting| {
                    setting.name == name
                        || (setting.secret
                            && name
                                .strip_suffix("_FILE")
                                .is_some_and(|stem| stem == setting.name))
                })
        };
        let unknown: Vec<String> = self
            .values
            .keys()
            .filter(|name| !known(name))
            .filter(|name| self.from_file.contains(name) || super::of_our_families(name))
            .filter(|name| !super::of_another_process(name))
            .map(
                |name| match super::nearest(name, self.declared.iter().map(|setting| setting.name)) {
                    Some(near) => format!("{name}: there is no such setting; did you mean {near}?"),
                    None => format!("{name}: there is no such setting"),
                },
            )
            .collect();
        self.mistakes.extend(unknown);
        match settings {
            Some(settings) if self.mistakes.is_empty() => Ok(settings),
            _ => Err(SettingsError {
                mistakes: self.mistakes,
            }),
        }
    }

    fn take(&mut self, declared: Declared) -> Option<String> {
        let name = declared.name;
        let file_name = format!("{name}_FILE");
        let value = match (self.values.get(name), self.values.get(&file_name)) {
            (Some(_), Some(_)) if declared.secret => {
                self.mistakes
                    .push(format!("{name}: set together with {file_name}; set one of them"));
                None
            }
            (None, Some(path)) if declared.secret => match std::fs::read_to_string(path) {
                Ok(text) => Some(text.trim_end_matches(['\n', '\r']).to_owned()),
                Err(error) => {
                    self.mistakes
                        .push(format!("{file_name}: can't read {path}: {error}"));
                    None
                }
            },
            (Some(value), _) => Some(value.clone()),
            (None, _) => {
                if declared.required {
                    let or_file = if declared.secret {
                        format!(" (or {file_name})")
                    } else {
                        String::new()
                    };
                    self.mistakes
                        .push(format!("{name}{or_file}: missing; wants {}", declared.wants));
                }
                declared.default.clone()
            }
        };
        self.declared.push(declared);
        value
    }
}

/// A setting that is being declared.
#[derive(Debug)]
#[must_use = "a setting does nothing until it is read"]
pub struct Setting<'r> {
    reader: &'r mut Reader,
    declared: Declared,
}

impl Setting<'_> {
    /// The value when it isn't set.
    pub fn default(mut self, value: impl Into<String>) -> Self {
        self.declared.default = Some(value.into());
        self
    }

    /// Refuses to start without it.
    pub fn required(mut self) -> Self {
        self.declared.required = true;
        self
    }

    /// Reads a value that must be given or has a default. `None` stands for a mistake that has been noted.
    pub fn parse<T>(self, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        self.optional(parse).flatten()
    }

    /// Reads a value that may be missing: `Some(None)`. `None` stands for a mistake that has been noted.
    pub fn optional<T>(self, parse: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
        let Self { reader, declared } = self;
        let (name, wants, required, secret) =
            (declared.name, declared.wants, declared.required, declared.secret);
        let mistakes = reader.mistakes.len();
        match reader.take(declared) {
            None if required || reader.mistakes.len() > mistakes => None,
            None => Some(None),
            Some(text) => match parse(&text) {
                Some(value) => Some(Some(value)),
                None => {
                    let shown = if secret {
                        String::new()
                    } else {
                        format!(" {text:?}")
                    };
                    reader
                        .mistakes
                        .push(format!("{name}: the value{shown} is not usable; wants {wants}"));
                    None
                }
            },
        }
    }

    /// Reads a secret, from the variable or from the file that `<NAME>_FILE` names.
    pub fn secret<T>(mut self, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        self.declared.secret = true;
        self.parse(parse)
    }

    /// Reads a secret that may be missing.
    pub fn optional_secret(self) -> Option<Option<SecretString>> {
        self.optional_secret_of(|text| (!text.is_empty()).then(|| SecretString::from(text.to_owned())))
    }

    /// Reads a secret of a form, which may be missing.
    pub fn optional_secret_of<T>(mut self, parse: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
        self.declared.secret = true;
        self.optional(parse)
    }

    /// Reads a text as it stands.
    pub fn text(self) -> Option<String> {
        self.parse(|text| (!text.trim().is_empty()).then(|| text.trim().to_owned()))
    }

    /// Reads a path.
    pub fn path(self) -> Option<PathBuf> {
        self.parse(|text| {
            let path = PathBuf::from(text);
            path.is_absolute().then_some(path)
        })
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

fn unquoted(text: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return inner;
        }
    }
    text
}
